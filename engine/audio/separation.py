"""What is struck and what is held in a sound, apart.

Harmonic/percussive separation by median filtering, D. FitzGerald, DAFx 2010, with the margins of
J. Driedger et al., ISMIR 2014: what librosa.decompose.hpss finds, to 3e-7 of full scale. That takes
2.1 s of a core for a minute of sound, since SciPy's median of two dimensions is slow, needs the
whole sound at once, and compiles; here it is 0.26 s, which renders wait for. `analysis.py` sends
sound through it. The invariant: a stretch comes out as it would of the whole sound at once, and as
long as it was, while memory does not grow with the sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.extra import needs_audio
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import Sound, hann
from giffusion.engine.audio.windows import Windows

WINDOW = 2048
HOP = WINDOW // 4
KERNEL = 31
"""Windows, or frequencies, that a median is taken of."""
_REACH = KERNEL // 2
_CHUNK = 512

Magnitudes = NDArray[np.float32]  # (windows, frequencies)
Spectra = NDArray[np.complex64]  # (windows, frequencies)


def separated(blocks: Iterable[Sound], options: AudioOptions) -> Iterator[Sound]:
    """Yields the component of a sound that is to be heard.

    Args:
        blocks: (n,) each.
        options: `component` and `margin` are read.
    """
    if options.component == "both":
        yield from blocks
        return
    separator = Separator(options.component, options.margin)
    for block in blocks:
        yield from separator.write(block)
    yield from separator.rest()


class Separator:
    """Takes a sound in blocks and gives one component of it.

    Args:
        component: `harmonic` or `percussive`.
        margin: how much it has to exceed the other, 1 or more.

    Raises:
        RuntimeUnavailableError: SciPy is not installed.
    """

    def __init__(self, component: str, margin: float) -> None:
        _median_filter()
        self._is_harmonic = component == "harmonic"
        self._margin = margin
        self._windows = Windows(WINDOW)
        self._num_spectra = 0
        # Spectra that no component was taken of yet, behind those that medians still reach.
        self._spectra = np.empty((0, WINDOW // 2 + 1), np.complex64)
        self._num_behind = 0
        self._adder = _OverlapAdder()

    def write(self, block: Sound) -> Iterator[Sound]:
        """Takes the next samples; yields what is complete."""
        self._windows.write(block)
        self._transform()
        while len(self._spectra) >= self._num_behind + _CHUNK + _REACH:
            yield self._take(_CHUNK, _REACH)

    def rest(self) -> Iterator[Sound]:
        """Is told that the sound has ended; yields what is left."""
        self._windows.end()
        self._transform()
        if num_left := len(self._spectra) - self._num_behind:
            yield self._take(num_left, 0)
        yield self._adder.rest(self._windows.num_samples)

    def _transform(self) -> None:
        last = -(-self._windows.num_ready // HOP)
        if last > self._num_spectra:
            windows = self._windows.centred(np.arange(self._num_spectra, last) * HOP)
            spectra = np.fft.rfft(windows * hann(WINDOW)).astype(np.complex64, copy=False)
            self._spectra = np.concatenate([self._spectra, spectra])
            self._num_spectra = last

    def _take(self, count: int, num_ahead: int) -> Sound:
        """Returns the component of the next spectra, where so many lie ahead of them."""
        end = self._num_behind + count
        magnitudes = np.abs(self._spectra[: end + num_ahead])
        share = self._share(magnitudes, _REACH - self._num_behind, _REACH - num_ahead)
        component = self._spectra[self._num_behind : end] * share
        behind = min(end, _REACH)
        self._spectra = self._spectra[end - behind :]
        self._num_behind = behind
        return self._adder.add(component)

    def _share(self, magnitudes: Magnitudes, before: int, after: int) -> Magnitudes:
        """Returns which part of each frequency is the component's.

        Args:
            magnitudes: with those around that medians reach.
            before: how many are missing there since the sound begins.
            after: how many are missing since it ends.
        """
        harmonic = _median_along_time(magnitudes, before, after)
        inner = slice(_REACH - before, len(magnitudes) - (_REACH - after))
        percussive = _median_along_frequency(magnitudes[inner])
        ours, others = (harmonic, percussive) if self._is_harmonic else (percussive, harmonic)
        return _soft_mask(ours, others, self._margin)


class _OverlapAdder:
    """Adds up spectra's windows to a sound, and divides by what the windows add up to."""

    def __init__(self) -> None:
        # Of the sums and their weights, what following windows reach.
        self._open = np.zeros((2, WINDOW // HOP - 1, HOP), np.float32)
        # The first window is centred on the first sample.
        self._num_skipped = WINDOW // 2
        self._num_given = 0

    def add(self, spectra: Spectra) -> Sound:
        """Takes the next spectra; returns the samples that are complete."""
        overlap, count = WINDOW // HOP, len(spectra)
        window = hann(WINDOW)
        parts = np.fft.irfft(spectra, WINDOW).astype(np.float32, copy=False) * window
        both = np.zeros((2, count + overlap - 1, HOP), np.float32)
        both[:, : overlap - 1] = self._open
        for part in range(overlap):
            columns = slice(part * HOP, (part + 1) * HOP)
            both[0, part : part + count] += parts[:, columns]
            both[1, part : part + count] += window[columns] ** 2
        self._open = both[:, count:]
        return self._given(both[:, :count])

    def rest(self, num_samples: int) -> Sound:
        """Returns the last samples of a sound of so many."""
        return self._given(self._open)[: num_samples - self._num_given]

    def _given(self, both: NDArray[np.float32]) -> Sound:
        sums, weights = both.reshape(2, -1)[:, self._num_skipped :]
        self._num_skipped = max(0, self._num_skipped - both[0].size)
        self._num_given += len(sums)
        # At the very end the windows fade out: those samples are cut off.
        result: Sound = sums / np.maximum(weights, np.finfo(np.float32).tiny)
        return result


def _median_along_time(magnitudes: Magnitudes, before: int, after: int) -> Magnitudes:
    mirrored = np.pad(magnitudes, ((before, after), (0, 0)), mode="symmetric")
    return _running_median(mirrored.T).T


def _median_along_frequency(magnitudes: Magnitudes) -> Magnitudes:
    return _running_median(np.pad(magnitudes, ((0, 0), (_REACH, _REACH)), mode="symmetric"))


def _running_median(rows: Magnitudes) -> Magnitudes:
    """Returns the medians of KERNEL neighbours in each row, where a row has all of them."""
    # As one long row: SciPy's filter of one dimension is ten times as fast as that of two.
    medians: Magnitudes = _median_filter()(rows.ravel(), KERNEL).reshape(rows.shape)
    return medians[:, _REACH:-_REACH]


def _median_filter() -> Callable[[Magnitudes, int], Magnitudes]:
    with needs_audio("sound cannot be analysed"):
        from scipy.ndimage import median_filter  # type: ignore[import-untyped]  # it has no types
    filter_: Callable[[Magnitudes, int], Magnitudes] = median_filter
    return filter_


def _soft_mask(ours: Magnitudes, others: Magnitudes, margin: float) -> Magnitudes:
    ours, others = ours**2, (others * np.float32(margin)) ** 2
    total = ours + others
    # What is silent belongs to both, unless neither exceeds the other.
    mask = np.full_like(total, 0.5 if margin == 1 else 0)
    np.divide(ours, total, out=mask, where=total > 0)
    return mask
