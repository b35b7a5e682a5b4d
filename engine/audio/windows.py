"""Windows of a sound that comes in blocks, and the instants at which a frame is heard.

The meters and the separation take their windows from here. The invariant: a window is centred on
the sample nearest to an exact time, so that nothing drifts however long a sound is, and no more is
kept than the next window needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.spectra import RATE, Sound

LARGEST_STEP = 1024
"""Samples from an instant to the next: half a window, so that every sound is heard."""
_BATCH = 256


class Windows:
    """Gives windows of a sound before and behind which there is silence.

    Args:
        length: samples of a window, even.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.num_samples = 0
        """Samples of the sound so far."""
        self._kept = np.zeros(length // 2, np.float32)
        self._first = -(length // 2)

    def write(self, block: Sound) -> None:
        """Takes the next samples."""
        self._kept = np.concatenate([self._kept, block])
        self.num_samples += len(block)

    def end(self) -> None:
        """Takes silence, so that windows centred on every sample can be given."""
        self._kept = np.concatenate([self._kept, np.zeros(self.length // 2, np.float32)])

    @property
    def num_ready(self) -> int:
        """Samples of the sound that windows can be centred on, one more at its end."""
        return max(0, self._first + len(self._kept) - self.length // 2 + 1)

    def centred(self, centres: NDArray[np.int64]) -> Sound:
        """Returns windows (n, length), and forgets what lies before the last one.

        Args:
            centres: (n,) samples, ascending, none below those of the last call.
        """
        starts = centres - self.length // 2 - self._first
        views = np.lib.stride_tricks.sliding_window_view(self._kept, self.length)
        windows = views[starts]
        self._kept = self._kept[starts[-1] :]
        self._first += int(starts[-1])
        return windows


@dataclass(frozen=True, slots=True)
class Instants:
    """The times at which frames are heard: instant k is at k / (fps × per_frame).

    Args:
        fps: frames a second, exact.
        per_frame: odd; where frames are further apart than windows reach, several windows
            around the frame's time are heard.
    """

    fps: Fraction
    per_frame: int

    @classmethod
    def of(cls, fps: Fraction) -> Instants:
        """Chooses the fewest instants a frame that leave no gap."""
        fewest = -(-RATE // (fps * LARGEST_STEP))
        return cls(fps, int(fewest) | 1)

    def centres(self, first: int, last: int) -> NDArray[np.int64]:
        """Returns the samples nearest to the times of instants first … last - 1."""
        a_second = self.fps * self.per_frame
        top, bottom = 2 * RATE * a_second.denominator, 2 * a_second.numerator
        whole = (_centre(k, top, bottom) for k in range(first, last))
        return np.fromiter(whole, np.int64, last - first)

    def num_before(self, num_samples: int) -> int:
        """Returns how many instants' samples are below a number."""
        # round(k · RATE / rate) < n where k · RATE / rate < n - 1/2
        a_second = self.fps * self.per_frame
        return max(0, -(-(Fraction(2 * num_samples - 1, 2) * a_second / RATE) // 1))

    def frames(self, first: int, last: int) -> NDArray[np.int64]:
        """Returns the frame that each of the instants first … last - 1 belongs to."""
        return (np.arange(first, last) + self.per_frame // 2) // self.per_frame

    def batches(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yields a range of instants in parts of bounded length."""
        for begin in range(first, last, _BATCH):
            yield begin, min(begin + _BATCH, last)


def _centre(instant: int, top: int, bottom: int) -> int:
    """Rounds instant · top / bottom to the nearest whole number, of two the upper."""
    return (instant * top + bottom // 2) // bottom
