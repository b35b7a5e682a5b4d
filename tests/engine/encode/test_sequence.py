"""Patterns of names: their numbers there and back, and what is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.sequence import is_pattern, parse_pattern
from giffusion.engine.errors import OutputError


@pytest.mark.parametrize(
    ("pattern", "index", "name"),
    [
        ("%05d.png", 7, "00007.png"),
        ("%d.png", 7, "7.png"),
        ("a-%03d_b.png", 1234, "a-1234_b.png"),
        ("100%-%02d.png", 0, "100%-00.png"),
    ],
)
def test_names_are_numbered(pattern: str, index: int, name: str) -> None:
    found = parse_pattern(Path("some%d", pattern))
    assert found.name(index) == name
    assert found.index(name) == index
    assert is_pattern(Path(pattern))


@given(st.integers(0, 10**7), st.integers(1, 12))
def test_a_number_comes_back(index: int, num_digits: int) -> None:
    pattern = parse_pattern(Path(f"a%0{num_digits}d.png"))
    assert pattern.index(pattern.name(index)) == index


@given(st.text(max_size=12))
def test_only_names_that_the_pattern_makes_have_a_number(name: str) -> None:
    pattern = parse_pattern(Path("a%03d.png"))
    index = pattern.index(name)
    assert index is None or pattern.name(index) == name


@pytest.mark.parametrize(
    "name", ["a01.png", "a0001.png", "a\u0661\u0662\u0663.png", "a-12.png", "a.png", "001"]
)
def test_other_names_have_none(name: str) -> None:
    assert parse_pattern(Path("a%03d.png")).index(name) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "a.png names one picture: expected a pattern, such as a/%05d.png"),
        ("x/%5d.png", "x/%5d.png names one picture: expected a pattern, such as x/%5d/%05d.png"),
        ("%d-%d.png", "%d-%d.png has more than one number: expected a pattern, such as frames/"),
        ("%d/a.png", "%d/a.png names one picture: expected a pattern, such as %d/a/%05d.png"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_right_spelling(name: str, message: str) -> None:
    assert not is_pattern(Path(name))
    with pytest.raises(OutputError) as caught:
        parse_pattern(Path(name))
    assert message in str(caught.value)
