"""Times as text: exact, or refused in a line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.values import MAX_SECONDS, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", Fraction(12)),
        ("12.5", Fraction(25, 2)),
        ("25/2", Fraction(25, 2)),
        ("0:05", Fraction(5)),
        ("1:02.5", Fraction(125, 2)),
        ("1:02:03", Fraction(3723)),
        ("90:00", Fraction(5400)),
        ("0:00.1", Fraction(1, 10)),
        (" 0:07 ", Fraction(7)),
    ],
)
def test_times(text: str, seconds: Fraction) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", ":", "soon", "1:60", "1:60:00", "1:2:3:4", "-0:05", "1:", ":05", "1:2/3", "1:1e3"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(SettingsError, match="is not a time: expected seconds, such as") as caught:
        parse_seconds(text)
    assert "\n" not in str(caught.value)


def test_times_have_an_end() -> None:
    with pytest.raises(SettingsError, match="is out of range: expected at most"):
        parse_seconds("999:00:00")


@given(st.integers(0, MAX_SECONDS * 1000))
def test_a_clock_says_what_seconds_say(milliseconds: int) -> None:
    whole, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    expected = Fraction(milliseconds, 1000)
    assert parse_seconds(f"{minutes}:{seconds:02}.{rest:03}") == expected
    assert parse_seconds(f"{hours}:{left:02}:{seconds:02}.{rest:03}") == expected
