"""`giffusion render --save-config`: when it writes, and that what it writes renders the same."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from giffusion.engine.encode import read_metadata
from giffusion.server.settings_file import load_settings_file
from tests.server.conftest import Command

FILM = "0: a dog\n4: a lion\n"
FAST = "--steps 2 --size 64x64 --runtime onnxruntime --batch 8"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.txt").write_text(FILM)


def test_a_render_is_made_again_by_what_it_saved(program: Command) -> None:
    line = f"render film.txt -o a.gif {FAST} --fps 20 --guidance '0:(3), 4:(5)' --seed 7"
    assert program(f"{line} --save-config used.toml")[0] == 0
    assert program("render --config used.toml -o b.gif")[0] == 0
    plans = [read_metadata(Path(name)) for name in ("a.gif", "b.gif")]
    assert plans[0] is not None
    assert plans[0] == plans[1]
    assert Path("a.gif").read_bytes() == Path("b.gif").read_bytes()


def test_a_render_that_is_refused_saves_nothing(program: Command) -> None:
    for wrong in ("--sampler eulr", "--precision int8", "--size 100x96", "--model minni"):
        line = f"render film.txt -o a.gif {FAST} {wrong} --save-config used.toml"
        assert program(line)[0] == 2
        assert os.listdir() == ["film.txt"]


def test_key_frames_of_standard_input_are_written_down(
    program: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILM.encode())))
    assert program(f"render - -o a.gif {FAST} --save-config used.toml")[0] == 0
    found = load_settings_file(Path("used.toml"))
    assert (found["prompts"], "file" in found) == (FILM, False)
    assert program("plan --config used.toml --json") == program("plan film.txt --json --steps 2")
