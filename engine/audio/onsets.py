"""A sound to the strength of what begins in it at every moment, and to when that is.

`analysis.py` feeds the meter. The invariant: a strength is librosa's of the whole sound, though it
comes in blocks, and whether something begins is decided by what is heard within a tenth of a second
of it, and not by how loud the rest of the sound is.
"""

from __future__ import annotations

from array import array
from fractions import Fraction

import numpy as np

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE, MelBands, Sound, power_spectra
from giffusion.engine.audio.windows import Windows
from giffusion.engine.audio.with_librosa import Strength, onset_strength
from giffusion.engine.notes import OnNote

WINDOW = 1024
HOP = 256
"""Samples from a step to the next, 12 ms."""
THRESHOLD_DB = 1.5
"""How far the strength of a step at which something begins stands out."""
# Power of a band below which nothing is heard: 95 dB down. A sine of full scale is about 15 dB
# down, since bands are scaled to their widths.
FLOOR = 10**-9.5
# Where in a window the edge of a beginning sound is when the power rises most, in samples.
_EDGE = 384


class OnsetMeter:
    """Takes a sound in blocks; `strength` then is the rise of its power, one value a step.

    Args:
        options: what is heard.
        on_note: told before librosa is compiled.
    """

    def __init__(self, options: AudioOptions, on_note: OnNote | None = None) -> None:
        self._on_note = on_note
        self._bands = MelBands.within(options.band, WINDOW)
        self._windows = Windows(WINDOW)
        self._num_steps = 0
        # Before the first step there is silence.
        self._last = np.zeros((1, len(self._bands)), np.float32)
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
        power = np.concatenate([self._last, self._bands.of(power_spectra(windows))])
        self._strength.extend(onset_strength(power, FLOOR, self._on_note).tolist())
        self._last = power[-1:]
        self._num_steps = last


def time_of(step: int) -> Fraction:
    """Returns when what a step's strength says begins, in seconds, not below 0."""
    return Fraction(max(0, step * HOP + _EDGE - HOP // 2), RATE)
