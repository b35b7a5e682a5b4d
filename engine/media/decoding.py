"""Decodes frames of a film, one at a time, from wherever in the file it has to begin.

`video.py` has one on a thread of its own. The invariant: the frame of a number is the same one
however it is come to, forward or back, and a few frames are in memory, however long the film is.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from giffusion.engine.errors import InputError, reason_of
from giffusion.engine.media.index import FilmIndex, Seeking
from giffusion.engine.media.opening import MAX_FILM_PIXELS, best_stream, opened_media

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

MAX_PIXEL_ASPECT = Fraction(16)
"""Width of a pixel over its height, or the other way round; those of discs are below 2."""
_NUM_THREADS = 4
_WORTH_SEEKING = 48
"""Frames that are decoded as quickly as a key frame is sought."""


class FilmDecoder:
    """Finds and decodes frames of a film; used by one thread at a time.

    Args:
        index: of the film.

    Raises:
        InputError: the film cannot be opened.
    """

    def __init__(self, index: FilmIndex) -> None:
        self._index = index
        # The frame that was shown last, and the one after it if that had to be seen.
        self._shown: tuple[int, VideoFrame] | None
        self._next: tuple[int, VideoFrame] | None
        self._open()

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel over its height, as it is shown before the film is turned.

        Raises:
            InputError: it is more than `MAX_PIXEL_ASPECT` to 1, or less than 1 to that.
        """
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        if not 1 / MAX_PIXEL_ASPECT <= aspect <= MAX_PIXEL_ASPECT:
            raise InputError(
                f"{self._index.path} has pixels of {aspect.numerator} to {aspect.denominator}: "
                f"expected at most {MAX_PIXEL_ASPECT} to 1; convert it"
            )
        return aspect

    def frame(self, number: int) -> VideoFrame:
        """Decodes a frame.

        Args:
            number: of the frame, from 0, in the order in which they are shown.

        Returns:
            The frame; where the file begins with some that need what is not there, the first.

        Raises:
            InputError: the film is damaged there.
        """
        time = int(self._index.times[number])
        try:
            self._come_near(number)
            shown = self._advance(time)
        except InputError:
            raise
        except Exception as error:  # PyAV raises OSError, ValueError and its own kinds alike
            self._reopen()
            raise self._damaged(number, reason_of(error)) from error
        if shown is None or shown[1].is_corrupt or (shown[0] != time and self._failure):
            raise self._damaged(number, self._failure or "it cannot be decoded")
        return shown[1]

    def close(self) -> None:
        """Closes the file."""
        self._frames.close()
        self._file.close()

    def _come_near(self, number: int) -> None:
        """Sees to it that decoding on comes to a frame, and soon."""
        time = int(self._index.times[number])
        key = int(np.searchsorted(self._index.key_times, time, "right")) - 1
        if self._shown is not None and time < self._shown[0]:
            self._seek(time, key)
        elif key >= 0 and self._index.seeking is Seeking.KEY_FRAMES:
            start = np.searchsorted(self._index.times, self._index.key_times[key])
            if start - self._num_past > _WORTH_SEEKING:
                self._seek(time, key)

    def _seek(self, time: int, key: int) -> None:
        """Goes to a key frame at or before a time, an earlier one where that comes out late."""
        back = 1
        while key > 0 and self._index.seeking is Seeking.KEY_FRAMES:
            self._container.seek(int(self._index.key_starts[key]), stream=self._stream)
            self._begin(int(np.searchsorted(self._index.times, self._index.key_times[key])))
            first = self._peek()
            if first is not None and first[0] <= time:
                return
            key, back = key - back, back * 2
        self._reopen()

    def _advance(self, time: int) -> tuple[int, VideoFrame] | None:
        """Decodes on to the last frame that is shown no later than a time, or else the first."""
        while (ahead := self._peek()) is not None and ahead[0] <= time:
            self._shown, self._next = ahead, None
            self._num_past += 1
        return self._shown or ahead

    def _peek(self) -> tuple[int, VideoFrame] | None:
        """Returns the next frame and its time without going on to it."""
        if self._next is None:
            self._next = next(self._frames, None)
        return self._next

    def _open(self) -> None:
        path = self._index.path
        self._file = ExitStack()
        self._container = self._file.enter_context(opened_media(path, "video"))
        self._stream = best_stream(self._container, "video", path)
        context = self._stream.codec_context
        context.options = {"max_pixels": str(MAX_FILM_PIXELS)}
        # Of threads for slices, not for frames: those would lose good frames beside a broken one.
        context.thread_count = _NUM_THREADS
        self._begin(0)

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _begin(self, num_past: int) -> None:
        """Begins to decode where the file stands, so many frames of the film behind it."""
        self._frames = self._decoded()
        self._shown = self._next = None
        self._failure = ""
        self._num_past = num_past

    def _decoded(self) -> Generator[tuple[int, VideoFrame], None, None]:
        """Yields frames and when they are shown, in that order, without those that are broken."""
        number = 0
        for packet in self._container.demux(self._stream):
            try:
                frames = packet.decode()
            except Exception as error:
                self._failure = reason_of(error)
                number += 1
                continue
            for frame in frames:
                if self._index.seeking is Seeking.COUNTED:
                    yield int(self._index.times[min(number, self._index.num_frames - 1)]), frame
                elif frame.pts is not None:
                    yield frame.pts, frame
                number += 1

    def _damaged(self, number: int, reason: str) -> InputError:
        return InputError(
            f"{self._index.path} is damaged at frame {number}: {reason}; repair it, or leave the "
            "frame out"
        )
