"""A sound file to what the product wants to know of it, in one pass.

The timeline asks for the curve, `giffusion audio` for all of it. The invariant: a file is read as a
stream, so that memory grows with the numbers that come out and not with the sound.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.audio.energy import EnergyMeter
from giffusion.engine.audio.onsets import HOP, THRESHOLD_DB, OnsetMeter, time_of
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.separation import separated
from giffusion.engine.audio.spectra import RATE, Sound
from giffusion.engine.audio.with_librosa import Strength, beat_steps, onset_steps, tempo
from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.media.parts import seconds
from giffusion.engine.media.sound import sound_blocks
from giffusion.engine.notes import OnNote
from giffusion.engine.settings import MAX_FRAMES

_PEAK_SAMPLES = 512


@dataclass(frozen=True)  # without slots: an hour's tempo takes 10 s, and is kept
class Analysis:
    """What was heard.

    Args:
        duration_s: of the sound between its start and end.
        curve: loudness, one value for each frame that begins within the sound.
        strength: how much begins, one value a step; see `onsets.py`.
        peaks: (2, n): the lowest and highest sample of every 23 ms, before components are parted.
    """

    duration_s: Fraction
    curve: EnergyCurve
    strength: Strength
    peaks: NDArray[np.float32]

    def onsets(self) -> list[Fraction]:
        """Returns when something begins, in seconds after the start, ascending."""
        return self._times(self._onset_steps)

    def beats(self, on_note: OnNote | None = None) -> list[Fraction]:
        """Returns when the beats are, in seconds after the start, ascending.

        Args:
            on_note: told before what finds them is compiled.
        """
        bpm = self.tempo()
        if bpm is None:
            return []
        return self._times(beat_steps(self.strength, RATE, HOP, bpm, on_note))

    def tempo(self) -> float | None:
        """Returns the beats a minute, or None where nothing begins."""
        return self._bpm

    @cached_property
    def _bpm(self) -> float | None:
        return tempo(self.strength, RATE, HOP) if self._onset_steps else None

    @cached_property
    def _onset_steps(self) -> list[int]:
        return onset_steps(self.strength, RATE, HOP, THRESHOLD_DB)

    def _times(self, steps: list[int]) -> list[Fraction]:
        return [time for step in steps if (time := time_of(step)) < self.duration_s]


def energy_curve(
    path: Path,
    fps: Fraction,
    options: AudioOptions,
    on_note: OnNote | None = None,
) -> EnergyCurve:
    """Measures how loud a sound is on every frame that begins within it.

    Args:
        path: a sound file, or a film.
        fps: frames a second; frame i is at options.start_s + i / fps of the sound.
        options: what is heard.
        on_note: told if there is only silence.

    Returns:
        One value a frame.

    Raises:
        InputError: the file cannot be read, or has no sound from the start on.
        SettingsError: the sound has more frames than a render.
        RuntimeUnavailableError: librosa is not installed.
    """
    meter = EnergyMeter(fps, options)
    for block in separated(_mono(path, options), options):
        meter.write(block)
    meter.end()
    _check_count(path, fps, meter.num_frames)
    curve = meter.curve()
    if on_note is not None and not any(curve.values):
        on_note(f"{path}: only silence is heard")
    return curve


def analyse(
    path: Path, fps: Fraction, options: AudioOptions, on_note: OnNote | None = None
) -> Analysis:
    """Measures a sound's loudness and finds what begins in it.

    Args:
        path: a sound file, or a film.
        fps: frames a second.
        options: what is heard.
        on_note: told before what finds onsets is compiled, the first time ever.

    Raises:
        InputError: the file cannot be read, or has no sound from the start on.
        SettingsError: the sound has more frames than a render.
        RuntimeUnavailableError: librosa is not installed.
    """
    energy, onsets, peaks = EnergyMeter(fps, options), OnsetMeter(options, on_note), _Peaks()
    for block in separated(peaks.passed(_mono(path, options)), options):
        energy.write(block)
        onsets.write(block)
    energy.end()
    onsets.end()
    _check_count(path, fps, energy.num_frames)
    duration_s = Fraction(peaks.num_samples, RATE)
    return Analysis(duration_s, energy.curve(), onsets.strength(), peaks.ends())


class _Peaks:
    """Keeps the lowest and the highest samples of a sound that passes."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._left: Sound = np.empty(0, np.float32)
        self._ends = array("f")

    def passed(self, blocks: Iterator[Sound]) -> Iterator[Sound]:
        for block in blocks:
            self.num_samples += len(block)
            samples = np.concatenate([self._left, block])
            whole = len(samples) // _PEAK_SAMPLES * _PEAK_SAMPLES
            self._keep(samples[:whole].reshape(-1, _PEAK_SAMPLES))
            self._left = samples[whole:]
            yield block
        if len(self._left):
            self._keep(self._left[None])

    def ends(self) -> NDArray[np.float32]:
        return np.array(self._ends, np.float32).reshape(-1, 2).T

    def _keep(self, rows: NDArray[np.float32]) -> None:
        if len(rows):
            self._ends.extend(np.stack([rows.min(axis=1), rows.max(axis=1)], axis=1).ravel())


def _mono(path: Path, options: AudioOptions) -> Iterator[Sound]:
    start_s, end_s = options.start_s, options.end_s
    blocks = sound_blocks(path, start_s=start_s, end_s=end_s, rate=RATE, num_channels=1)
    num_samples = 0
    for block in blocks:
        num_samples += block.shape[1]
        yield block[0]
    if num_samples == 0:
        raise InputError(
            f"{path} has no sound from {seconds(start_s)} on: expected a start within it"
        )


def _check_count(path: Path, fps: Fraction, num_frames: int) -> None:
    if num_frames > MAX_FRAMES:
        raise SettingsError(
            f"{path} has {num_frames} frames at {float(fps):g} a second: expected at most "
            f"{MAX_FRAMES}, give a lower fps or an earlier end"
        )
