"""Decoded sound, each sample in its place on the file's clock.

Called by `sound.py`. The invariant: sample n is heard n / rate seconds after the file begins; where
nothing is, silence is; and what a file claims, such as a pause of a year, costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from giffusion.engine.errors import InputError
from giffusion.engine.media.mixing import Samples, mixed, samples_of
from giffusion.engine.media.opening import best_stream, opened_media
from giffusion.engine.media.sound_decoding import SoundDecoder

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

MIN_RATE, MAX_RATE = 1_000, 768_000
MAX_CHANNELS = 64
MAX_GAP_S = 3600
"""The longest silence that is made up before a sample."""
# Recorders and containers round times, to milliseconds and worse. Less than this is taken for that,
# so that sound without a gap is not torn. It does not add up: each frame is measured from the zero.
_JITTER_S = Fraction(1, 100)
# What a file may end earlier than it says: some count a frame or a packet too many.
_CUT_SHORT_S = Fraction(1, 2)


class SoundSource:
    """The sound of an open file.

    Args:
        path: the file, for messages.
        decoder: decodes it.

    Raises:
        InputError: its rate or number of channels is none of sound.
    """

    def __init__(self, path: Path, decoder: SoundDecoder) -> None:
        self._path = path
        self._decoder = decoder
        self.rate: int = decoder.first.sample_rate
        self.num_channels: int = len(decoder.first.layout.channels)
        self.end_s = decoder.end_s
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise InputError(
                f"{path} has {self.rate} samples a second: expected {MIN_RATE} to {MAX_RATE}"
            )
        if not 1 <= self.num_channels <= MAX_CHANNELS:
            raise InputError(
                f"{path} has {self.num_channels} channels: expected 1 to {MAX_CHANNELS}"
            )

    def samples(self, start: int, end: int | None, num_channels: int | None) -> Iterator[Samples]:
        """Yields the samples from number `start` to before `end`, or to the last; once.

        Args:
            start: counted at the file's rate, at least 0.
            end: at least `start`, or None.
            num_channels: 1, 2, or None for those of the first frame.

        Raises:
            InputError: the file breaks on the way.
        """
        limit = sys.maxsize if end is None else end
        frames, from_beginning = self._decoder.frames_from(Fraction(start, self.rate))
        position = 0 if from_beginning else None
        for frame, is_last in _with_last(frames):
            block = self._block(frame, num_channels)
            place = self._place(frame, position)
            position = place if position is None else position
            yield from _silence(max(position, start), min(place, limit), block, self.rate)
            begin = max(position, start, place)
            position = max(position, place + block.shape[1])
            stop = min(self._last(position) if is_last else position, limit)
            if begin < stop:
                yield block[:, begin - place : stop - place]
            if position >= limit:
                return
        self._check_complete(position or 0)

    def _block(self, frame: AudioFrame, num_channels: int | None) -> Samples:
        if frame.sample_rate != self.rate:
            raise self._changes(self.rate, frame.sample_rate, "samples a second")
        names = [channel.name for channel in frame.layout.channels]
        if num_channels is None and len(names) != self.num_channels:
            if max(len(names), self.num_channels) > 2:
                raise self._changes(self.num_channels, len(names), "channels")
            num_channels = self.num_channels
        # Not a number would spread over all that is computed from it.
        return mixed(np.nan_to_num(samples_of(frame), posinf=1, neginf=-1), names, num_channels)

    def _place(self, frame: AudioFrame, position: int | None) -> int:
        """Returns the number of a frame's first sample; `position` is where the last one ended."""
        time_s = self._decoder.time_s(frame)
        if time_s is None or position is None:
            return round((time_s or 0) * self.rate)
        place = round(time_s * self.rate)
        tolerance_s = max(_JITTER_S if position else 0, 2 * self._decoder.tick)
        if abs(place - position) <= tolerance_s * self.rate:
            return position
        if place - position > MAX_GAP_S * self.rate:
            raise InputError(
                f"{self._path}: its sound jumps from {position / self.rate:.3f} s to "
                f"{float(time_s):.3f} s: expected at most {MAX_GAP_S} s at once"
            )
        return place

    def _last(self, position: int) -> int:
        """Returns where the last frame, which ends at `position`, is cut."""
        if not self._decoder.cuts_last or self.end_s is None:
            return position
        return min(position, round(self.end_s * self.rate))

    def _check_complete(self, position: int) -> None:
        if not self._decoder.says_length or self.end_s is None:
            return
        found_s = Fraction(position, self.rate)
        if found_s < self.end_s - _CUT_SHORT_S:
            raise InputError(
                f"{self._path} is cut short: it has {float(found_s):.3f} s of sound, of "
                f"{float(self.end_s):.3f} s that it says; copy it again"
            )

    def _changes(self, one: int, other: int, what: str) -> InputError:
        # In no order of time: FFmpeg may say of the first frame what it has seen last.
        low, high = sorted((one, other))
        return InputError(
            f"{self._path}: its sound changes between {low} and {high} {what} on the way: convert "
            "it first"
        )


@contextmanager
def opened_sound(path: Path) -> Iterator[SoundSource]:
    """Opens a file's sound, and closes it.

    Raises:
        InputError: the file cannot be read, has no sound, or sound that is none.
    """
    with opened_media(path, "audio") as container:
        stream = best_stream(container, "audio", path)
        yield SoundSource(path, SoundDecoder(path, container, stream))


def _silence(start: int, stop: int, like: Samples, num_samples: int) -> Iterator[Samples]:
    """Yields silence from one number to before another, in bounded blocks."""
    for begin in range(start, stop, num_samples):
        yield np.zeros((len(like), min(num_samples, stop - begin)), np.float32)


def _with_last(frames: Iterator[AudioFrame]) -> Iterator[tuple[AudioFrame, bool]]:
    """Yields each frame, and whether no other comes after it."""
    frame = next(frames, None)
    while frame is not None:
        following = next(frames, None)
        yield frame, following is None
        frame = following
