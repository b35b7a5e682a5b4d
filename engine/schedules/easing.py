"""How a segment is walked: the weight of its end, from the share of it that has passed.

The timeline blends noise and embeddings with these weights. The invariant: a weight is exact at
both ends, 0 at 0 and 1 at 1, and stays in [0, 1] between them, so that key frames are hit exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from reprlib import repr as quote
from typing import TypeAlias

from giffusion.engine.errors import SettingsError, nearest
from giffusion.engine.schedules.curves import SERIES, Schedule, parse_schedule
from giffusion.engine.schedules.limits import Limits, plain_number

INTERPOLATION_NAMES = ("linear", "sine", "ease", "curve", "audio")

Weight: TypeAlias = Callable[[float], float]
"""The share of a segment that has passed, in [0, 1], to the weight of its end, in [0, 1]."""

MAX_FREQUENCIES = 16
MAX_FREQUENCY = 1000.0
DEFAULT_FREQUENCIES = (0.5,)
DEFAULT_EASE = "in-out"
# Eight points for each wave of sin² at the highest frequency.
_GRID = 8192


def linear(x: float) -> float:
    """Returns the share itself."""
    return x


def _ease_in(x: float) -> float:
    return x * x


def _ease_out(x: float) -> float:
    return 1 - (1 - x) * (1 - x)


def _ease_in_out(x: float) -> float:
    return 2 * x * x if x < 0.5 else 1 - 2 * (1 - x) * (1 - x)


_EASES: dict[str, Weight] = {"in": _ease_in, "out": _ease_out, "in-out": _ease_in_out}
EASES = tuple(_EASES)


def ease(kind: str) -> Weight:
    """Returns Penner's quadratic easing: it begins slowly, ends slowly, or both.

    See R. Penner, "Programming Macromedia Flash MX", 2002, chapter 7.

    Args:
        kind: one of `EASES`.

    Raises:
        SettingsError: there is no such easing.
    """
    if kind not in _EASES:
        raise SettingsError(f"unknown ease {quote(kind)}: {nearest(kind, EASES)}")
    return _EASES[kind]


def hold(weight: Weight, share: float) -> Weight:
    """Returns a weight that stays 0 for the first part of the segment.

    Args:
        weight: how the rest is walked.
        share: length of that part, 0 … 1; at 1 the segment jumps on its end.
    """
    if share >= 1:
        return lambda x: 1.0 if x >= 1 else 0.0
    return lambda x: 0.0 if x <= share else weight((x - share) / (1 - share))


@lru_cache(maxsize=64)
def sine(frequencies: tuple[float, ...] = DEFAULT_FREQUENCIES) -> Weight:
    """Returns a weight that swings: `x + a·(m(x) - m(1)·x)`, m the mean of `sin²(π·f·x)`.

    Frequency 0.5 alone is `sin²(π·x/2)`, from 0 to 1 in one slow swing. A sum of others, as
    GIFfusion has it, does not end on 1; frequency 1 even leaves the segment where it began. The
    linear term leads every sum to 1, and `a`, at most 1, is the largest that keeps the weight in
    [0, 1] on a grid; between the grid's points it is cut off.

    Args:
        frequencies: swings there and back along the segment; 1 to `MAX_FREQUENCIES` numbers above
            0 and at most `MAX_FREQUENCY`.
    """
    end = _swing(frequencies, 1.0)
    share = min(_room(frequencies, i / _GRID, end) for i in range(1, _GRID))

    def weight(x: float) -> float:
        return min(max(x + share * (_swing(frequencies, x) - end * x), 0.0), 1.0)

    return weight


def _swing(frequencies: tuple[float, ...], x: float) -> float:
    return math.fsum(math.sin(math.pi * f * x) ** 2 for f in frequencies) / len(frequencies)


def _room(frequencies: tuple[float, ...], x: float, end: float) -> float:
    """Returns the largest `a`, at most 1, that keeps the weight in [0, 1] at one place."""
    swing = _swing(frequencies, x) - end * x
    limit = 1 - x if swing > 0 else x
    return 1.0 if abs(swing) <= limit else limit / abs(swing)


@dataclass(frozen=True, slots=True)
class Interpolation:
    """How all segments are walked: by a weight of their share, by a schedule of the frames, or by
    what is heard on them.

    Args:
        name: one of `INTERPOLATION_NAMES`.
        arguments: what was written after it.
        weight: for every segment, or None for `curve` and `audio`.
        schedule: the weight at each frame, in [0, 1], for `curve`; else None.
    """

    name: str
    arguments: str
    weight: Weight | None = field(repr=False, compare=False)
    schedule: Schedule | None = field(repr=False, compare=False)


def parse_interpolation(name: str, arguments: str = "") -> Interpolation:
    """Reads `--interpolation NAME --interpolation-args ARGUMENTS`.

    Args:
        name: one of `INTERPOLATION_NAMES`.
        arguments: for `sine` frequencies, `0.5, 2`; for `ease` one of `EASES`; for `curve` a
            schedule, `0:(0), 30:(1)`; nothing for `linear` and `audio`.

    Raises:
        SettingsError: the name is unknown, or its arguments are wrong.
    """
    if name == "curve":
        return Interpolation(name, arguments, None, _curve(arguments))
    if name == "audio":
        _check_bare(name, arguments.strip())
        return Interpolation(name, arguments, None, None)
    return Interpolation(name, arguments, segment_weight(name, arguments), None)


def segment_weight(interpolation: str, arguments: str = "") -> Weight:
    """Returns how every segment is walked, for what needs to know nothing of its frames.

    Raises:
        SettingsError: the name is unknown, or its arguments are wrong.
    """
    arguments = arguments.strip()
    if interpolation == "linear":
        _check_bare(interpolation, arguments)
        return linear
    if interpolation == "sine":
        return sine(_frequencies(arguments) if arguments else DEFAULT_FREQUENCIES)
    if interpolation == "ease":
        return ease(arguments or DEFAULT_EASE)
    if interpolation in ("curve", "audio"):
        raise SettingsError(
            f"interpolation {interpolation} has no weight of its own: ask parse_interpolation"
        )
    known = nearest(interpolation, INTERPOLATION_NAMES)
    raise SettingsError(f"unknown interpolation {quote(interpolation)}: {known}")


def _check_bare(interpolation: str, arguments: str) -> None:
    if arguments:
        message = f"interpolation {interpolation} takes no arguments, not {quote(arguments)}"
        raise SettingsError(f"{message}: remove them, or choose another interpolation")


def _curve(arguments: str) -> Schedule:
    if not arguments.strip():
        example = "expected a schedule such as '0:(0), 30:(1)'"
        raise SettingsError(f"interpolation curve has no arguments: {example}")
    return parse_schedule(arguments, "interpolation curve", Limits(0, 1), SERIES)


def _frequencies(arguments: str) -> tuple[float, ...]:
    texts = re.split(r"\s*,\s*|\s+", arguments.removesuffix(",").rstrip(), maxsplit=MAX_FREQUENCIES)
    for text in texts[:MAX_FREQUENCIES]:
        if not 0 < plain_number(text) <= MAX_FREQUENCY:
            message = f"interpolation sine has no frequency {quote(text)}"
            limit = f"expected numbers above 0 and at most {MAX_FREQUENCY:g}"
            raise SettingsError(f"{message}: {limit}, such as '0.5, 2'")
    if len(texts) > MAX_FREQUENCIES:
        message = f"interpolation sine has more than {MAX_FREQUENCIES} frequencies"
        raise SettingsError(f"{message}: remove some")
    return tuple(map(float, texts))
