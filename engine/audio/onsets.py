"""A sound to the strength of what begins in it at every moment, and to the times of onsets.

`analysis.py` feeds the meter. Spectral flux of a mel spectrogram in decibels, and the peak picking
of S. Böck et al., ISMIR 2012. The invariant: whether something begins is decided by what is heard
within a tenth of a second of it, and not by how loud the rest of the sound is.
"""

from __future__ import annotations

from array import array
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE, MelBands, Power, Sound, power_spectra
from giffusion.engine.audio.windows import Windows

Strength = NDArray[np.float64]  # (steps,)

WINDOW = 1024
HOP = 256
"""Samples from a step to the next, 12 ms."""
STEPS_PER_S = RATE / HOP
# Decibels of a band's power below which nothing is heard. A sine of full scale has about -15, since
# bands are scaled to their widths.
_FLOOR_DB = -95.0
# How far the rise of the mean of all bands has to stand out, in decibels a step.
_THRESHOLD_DB = 1.5
# Where in a window the edge of a beginning sound is when the power rises most, in samples.
_EDGE = 384


class OnsetMeter:
    """Takes a sound in blocks; `strength` then is the rise of its power, one value a step.

    Args:
        options: what is heard.
    """

    def __init__(self, options: AudioOptions) -> None:
        self._bands = MelBands.within(options.band, WINDOW)
        self._windows = Windows(WINDOW)
        self._num_steps = 0
        self._last = np.full((1, len(self._bands)), _FLOOR_DB, np.float32)
        self._strength = array("d")

    def write(self, block: Sound) -> None:
        """Takes the next samples, (n,) at RATE."""
        self._windows.write(block)
        self._measure()

    def end(self) -> None:
        """Is told that the sound has ended."""
        self._windows.end()
        self._measure()

    def strength(self) -> Strength:
        """Returns how much begins at each step, in decibels; once the sound has ended."""
        strength = np.array(self._strength)
        # Where windows reach beyond the end, a sound that is cut off sounds like a click.
        strength[max(0, self._windows.num_samples - WINDOW // 2) // HOP + 1 :] = 0
        return strength

    def _measure(self) -> None:
        last = -(-self._windows.num_ready // HOP)
        if last == self._num_steps:
            return
        windows = self._windows.centred(np.arange(self._num_steps, last) * HOP)
        level = _decibels(self._bands.of(power_spectra(windows)))
        rises = np.maximum(0, np.diff(level, axis=0, prepend=self._last))
        self._strength.extend(rises.mean(axis=1, dtype=np.float64).tolist())
        self._last = level[-1:]
        self._num_steps = last


def time_of(step: int) -> Fraction:
    """Returns when what a step's strength says begins, in seconds, not below 0."""
    return Fraction(max(0, step * HOP + _EDGE - HOP // 2), RATE)


def onset_steps(strength: Strength) -> list[int]:
    """Picks the steps at which something begins.

    A step counts that is the largest within 30 ms, exceeds the mean of 100 ms to both sides by
    1 dB, and follows the last one by more than 30 ms.
    """
    near, around = round(0.03 * STEPS_PER_S), round(0.1 * STEPS_PER_S)
    largest = _neighbours(strength, near, near, -np.inf).max(axis=1)
    mean = _neighbours(strength, around, around, 0.0).mean(axis=1)
    steps: list[int] = []
    stands_out = strength >= mean + _THRESHOLD_DB
    for step in np.flatnonzero((strength == largest) & stands_out).tolist():
        if not steps or step > steps[-1] + near:
            steps.append(step)
    return steps


def _neighbours(values: Strength, before: int, after: int, beyond: float) -> Strength:
    """Returns (steps, before + 1 + after) values, with another one beyond the ends."""
    padded = np.pad(values, (before, after), constant_values=beyond)
    return np.lib.stride_tricks.sliding_window_view(padded, before + 1 + after)


def _decibels(power: Power) -> Power:
    floor = np.float32(10 ** (_FLOOR_DB / 10))
    return 10 * np.log10(np.maximum(power, floor))
