"""The tree of errors, and the hints at the end of their messages."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine import errors
from giffusion.engine.errors import GiffusionError, InputError, PromptError, nearest, reason_of

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, GiffusionError)
]


def test_the_tree_is_the_one_that_the_module_draws() -> None:
    drawn = dict[str, int]()
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"[ │├└─]{4,}(?P<name>[A-Z]\w+Error)\b", line):
            drawn[match["name"]] = match.start("name") // 4 - 1
    depths = {cls.__name__: len(cls.mro()) - len(GiffusionError.mro()) for cls in CLASSES}
    assert drawn == depths
    assert len(drawn) == 11


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_when_it_is_raised(cls: type[GiffusionError]) -> None:
    assert cls.__doc__


def test_a_prompt_error_points_at_its_place() -> None:
    error = PromptError("no text: expected a prompt", line=3, column=7, source="job.txt")
    assert str(error) == "job.txt:3:7: no text: expected a prompt"
    assert (error.line, error.column, error.source) == (3, 7, "job.txt")
    assert isinstance(error, InputError)
    assert str(PromptError("x", line=1, column=1)) == "<prompts>:1:1: x"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("eulr", "did you mean 'euler'? known: ddim, euler, lms"),
        ("DDIM", "did you mean 'ddim'? known: ddim, euler, lms"),
        ("", "known: ddim, euler, lms"),
        ("lms", "did you mean 'lms'? known: ddim, euler, lms"),
    ],
)
def test_nearest(name: str, hint: str) -> None:
    assert nearest(name, iter(["lms", "euler", "ddim"])) == hint


def test_nearest_of_none() -> None:
    assert nearest("euler", []) == "known: none"


@given(name=st.text(), known=st.sets(st.text(st.characters(categories=["L"]), min_size=1)))
def test_nearest_lists_all_and_never_repeats_what_was_written(name: str, known: set[str]) -> None:
    hint = nearest(name, known)
    suggested, _, listed = hint.rpartition("known: ")
    assert listed == (", ".join(sorted(known)) or "none")
    if suggested:
        assert suggested[len("did you mean '") : -len("'? ")] in known


def test_a_reason_is_one_line_in_the_systems_words() -> None:
    assert reason_of(FileNotFoundError(2, "No such file", "/a/b")) == "No such file"
    assert reason_of(ValueError("first\n  second")) == "first second"
