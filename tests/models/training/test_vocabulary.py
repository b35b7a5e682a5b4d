from __future__ import annotations

from pathlib import Path

import pytest

from giffusion.engine.errors import InputError
from giffusion.models.training.palette import WEATHERS
from giffusion.models.training.vocabulary import Word, read_vocabulary


def _read(tmp_path: Path, text: str) -> tuple[Word, ...]:
    path = tmp_path / "words.txt"
    path.write_text(text, encoding="utf-8")
    return read_vocabulary(path)


def test_a_line_names_a_picture(tmp_path: Path) -> None:
    words = _read(
        tmp_path, "[animal]\n1F415*3 dog; hound ~ mutt  # a comment\n\n[thing]\n1f453 +glasses\n"
    )
    assert words == (
        Word("1f415", "animal", ("dog", "hound"), ("mutt",), 3.0),
        Word("1f453", "thing", ("+glasses",)),
    )
    assert words[1].name == "glasses"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[animal]\n1f415*many dog", "expected a number"),
        ("[animal]\n1f415", "expected a code and a name"),
        ("1f415 dog", r"in a \[section\]"),
        ("[animal]\n1f415 dog\n1f415 cat", "both 'dog' and 'cat'"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        _read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_the_vocabulary_knows_what_the_issue_names() -> None:
    words = {name.lstrip("+"): word for word in read_vocabulary() for name in word.names}
    for name in ("corgi", "puppy", "lion", "house", "home", "cottage", "cat", "dog"):
        assert name in words
    assert words["corgi"] is words["puppy"]


def test_names_mean_one_picture() -> None:
    """The model could only learn a mixture of two."""
    seen: dict[str, str] = {}
    for word in read_vocabulary():
        for name in {name.lstrip("+") for name in (*word.names, *word.held_out)}:
            assert seen.setdefault(name, word.code) == word.code, name


def test_every_weather_has_its_picture() -> None:
    codes = {word.code for word in read_vocabulary()}
    assert {weather.code for weather in WEATHERS} <= codes
