"""A sound to one loudness a frame.

`analysis.py` feeds it. The invariant: frame i's value is that of the windows around its exact time,
i / fps, and a frame's value depends neither on the blocks that the sound comes in nor, but for the
common scale, on other frames.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE, MelBands, Power, Sound, power_spectra
from giffusion.engine.audio.windows import Instants, Windows

WINDOW = 2048
"""Samples of a window, 93 ms."""
NOTHING = 1e-12
"""Power of a band, of full scale, below which a whole sound is silent: 120 dB down."""
_REDUCTIONS: dict[str, Callable[[Power], NDArray[np.float32]]] = {
    "max": lambda power: power.max(axis=1),
    "mean": lambda power: power.mean(axis=1),
    "median": lambda power: np.median(power, axis=1).astype(np.float32),
}


class EnergyMeter:
    """Takes a sound in blocks; `curve` then is its loudness, one value a frame.

    Args:
        fps: frames a second.
        options: what is heard.
    """

    def __init__(self, fps: Fraction, options: AudioOptions) -> None:
        self._smooth = options.smooth
        self._reduce = _REDUCTIONS[options.reduction]
        self._bands = MelBands.within(options.band, WINDOW)
        self._instants = Instants.of(fps)
        self._windows = Windows(WINDOW)
        self._next = 0
        self._values = array("d")
        # The frame that may have instants to come, and the power of those that it had.
        self._power = np.zeros((1, len(self._bands)), np.float32)

    def write(self, block: Sound) -> None:
        """Takes the next samples, (n,) at RATE."""
        self._windows.write(block)
        self._measure()

    def end(self) -> None:
        """Is told that the sound has ended."""
        self._windows.end()
        self._measure()
        self._finish(self._power)

    @property
    def num_frames(self) -> int:
        """Number of frames that begin within the sound; once it has ended."""
        return num_frames_of(Fraction(self._windows.num_samples, RATE), self._instants.fps)

    def curve(self) -> EnergyCurve:
        """Returns the loudness of every frame; once the sound has ended."""
        values = np.zeros(self.num_frames)
        # Windows around frames right behind the end still reach the sound.
        heard = np.array(self._values)[: self.num_frames]
        loudest = heard.max(initial=0.0)
        if loudest > NOTHING:
            values[: len(heard)] = heard / loudest
        return EnergyCurve(tuple(values.tolist()), self._smooth)

    def _measure(self) -> None:
        instants = self._instants
        last = instants.num_before(self._windows.num_ready)
        for begin, end in instants.batches(self._next, last):
            power = power_spectra(self._windows.centred(instants.centres(begin, end)))
            self._add(instants.frames(begin, end), self._bands.of(power))
            self._next = end

    def _add(self, frames: NDArray[np.int64], power: Power) -> None:
        """Adds the power of instants to that of the frames that they belong to."""
        starts = np.flatnonzero(np.diff(frames, prepend=-1))
        sums = np.add.reduceat(power, starts, axis=0)
        if frames[0] == len(self._values):
            sums[0] += self._power[0]
        else:
            self._finish(self._power)
        self._finish(sums[:-1])
        self._power = sums[-1:]

    def _finish(self, power: Power) -> None:
        """Takes frames, (n, bands), whose instants are complete."""
        if len(power):
            self._values.extend(
                self._reduce(power * np.float32(1 / self._instants.per_frame)).tolist()
            )


def num_frames_of(duration_s: Fraction, fps: Fraction) -> int:
    """Returns how many frames begin within a time, at least one."""
    return max(1, -(-duration_s * fps // 1))
