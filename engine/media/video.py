"""Frames of a film as a render wants them: its own rate, size and part of the film.

A render that starts from a film has a reader of it. The invariant: frame i shows what the film
shows at exactly `start_s + i · stride / fps`, in fractions, and a few frames are in memory,
however long the film is.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.media.colours import ColourConverter
from giffusion.engine.media.decoding import FilmDecoder
from giffusion.engine.media.fitting import RESIZES, Size, fitted
from giffusion.engine.media.index import FilmIndex, film_index
from giffusion.engine.media.orientation import orientation_of
from giffusion.engine.media.parts import check_order, seconds
from giffusion.engine.values import one_of

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Pixels = NDArray[np.uint8]
READ_AHEAD = 4
"""Frames, of the render's size, that a reader makes before they are asked for."""


@dataclass(frozen=True, slots=True)
class FilmCut:
    """Which part of a film is read, and how its frames are made to fit.

    Args:
        path: the film.
        start_s: where it begins, in seconds after the film's first frame.
        end_s: where it ends; None for the film's end.
        stride: every how many-th frame is taken; 2 shows the film at twice its speed.
        resize: what is done where the film's shape is not the render's.
    """

    path: Path
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None
    stride: int = 1
    resize: str = "crop"

    def check(self) -> None:
        """Checks what can be checked without the film.

        Raises:
            SettingsError: a value is out of its range.
        """
        if self.start_s < 0:
            raise SettingsError(f"the film's start is {seconds(self.start_s)}: expected 0 or more")
        check_order("film", self.start_s, self.end_s)
        if self.stride < 1:
            raise SettingsError(f"the film's stride is {self.stride}: expected 1 or more")
        one_of("resize", self.resize, RESIZES)


class FilmReader:
    """Reads the frames of a cut, by a thread that is a few frames ahead.

    Args:
        cut: what is read.
        size: (width, height) of the frames that are made.
        fps: frames a second of the render.
        index: of the film, where it is known already; else the film is read through for it.
        frames: numbers of the frames that will be asked for, ascending; None for each one after
            the other. Used up a few frames ahead.

    Raises:
        SettingsError: the cut's values are out of range.
        InputError: the film cannot be read, has nothing in the cut, or is cut off before its end.
    """

    def __init__(
        self,
        cut: FilmCut,
        size: Size,
        fps: Fraction,
        index: FilmIndex | None = None,
        frames: Iterable[int] | None = None,
    ) -> None:
        cut.check()
        self._cut, self._size = cut, size
        self._step_s = cut.stride / fps
        self._index = index or film_index(cut.path)
        self.num_frames = count_frames(cut, self._index, fps)
        self._source = _Source(self._index, size, cut.resize)
        self._thread = ThreadPoolExecutor(1, "giffusion-film")
        self._ahead: OrderedDict[int, Future[Pixels]] = OrderedDict()
        self._promised = None if frames is None else iter(frames)
        self._following: list[int] = []

    def read(self, frame: int) -> Pixels:
        """Returns a frame of the render.

        Args:
            frame: from 0; best as promised, since the film is then decoded once and ahead.

        Returns:
            (H, W, 3) RGB, not to be written to; frames that show the same are one array.

        Raises:
            InputError: the film has no such frame, or is damaged there.
        """
        if not 0 <= frame < self.num_frames:
            raise InputError(
                f"frame {frame} is past the end of {self._cut.path}, which has {self.num_frames} "
                "at this rate: render fewer frames, or choose a longer part"
            )
        self._plan(frame)
        future = self._ahead.pop(frame)
        return future.result()

    def close(self) -> None:
        """Ends the thread and closes the film."""
        self._thread.shutdown(cancel_futures=True)
        self._source.close()

    def _plan(self, frame: int) -> None:
        """Asks for a frame and for those that will follow, and forgets all others."""
        wanted = [frame, *self._after(frame)]
        for number in [number for number in self._ahead if number not in wanted]:
            self._ahead.pop(number).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = self._thread.submit(self._source.frame, self._number(number))

    def _after(self, frame: int) -> list[int]:
        """Returns the next few frames that are expected after one."""
        if self._promised is None:
            return list(range(self.num_frames)[frame + 1 : frame + 1 + READ_AHEAD])
        self._following = [number for number in self._following if number > frame]
        later = (number for number in self._promised if frame < number < self.num_frames)
        self._following += islice(later, READ_AHEAD - len(self._following))
        return self._following

    def _number(self, frame: int) -> int:
        """Returns the number, within the film, of the frame that is shown in a render's frame."""
        return self._index.number_at(self._cut.start_s + frame * self._step_s)


def count_frames(cut: FilmCut, index: FilmIndex, fps: Fraction) -> int:
    """Returns how many frames of a render begin before a cut ends; at least 1.

    Args:
        cut: the part of the film.
        index: of the film.
        fps: frames a second of the render.

    Raises:
        InputError: the cut begins after the film's end, or the film is cut off before the cut's.
    """
    length_s = index.duration_s
    end_s = length_s if cut.end_s is None else cut.end_s
    if index.num_missing and end_s >= length_s:
        raise InputError(
            f"{cut.path} is cut off: {index.num_frames} of its "
            f"{index.num_frames + index.num_missing} frames can be read; end before "
            f"{seconds(length_s)}, or repair it"
        )
    if cut.start_s >= length_s:
        raise InputError(
            f"{cut.path} ends at {seconds(length_s)}: expected a start before, got "
            f"{seconds(cut.start_s)}"
        )
    return math.ceil((min(end_s, length_s) - cut.start_s) * fps / cut.stride)


class _Source:
    """Frames of the film in the render's size; on the reader's thread."""

    def __init__(self, index: FilmIndex, size: Size, resize: str) -> None:
        self._size, self._resize = size, resize
        self._decoder, self._colours = FilmDecoder(index), ColourConverter()
        self._made: tuple[int, Pixels] | None = None

    def frame(self, number: int) -> Pixels:
        if self._made is None or self._made[0] != number:
            self._made = number, self._make(self._decoder.frame(number))
        return self._made[1]

    def close(self) -> None:
        self._decoder.close()

    def _make(self, frame: VideoFrame) -> Pixels:
        orientation = orientation_of(frame)
        picture = fitted(
            self._colours.convert(frame),
            orientation.size(self._size),
            self._resize,
            self._decoder.pixel_aspect,
        )
        pixels = orientation.turn(np.asarray(picture))
        pixels.flags.writeable = False
        return pixels
