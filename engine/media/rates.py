"""How many frames a film has in a second, out of the times that its frames are shown at.

Called by `index.py`. Pure: times in, a rate out. Files say rates that are wrong or none at all, and
some containers round times to milliseconds; the times decide, what the file says only helps. The
invariant: a constant rate is one by which every time is what its frame's number makes it, but for
the container's rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_NTSC = Fraction(1000, 1001)
_WHOLE = (24, 25, 30, 50, 60, 48, 12, 15, 10, 8, 120, 100, 20)
_USUAL = (*map(Fraction, _WHOLE), 24 * _NTSC, 30 * _NTSC, 60 * _NTSC)
_ROUNDING_S = Fraction(1, 10_000_000)
_COARSE_S = Fraction(1, 100)
"""Ticks of GIF, in which many rates look alike: the whole one is meant."""
_MAX_DENOMINATOR = 1001
# Either end of a time's distance from the first may be half a tick off.
_ROUNDING_TICKS = 1 + 1e-6


def frame_rate(
    times: NDArray[np.int64], time_base: Fraction, said: Iterable[Fraction | None]
) -> tuple[Fraction, bool]:
    """Returns a film's rate in frames a second, and whether it is constant.

    Args:
        times: (n,) when the frames are shown, ascending, no two alike; n is at least 1.
        time_base: seconds that a tick of them lasts.
        said: rates that the file says, the most trusted first.

    Returns:
        The rate, exact where it is constant, else the mean as a short fraction.
    """
    rates = [_unrounded(rate) for rate in said if rate and rate > 0]
    if len(times) == 1:
        return (rates[0] if rates else Fraction(1)), True
    steps = np.diff(times)
    # Before the usual rates: 33 ms may be any of them, and what the file says has come before.
    even = [1 / (int(steps[0]) * time_base)] if (steps == steps[0]).all() else []
    mean = (len(times) - 1) / (int(times[-1] - times[0]) * time_base)
    candidates = (*rates, *even, *_USUAL)
    if time_base >= _COARSE_S:
        # What FFmpeg says of a GIF is made of times as coarse as these.
        candidates = (*even, *_USUAL, *filter(None, [Fraction(round(mean))]), *rates)
    for rate in candidates:
        if _explains(rate, times, time_base):
            return rate, True
    return mean.limit_denominator(_MAX_DENOMINATOR) or mean, False


def _unrounded(rate: Fraction) -> Fraction:
    """Returns the whole or NTSC rate that a rate is meant to be, if it is as near as rounding.

    Matroska says nanoseconds, of which FFmpeg makes a short fraction.
    """
    for meant in (Fraction(round(rate)), round(rate / _NTSC) * _NTSC):
        if meant and abs(1 / meant - 1 / rate) < _ROUNDING_S:
            return meant
    return rate


def _explains(rate: Fraction, times: NDArray[np.int64], time_base: Fraction) -> bool:
    """Returns whether times are those of a constant rate, rounded to ticks."""
    exact = np.arange(len(times)) * float(1 / (rate * time_base))
    return bool((np.abs((times - times[0]) - exact) <= _ROUNDING_TICKS).all())
