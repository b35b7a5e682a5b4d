"""Numbers that users write: how one is read and rounded, and the range that it has to keep to.

Schedules, interpolation and the prompts' own numbers use it. Nothing here imports NumPy:
`giffusion plan` loads it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from giffusion.engine.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Limits:
    """A range of numbers, both ends included.

    Args:
        low: the smallest.
        high: the largest.
        whole: values are rounded to the nearest whole number, half up, before they are compared.
            Floats hold every whole number up to 2^53 only.
    """

    low: float
    high: float
    whole: bool = False

    def check(self, value: float, name: str, frame: int | None = None) -> float:
        """Returns a setting's value, rounded where it has to be whole.

        Args:
            value: any float, also one that is not finite.
            name: of the setting, for the message.
            frame: where it has this value, or None where it is the same on all frames.

        Raises:
            SettingsError: the value is out of range.
        """
        usable = value
        if self.whole and math.isfinite(value):
            usable = float(round_half_up(value))
        if self.low <= usable <= self.high:
            return usable
        shown = _shown(value)
        if self.low <= float(shown) <= self.high:
            shown = repr(value)
        where = name if frame is None else f"{name} at frame {frame}"
        advice = "" if frame is None else "; change the schedule"
        raise SettingsError(f"{where} is {shown}: expected {self}{advice}")

    def __str__(self) -> str:
        return f"{_shown(self.low)} to {_shown(self.high)}"


_NUMBER = re.compile(r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?")
ANY_NUMBER = Limits(-1e300, 1e300)
"""What keeps differences of two values finite."""


def plain_number(text: str) -> float:
    """Reads a number without names or arithmetic, such as `-1.5e3`; NaN for anything else."""
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def round_half_up(value: float | Fraction) -> int:
    """Returns the nearest whole number, of two the upper: how all keys are rounded to frames.

    Args:
        value: finite.
    """
    whole = math.floor(value)
    # Not floor(value + 0.5), whose sum is rounded up just below a half.
    return whole + 1 if value - whole >= 0.5 else whole


def _shown(value: float) -> str:
    """Writes all digits of a whole number without its `.0`, and twelve of another one."""
    return repr(float(value)).removesuffix(".0") if float(value).is_integer() else f"{value:.12g}"
