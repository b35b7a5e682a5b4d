"""The frames of an open file's sound, in order, from its beginning or from a time on.

Called by `samples.py`. Times are on the file's clock, whose zero is the first frame of its film, or
the first sample where it has none. What encoders put before the sound FFmpeg leaves out, as the
container says how much that is. The invariant: a file that breaks ends in a line that says where,
and is never taken for one that ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from giffusion.engine.errors import InputError, reason_of
from giffusion.engine.media.opening import chosen_stream

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

# Formats in which FFmpeg seeks to the sample; others are decoded from their beginning.
_SEEKABLE = ("wav", "flac", "mp3", "mov", "ogg", "aiff")
# Before a time that is sought: decoders of lossy sound need what came before.
_PREROLL_S = 2
# Formats that say exactly how long they are, and so whether something is missing.
_EXACT = ("wav", "flac", "mov", "aiff", "w64", "caf", "au", "wv")
# Formats that say it of the whole file, which is the same where there is nothing but sound.
_EXACT_ALONE = ("matroska", "flv")


class SoundDecoder:
    """Decodes the sound of an open file.

    Args:
        path: the file, for messages.
        container: the file, just opened.
        stream: its sound.

    Raises:
        InputError: there is nothing in it that can be decoded.
    """

    def __init__(self, path: Path, container: InputContainer, stream: AudioStream) -> None:
        self._path = path
        self._container = container
        self._stream = stream
        self.tick = cast(Fraction, stream.time_base)
        self._origin = _origin(container, stream)
        self._formats = set(container.format.name.split(","))
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            raise InputError(f"{path} has 0 s of sound: expected some")
        self.first = first

    @property
    def end_s(self) -> Fraction | None:
        """When the sound ends, as the file says or FFmpeg estimates; None where nobody knows."""
        if self._stream.duration is not None:
            end = (self._stream.start_time or 0) + self._stream.duration
            return max(end * self.tick - self._origin, Fraction(0))
        duration = self._container.duration
        return None if duration is None else Fraction(duration, 1_000_000)

    @property
    def says_length(self) -> bool:
        """Whether `end_s` is what the file says, exactly."""
        if self._stream.duration is not None:
            return not self._formats.isdisjoint(_EXACT)
        alone = len(self._container.streams) == 1 and self._container.duration is not None
        return alone and not self._formats.isdisjoint(_EXACT_ALONE)

    @property
    def cuts_last(self) -> bool:
        """Whether the last frame may have more than belongs to the sound, beyond `end_s`."""
        return "mov" in self._formats and bool(self._stream.duration)

    def time_s(self, frame: AudioFrame) -> Fraction | None:
        """Returns when a frame begins, or None where it does not say so."""
        if frame.pts is None:
            return None
        return frame.pts * (frame.time_base or self.tick) - self._origin

    def frames_from(self, time_s: Fraction) -> tuple[Iterator[AudioFrame], bool]:
        """Returns the frames that are heard from a time on; may be called once.

        Returns:
            The frames, and whether they begin with the first of all. If not, the first one says its
            time, which is before the one that was asked for.

        Raises:
            InputError: the file breaks, now or with a later frame.
        """
        sought_s = time_s - _PREROLL_S
        if sought_s <= _PREROLL_S or not self._seeks():
            return chain([self.first], self._frames), True
        self._seek(sought_s)
        frames = self._decoded()
        first = next(frames, None)
        found_s = None if first is None else self.time_s(first)
        if first is None or found_s is None or found_s > time_s:
            self._seek(Fraction(0))
            return self._decoded(), True
        return chain([first], frames), False

    def _seeks(self) -> bool:
        # Where a tick is longer than a sample, times do not say which sample it is.
        fine = self.tick * self.first.sample_rate <= 1
        return fine and not self._formats.isdisjoint(_SEEKABLE)

    def _seek(self, time_s: Fraction) -> None:
        try:
            ticks = math.floor((time_s + self._origin) / self.tick)
            self._container.seek(ticks, stream=self._stream)
        except Exception as error:  # as in `opened_media`
            raise self._damaged(error, time_s) from error

    def _decoded(self) -> Iterator[AudioFrame]:
        """Decodes from where the file stands.

        What fails before the first frame lacks its predecessors, and what fails after the last one
        is junk, such as tags of two kinds. All else is damage.
        """
        reached_s, begun = Fraction(0), False
        broken: Exception | None = None
        for frames, problem in self._packets():
            for frame in frames:
                if not frame.samples:
                    continue
                if broken is not None and begun:
                    raise self._damaged(broken, reached_s) from broken
                broken, begun = None, True
                reached_s = self.time_s(frame) or reached_s
                yield frame
            broken = broken or problem
        if broken is not None and not begun:
            raise self._damaged(broken, reached_s) from broken

    def _packets(self) -> Iterator[tuple[list[AudioFrame], Exception | None]]:
        """Yields each packet's frames, and why some are missing, if they are."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except Exception as error:  # as in `opened_media`
                yield [], error
                return
            if packet is None:
                return
            problem: Exception | None = None
            if packet.is_corrupt:
                problem = ValueError("a part is missing")
            try:
                frames = packet.decode()
            except EOFError:
                return
            except Exception as error:  # as in `opened_media`
                frames, problem = [], error
            yield frames, problem

    def _damaged(self, error: Exception, reached_s: Fraction) -> InputError:
        reason = reason_of(error)
        return InputError(
            f"{self._path}: its sound is damaged after {float(reached_s):.3f} s, {reason}: "
            "convert it anew"
        )


def _origin(container: InputContainer, sound: AudioStream) -> Fraction:
    """Returns when the file begins, on the clock of its container."""
    for stream in (chosen_stream(container, "video"), sound):
        if stream is not None and stream.start_time is not None and stream.time_base is not None:
            return stream.start_time * stream.time_base
    return Fraction(0)
