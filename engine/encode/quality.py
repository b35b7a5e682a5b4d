"""One scale of quality for every encoder, 1 to 100, as numbers of the encoder's own.

Called by the table of encoders and by whoever checks an output. The invariant: more quality is
never less of it in any encoder's terms, and `USUAL` is what an encoder does when none is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from giffusion.engine.errors import SettingsError

MIN_QUALITY = 1
USUAL = 75
"""The quality that stands for an encoder's own default."""
MAX_QUALITY = 100


@dataclass(frozen=True, slots=True)
class Scale:
    """Where qualities lie among the values of one of an encoder's options.

    Args:
        worst: value at `MIN_QUALITY`.
        usual: value at `USUAL`, the option's value where no quality is asked for.
        best: value at `MAX_QUALITY`.
        digits: decimals that the option takes.
    """

    worst: float
    usual: float
    best: float
    digits: int = 0

    def at(self, quality: int) -> str:
        """Returns the option's value at a quality, straight between the nearest of the three."""
        if quality >= USUAL:
            low, high, weight = self.usual, self.best, (quality - USUAL) / (MAX_QUALITY - USUAL)
        else:
            span = USUAL - MIN_QUALITY
            low, high, weight = self.worst, self.usual, (quality - MIN_QUALITY) / span
        return f"{round(low + weight * (high - low), self.digits):g}"


def check_quality(quality: int | None, scales: Mapping[str, Scale], encoder: str) -> None:
    """Checks that an encoder has a quality.

    Args:
        quality: 1 … 100, or None for the encoder's own.
        scales: the encoder's options that quality sets; empty where there are none.
        encoder: its name, for the message.

    Raises:
        SettingsError: the number is out of its range, or the encoder has nothing to set.
    """
    if quality is None:
        return
    if isinstance(quality, bool) or not isinstance(quality, int):
        raise SettingsError(f"quality {quality!r} is not a whole number: expected an int")
    if not MIN_QUALITY <= quality <= MAX_QUALITY:
        limit = f"at most {MAX_QUALITY}" if quality > MAX_QUALITY else f"at least {MIN_QUALITY}"
        raise SettingsError(f"quality {quality} is out of range: expected {limit}")
    if not scales:
        raise SettingsError(f"encoder {encoder} has no quality to choose: leave --quality out")
