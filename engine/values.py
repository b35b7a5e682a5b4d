"""Values of settings: how each is read from text, and the range that it keeps to.

`settings.py` checks with it, front ends read options with it. The invariant: a number is exact, and
a refusal is a line that never repeats thousands of digits. Nothing here imports NumPy.
"""

from __future__ import annotations

import re
from fractions import Fraction
from reprlib import repr as quote

from giffusion.engine.conditions.emphasis import check_emphasis
from giffusion.engine.errors import SettingsError, nearest

MAX_FPS = 1000
MAX_SIDE = 8192
MAX_SECONDS = 10**6
"""Eleven days; more is a mistake."""
# A number that a message does not repeat; Python even refuses to write thousands of digits.
_MANY = 10**40
# Without exponents: `1e999999` would be a number of a million digits. Terms of a fraction may be
# longer than a decimal, which is written as one and has to be read again.
_FPS = re.compile(
    r"[-+]?(?:[0-9]{1,18}\.[0-9]{0,18}|[0-9]{1,36}(?:/0*[1-9][0-9]{0,35})?|\.[0-9]{1,18})"
)
# Minutes and seconds, or hours before them.
_CLOCK = re.compile(
    r"(?:([0-9]{1,9}):(?=[0-5]?[0-9]:))?([0-9]{1,9}):([0-5]?[0-9](?:\.[0-9]{0,18})?)"
)
_NUMBER = r"(?:[0-9]{1,12}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
_BAND = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*")


def parse_fps(text: str) -> Fraction:
    """Reads a frame rate: `24`, `23.976`, or exactly as `24000/1001`.

    Raises:
        SettingsError: the text is not a positive number or fraction.
    """
    if _FPS.fullmatch(text.strip()) is None:
        raise SettingsError(
            f"fps {quote(text)} is not a frame rate: expected a number or a fraction such as"
            " 30000/1001"
        )
    fps = Fraction(text.strip())
    in_range("fps", fps, Fraction(1, 1000), MAX_FPS)
    return fps


def parse_size(text: str) -> tuple[int, int]:
    """Reads a picture size, `WIDTHxHEIGHT` in pixels.

    Raises:
        SettingsError: the text is not two positive whole numbers.
    """
    match = re.fullmatch(r"\s*([0-9]{1,6})\s*[xX×]\s*([0-9]{1,6})\s*", text)
    if match is None:
        raise SettingsError(
            f"size {quote(text)} is not a size: expected WIDTHxHEIGHT, such as 128x128"
        )
    width, height = int(match[1]), int(match[2])
    for side in (width, height):
        in_range("size", side, 1, MAX_SIDE)
    return width, height


def parse_seconds(text: str) -> Fraction:
    """Reads a time: seconds as `12.5` or exactly as `25/2`, or `1:02.5`, or `1:02:03`.

    Raises:
        SettingsError: the text is none of these, or out of range.
    """
    if (clock := _CLOCK.fullmatch(text.strip())) is not None:
        hours, minutes, rest = (Fraction(part or 0) for part in clock.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    elif _FPS.fullmatch(text.strip()) is not None:
        seconds = Fraction(text.strip())
    else:
        raise SettingsError(
            f"{quote(text)} is not a time: expected seconds, such as 12.5 or 25/2, or minutes "
            "and seconds, such as 1:02.5"
        )
    in_range("time", seconds, 0, MAX_SECONDS)
    return seconds


def parse_band(text: str) -> tuple[float, float]:
    """Reads a band of frequencies, `LOW-HIGH` in Hz.

    Raises:
        SettingsError: the text is not two numbers.
    """
    match = _BAND.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"band {quote(text)} is not a band: expected LOW-HIGH in Hz, such as 20-200"
        )
    return float(match[1]), float(match[2])


def in_range(
    name: str, value: Fraction | float, low: Fraction | float, high: Fraction | float
) -> None:
    """Checks that a setting's value lies between two others, both included.

    Raises:
        SettingsError: it does not.
    """
    if not low <= value <= high:
        limit = f"at most {high}" if value > high else f"at least {low}"
        raise SettingsError(f"{name} {_shown(value)} is out of range: expected {limit}")


def _shown(value: Fraction | float) -> str:
    terms = (value.numerator, value.denominator) if isinstance(value, int | Fraction) else ()
    return "of many digits" if any(abs(term) >= _MANY for term in terms) else str(value)


def check_text(name: str, text: str) -> None:
    """Checks a setting that is part of prompts.

    Raises:
        SettingsError: it is not UTF-8, or its weights of words have no meaning.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise SettingsError(f"{name} {quote(text)} is not UTF-8: expected plain text")
    check_emphasis(text, name)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Checks a setting that is one of several words.

    Raises:
        SettingsError: it is none of them.
    """
    if value not in known:
        raise SettingsError(f"unknown {name} {quote(value)}: {nearest(value, known)}")
