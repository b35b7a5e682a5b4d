"""How loud a sound is on every frame, and how far that has moved a frame between two key frames.

Made by `energy.py`, asked by the timeline for every frame. The invariant: a weight is 0 on the
first key frame of a segment, 1 on the last one and never falls between them, whatever was heard.
Nothing here imports NumPy.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import accumulate

SILENT = 1e-9
"""What is not within 90 dB of the loudest frame counts as silence."""


@dataclass(frozen=True, slots=True)
class EnergyCurve:
    """The loudness of a sound at each frame's time.

    Args:
        values: one a frame, each 0 … 1; the loudest frame has 1, unless there is only silence.
        smooth: share of a steady motion in the weights, 0 … 1.
    """

    values: tuple[float, ...]
    smooth: float = 0.0
    _sums: array[float] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert all(0 <= value <= 1 for value in self.values)
        heard = (value if value >= SILENT else 0.0 for value in self.values)
        object.__setattr__(self, "_sums", array("d", accumulate(heard, initial=0.0)))

    def __len__(self) -> int:
        return len(self.values)

    def at(self, frame: int) -> float:
        """Returns the loudness at a frame's time, 0 … 1; beyond either end nothing is heard."""
        return self.values[frame] if 0 <= frame < len(self.values) else 0.0

    def weight(self, frame: int, start: int, end: int) -> float:
        """Returns how far a frame has moved from a key frame to the next, 0 … 1.

        It is the share of the segment's energy that has been heard. What is heard on the key frame
        `start` itself is not of the segment, and what is heard on `end` is: a hit on a key frame is
        the step that arrives there. A silent segment moves steadily.

        Args:
            frame: start … end.
            start: the key frame before it.
            end: the key frame after it, above `start`.
        """
        assert start <= frame <= end != start, (start, frame, end)
        steady = (frame - start) / (end - start)
        before = self._sum_to(start)
        total = self._sum_to(end) - before
        if total == 0 or frame in (start, end):
            return steady
        heard = (self._sum_to(frame) - before) / total
        return heard + self.smooth * (steady - heard)

    def _sum_to(self, frame: int) -> float:
        """Returns the energy of all frames up to one, itself included."""
        return self._sums[min(max(frame + 1, 0), len(self.values))]
