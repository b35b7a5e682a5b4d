"""When each frame of a film is shown, found by reading through the file without decoding it.

`probe.py` makes a summary of it, and `video.py` finds by it the frame for a time and where to begin
to decode. The invariant: frames are numbered as they are shown, and every number of the index is a
frame that the file has; memory is some bytes a frame.
"""

from __future__ import annotations

import math
import os
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import InputError, reason_of
from giffusion.engine.media.files import check_file
from giffusion.engine.media.opening import best_stream, opened_media
from giffusion.engine.media.rates import frame_rate
from giffusion.engine.notes import OnNote

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

MAX_FILM_FRAMES = 1 << 24
"""77 hours at 60 frames a second."""
NOTE_AFTER_S = 2
"""Seconds after which somebody is told what is being waited for."""
_NUM_KEPT = 2
_MAX_TOLERANCE_S = Fraction(1, 200)


class Seeking(Enum):
    """How a frame of a film is come to, which depends on the container.

    By its key frames; from the beginning, where seeking is inexact or frames that are no key frames
    are taken for some; or by counting from the beginning, where times do not pass the decoder.
    """

    KEY_FRAMES = auto()
    FROM_START = auto()
    COUNTED = auto()


_SEEKING = {
    "mov": Seeking.KEY_FRAMES,
    "matroska": Seeking.KEY_FRAMES,
    "mpegts": Seeking.KEY_FRAMES,
    # It has no times, and FFmpeg's guesses are in the order of decoding.
    "avi": Seeking.COUNTED,
}


@dataclass(frozen=True, slots=True, eq=False)
class FilmIndex:
    """The frames of a film in the order in which they are shown.

    Args:
        path: the film.
        times: (n,) when each is shown, in ticks, ascending, no two alike.
        key_times: (k,) of the frames from which decoding can begin.
        key_starts: (k,) what to seek to for each, since files are ordered as they are decoded.
        time_base: seconds that a tick lasts.
        end: when the last frame ends, in ticks.
        fps: frames a second, the mean where it varies.
        variable: the rate varies.
        num_missing: frames that the file says it has and that are cut off.
        has_sound: the file has sound too.
        seeking: how a frame of it is come to.
    """

    path: Path
    times: NDArray[np.int64]
    key_times: NDArray[np.int64]
    key_starts: NDArray[np.int64]
    time_base: Fraction
    end: int
    fps: Fraction
    variable: bool
    num_missing: int
    has_sound: bool
    seeking: Seeking

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return len(self.times)

    @property
    def duration_s(self) -> Fraction:
        """Seconds from the first frame's beginning to the last one's end."""
        if not self.variable:
            return self.num_frames / self.fps
        return (self.end - int(self.times[0])) * self.time_base

    def number_at(self, time_s: Fraction) -> int:
        """Returns the number of the frame that is shown at a time, from 0.

        At a constant rate times are as exact as the rate, however the file rounds them. Where it
        varies, half a tick and at most 5 ms are left for rounding.

        Args:
            time_s: seconds after the first frame; before it and after the last one these are shown.
        """
        if not self.variable:
            number = math.floor(time_s * self.fps)
        else:
            rounding_s = min(self.time_base / 2, _MAX_TOLERANCE_S)
            ticks = math.floor((time_s + rounding_s) / self.time_base) + int(self.times[0])
            number = int(np.searchsorted(self.times, _as_int64(ticks), "right")) - 1
        return min(max(number, 0), self.num_frames - 1)


_State = tuple[Path, int, int, int, int, int]
_kept: dict[_State, FilmIndex] = {}
"""The last films' indices, by `_state`."""


def film_index(path: Path, on_note: OnNote | None = None) -> FilmIndex:
    """Reads through a film for the times of its frames, or recalls them.

    A render asks when it is planned and when it begins; the last films' are kept, so that
    gigabytes are not read twice.

    Args:
        path: the film; its bytes are read once, as fast as the disk is.
        on_note: told once, in a line, where that takes long.

    Raises:
        InputError: it cannot be opened as a film, has no frame or more than `MAX_FILM_FRAMES`, or
            does not say when its frames are shown.
    """
    state = _state(path, check_file(path, "a film"))
    index = _kept.pop(state, None) or _read(path, on_note)
    with suppress(OSError):
        if _state(path, path.stat()) == state:  # else it has changed meanwhile
            _kept[state] = index
    for oldest in list(_kept)[:-_NUM_KEPT]:
        _kept.pop(oldest, None)
    return index


def _state(path: Path, found: os.stat_result) -> _State:
    """Returns what tells a file from all others, and from what it was before."""
    times = found.st_mtime_ns, found.st_ctime_ns
    return path, found.st_dev, found.st_ino, found.st_size, *times


def _read(path: Path, on_note: OnNote | None) -> FilmIndex:
    with opened_media(path, "video") as container:
        stream = best_stream(container, "video", path)
        scan = _Scan(path, container, stream)
        try:
            scan.run(on_note)
        except InputError:
            raise
        except Exception as error:
            reason = reason_of(error)
            raise InputError(
                f"{path} is damaged after {scan.num_frames} frames: {reason}; repair it"
            ) from error
        return scan.index()


class _Scan:
    """What is gathered while a film is read through."""

    def __init__(self, path: Path, container: InputContainer, stream: VideoStream) -> None:
        self._path, self._container, self._stream = path, container, stream
        self._times, self._key_times, self._key_starts = array("q"), array("q"), array("q")
        self._num_packets, self._end = 0, -(1 << 63)

    @property
    def num_frames(self) -> int:
        return len(self._times)

    def run(self, on_note: OnNote | None) -> None:
        began_s = time.monotonic()
        for packet in self._container.demux(self._stream):
            if packet.size == 0 or packet.is_corrupt:  # the end, or where the file was cut off
                continue
            self._num_packets += 1
            if not packet.is_discard:
                self._add(packet)
            if on_note and time.monotonic() - began_s > NOTE_AFTER_S:
                size = self._path.stat().st_size / 1e9
                on_note(f"{self._path}: reading through {size:.1f} GB for its frames")
                on_note = None

    def _add(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is None:
            raise InputError(
                f"{self._path} does not say when frame {self.num_frames} is shown: convert it"
            )
        if self.num_frames == MAX_FILM_FRAMES:
            raise InputError(f"{self._path} has more than {MAX_FILM_FRAMES} frames: cut it")
        self._times.append(packet.pts)
        self._end = max(self._end, packet.pts + max(packet.duration or 0, 0))
        if packet.is_keyframe:
            self._key_times.append(packet.pts)
            decoded = packet.pts if packet.dts is None else packet.dts
            self._key_starts.append(min(decoded, packet.pts))

    def index(self) -> FilmIndex:
        if not self._times:
            raise InputError(f"{self._path} has no frame that can be read: expected a film")
        stream, times = self._stream, np.unique(np.array(self._times, np.int64))
        assert stream.time_base, "what has times has a time base"
        keys = np.argsort(self._key_times, kind="stable")
        said = (stream.guessed_rate, stream.base_rate, stream.average_rate)
        fps, constant = frame_rate(times, stream.time_base, said)
        name = self._container.format.name.partition(",")[0]
        return FilmIndex(
            path=self._path,
            times=times,
            key_times=np.array(self._key_times, np.int64)[keys],
            key_starts=np.array(self._key_starts, np.int64)[keys],
            time_base=stream.time_base,
            end=self._end,
            fps=fps,
            variable=not constant,
            # Only there the number is that of frames; others estimate it.
            num_missing=max(stream.frames - self._num_packets, 0) if name == "mov" else 0,
            has_sound=bool(self._container.streams.audio),
            seeking=_SEEKING.get(name, Seeking.FROM_START),
        )


def _as_int64(value: int) -> int:
    return min(max(value, -(1 << 63)), (1 << 63) - 1)
