"""Spectra of windows of a sound, and the mel scale that they are reduced to: arrays in, arrays out.

The meters of `energy.py` and `onsets.py` and the separation use it. The invariant: a sine of full
scale has power 1 in its bin, so that what counts as silence does not depend on a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.with_librosa import mel_filters, mel_middles, mel_of

Sound = NDArray[np.float32]  # (n,), full scale is 1
Power = NDArray[np.float32]  # (windows, bins or bands)

RATE = 22050
"""Samples a second that sound is analysed at."""
NUM_BANDS = 128


@cache
def hann(length: int) -> NDArray[np.float32]:
    """Returns a periodic Hann window (length,)."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window.astype(np.float32)


def power_spectra(windows: Sound) -> Power:
    """Returns the power of each frequency of windows of sound.

    Args:
        windows: (windows, length), not yet weighted.

    Returns:
        (windows, length // 2 + 1).
    """
    window = hann(windows.shape[-1])
    spectra = np.fft.rfft(windows * (window * (2 / window.sum())), axis=-1)
    return (spectra.real**2 + spectra.imag**2).astype(np.float32, copy=False)


@dataclass(frozen=True, slots=True)
class MelBands:
    """Sums the power of frequencies into mel bands.

    Not a product of matrices: nearly all of its factors would be 0, and BLAS would start threads
    for it, which wait for each other on a machine that has other work.

    Args:
        bins: of all bands in turn, those that have a weight.
        weights: theirs.
        starts: (bands,), where each band begins among them.
    """

    bins: NDArray[np.int64]
    weights: NDArray[np.float32]
    starts: NDArray[np.int64]

    @classmethod
    def within(cls, band: tuple[float, float] | None, length: int) -> MelBands:
        """Takes the bands of a range in Hz, or all, for windows of a length."""
        filters = mel_filters(RATE, length, NUM_BANDS)[:, bands_within(band)].T
        counts = np.count_nonzero(filters, axis=1)
        assert counts.all()  # an empty band would get its neighbour's first bin
        bins = np.nonzero(filters)[1]
        return cls(bins, filters[filters > 0], np.cumsum(counts) - counts)

    def __len__(self) -> int:
        return len(self.starts)

    def of(self, power: Power) -> Power:
        """Returns the power of the bands, (windows, bands).

        Args:
            power: (windows, bins), as `power_spectra` returns it.
        """
        return np.add.reduceat(power[:, self.bins] * self.weights, self.starts, axis=1)


def bands_within(band: tuple[float, float] | None) -> slice:
    """Returns the mel bands whose middle is within limits, or the nearest one if none is.

    Args:
        band: (lowest, highest) in Hz, or None for all.
    """
    if band is None:
        return slice(0, NUM_BANDS)
    middles = mel_middles(RATE, NUM_BANDS)
    low, high = mel_of(band[0]), mel_of(band[1])
    inside = np.flatnonzero((low <= middles) & (middles <= high))
    if inside.size == 0:
        inside = np.argmin(np.abs(middles - (low + high) / 2), keepdims=True)
    return slice(int(inside[0]), int(inside[-1]) + 1)
