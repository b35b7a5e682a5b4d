"""`giffusion inspire`, as a user meets it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from textwrap import indent

import pytest

from giffusion.engine.errors import GiffusionError
from giffusion.engine.inspiration.vocabulary import vocabulary_for
from giffusion.engine.prompts import parse_prompts
from giffusion.server.commands import inspire
from giffusion.server.inspire_options import add_inspire_options
from tests.catalogue.slim import edit_json, slim_model
from tests.pages import DOCS

Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; returns what it prints."""

    def run(*words: str) -> str:
        parser = argparse.ArgumentParser()
        add_inspire_options(parser)
        inspire.run(parser.parse_args(words))
        return capsys.readouterr().out

    return run


@pytest.fixture
def other(tmp_path: Path) -> str:
    """A model that is not the bundled one."""
    slim_model(tmp_path / "other")
    edit_json(tmp_path / "other" / "giffusion.json", name="other")
    return str(tmp_path / "other")


def test_it_prints_what_render_reads(run: Run, other: str) -> None:
    text = run("ocean, jazz", "--model", other)
    key_frames = parse_prompts(text)
    assert [key_frame.frame for key_frame in key_frames] == [0, 24, 48, 72, 96, 120]
    assert "ocean" in text
    assert "jazz" in text
    assert text == run("ocean, jazz", "--model", other, "--seed", "0")
    assert text != run("ocean, jazz", "--model", other, "--seed", "1")


def test_both_forms_mean_the_same(run: Run, other: str) -> None:
    for topics in ("", "a | b, (c), \\ --neg d, {e}", "日本 \n 海"):
        line = (topics, "--model", other, "--key-frames", "4", "--gap", "12")
        text = run(*line, "--json")
        assert list(json.loads(text)) == ["0", "12", "24", "36"]
        assert parse_prompts(text) == parse_prompts(run(*line))


def test_the_bundled_model_has_words_of_its_own(run: Run) -> None:
    for line in run().splitlines():
        assert ": a picture of a" in line
        assert line.endswith(tuple(entry.text for entry in vocabulary_for("mini").slots["place"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key-frames", "0"], "there are 0 key frames"),
        (["--gap", "0"], "gap 0 is out of range"),
        (["--seed", "-1"], "seed -1 is out of range"),
        (["--model", "none"], "unknown model 'none'"),
        (["x" * 201], "is too long"),
        (["--generator", "none"], "none/config.json is missing: expected a transformers folder"),
    ],
)
def test_what_cannot_be(run: Run, words: list[str], message: str) -> None:
    with pytest.raises(GiffusionError) as caught:
        run(*words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_page_shows_what_is_printed(run: Run, other: str) -> None:
    page = (DOCS / "inspiration.md").read_text("utf-8")
    line = '    $ giffusion inspire "ocean, jazz" --seed 3 --key-frames 4 --model ./sd15\n'
    text = run("ocean, jazz", "--seed", "3", "--key-frames", "4", "--model", other)
    assert line + indent(text, "    ") + "\n" in page
    own = '    $ giffusion inspire "ocean, jazz" --seed 3 --key-frames 3\n'
    assert own + indent(run("ocean, jazz", "--seed", "3", "--key-frames", "3"), "    ") in page
    for name in ("mini", "scenes"):
        slots = vocabulary_for(name).slots
        assert f"| `{name}` | {len(slots['subject'])} | {len(slots['place'])}" in page
