"""What librosa does here: mel bands, the strength of onsets, onsets, tempo and beats.

`spectra.py`, `onsets.py` and `analysis.py` call it. The only module that imports librosa, and only
when something is heard; the invariant: mel bands are had without anything that is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.compiling import compiling
from giffusion.engine.audio.extra import needs_audio
from giffusion.engine.notes import OnNote

Strength = NDArray[np.float64]  # (steps,)

# What librosa.feature.tempo looks at around each step, in seconds.
_STRETCH_S = 8.0
# Steps whose stretches are compared at a time: of an hour at once they are 10 GB.
_PART = 4096


@contextmanager
def _librosa(on_note: OnNote | None = None) -> Iterator[None]:
    with needs_audio("sound cannot be analysed"), compiling(on_note):
        yield


@cache
def mel_filters(rate: int, length: int, num_bands: int) -> NDArray[np.float32]:
    """Returns the weights of mel bands from 0 to rate / 2 Hz, (length // 2 + 1, num_bands).

    Args:
        rate: samples a second.
        length: of windows, in samples.
        num_bands: number of bands.

    Raises:
        RuntimeUnavailableError: librosa is not installed.
    """
    with _librosa():
        from librosa.filters import mel
    filters: NDArray[np.float32] = mel(sr=rate, n_fft=length, n_mels=num_bands).T
    return filters


def mel_middles(rate: int, num_bands: int) -> NDArray[np.float64]:
    """Returns the middles of such bands in mel, (num_bands,)."""
    return np.linspace(0, mel_of(rate / 2), num_bands + 2)[1:-1]


def mel_of(hz: float) -> float:
    """Returns a frequency in mel."""
    with _librosa():
        from librosa.core.convert import hz_to_mel
    return float(hz_to_mel(hz))


def onset_strength(
    power: NDArray[np.float32], floor: float, on_note: OnNote | None = None
) -> NDArray[np.float32]:
    """Returns how much the power of bands rises from each window to the next, in decibels.

    Args:
        power: (windows, bands).
        floor: power below which nothing is heard.
        on_note: told before librosa is compiled.

    Returns:
        (windows - 1,): the rise to windows 1, 2, …, as the mean of all bands' rises.
    """
    with _librosa(on_note):
        from librosa.core import power_to_db
        from librosa.onset import onset_strength
    level = power_to_db(power.T, amin=floor, top_db=None)
    strength: NDArray[np.float32] = onset_strength(S=level, center=False)
    return strength[1:]


def onset_steps(
    strength: Strength, rate: int, hop: int, threshold: float, on_note: OnNote | None = None
) -> list[int]:
    """Picks the steps at which something begins, ascending.

    S. Böck et al., ISMIR 2012. A step counts that is the largest within 30 ms to both sides and
    exceeds the mean of 100 ms to both sides; librosa's defaults look for the largest only in what
    was before, and take thus the step before the largest one where it stands out.

    Args:
        strength: of onsets, (steps,).
        rate: samples a second.
        hop: samples a step.
        threshold: how far the mean is exceeded. It is absolute: librosa's default is a share of
            the largest strength, with which a loud end would hide a soft beginning.
        on_note: told before librosa is compiled.
    """
    with _librosa(on_note):
        from librosa.onset import onset_detect
    near = int(0.03 * rate / hop)
    steps = onset_detect(
        onset_envelope=strength,
        sr=rate,
        hop_length=hop,
        units="frames",
        normalize=False,
        delta=threshold,
        pre_max=near,
        post_max=near + 1,
    )
    return [int(step) for step in steps]


def tempo(strength: Strength, rate: int, hop: int, on_note: OnNote | None = None) -> float:
    """Returns the beats a minute at which the strength repeats itself most, near 120.

    librosa.feature.tempo's value to the digit, of which the stretches are compared in parts.

    Args:
        strength: of onsets, (steps,), some of it above 0.
        rate: samples a second.
        hop: samples a step.
        on_note: told before librosa is compiled.
    """
    with _librosa(on_note):
        from librosa.feature import tempo
    likeness = _mean_likeness(strength, int(_STRETCH_S * rate / hop))
    found = tempo(tg=likeness[:, None], sr=rate, hop_length=hop)
    return float(found[0])


def _mean_likeness(strength: Strength, stretch: int) -> NDArray[np.float64]:
    """Returns (stretch,): how alike stretches are to themselves so many steps later."""
    from librosa.feature import tempogram

    padded = np.pad(strength, stretch // 2, mode="linear_ramp")
    total = np.zeros(stretch)
    for begin in range(0, len(strength), _PART):
        end = min(begin + _PART, len(strength), len(padded) - stretch + 1)
        part = padded[begin : end + stretch - 1]
        total += tempogram(onset_envelope=part, win_length=stretch, center=False).sum(axis=-1)
    return total / len(strength)


def beat_steps(
    strength: Strength, rate: int, hop: int, bpm: float, on_note: OnNote | None = None
) -> list[int]:
    """Finds the steps of beats, ascending: D. Ellis, "Beat Tracking by Dynamic Programming", 2007.

    Args:
        strength: of onsets, (steps,), some of it above 0.
        rate: samples a second.
        hop: samples a step.
        bpm: what `tempo` says.
        on_note: told before librosa is compiled.
    """
    with _librosa(on_note):
        from librosa.beat import beat_track
    # librosa's tracker does not hear the first step, and reads beyond the sound if no other has
    # any strength.
    heard = np.insert(strength, 0, 0.0)
    _, steps = beat_track(onset_envelope=heard, sr=rate, hop_length=hop, bpm=bpm, units="frames")
    return [int(step) - 1 for step in steps if step > 0]
