"""What a film's frames are in a model's latents, made just ahead of their use.

A job that starts from a film has one, on the thread that makes conditions. The invariant: what
comes of a frame depends on its picture and its number, and not on which frames are asked for
besides; the latents of one run of the graph are in memory.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.media.video import FilmReader, Pixels

Latents = NDArray[np.float32]


class FilmLatents:
    """Latents of the frames of a film that a job needs.

    As many frames in a row as the encoder takes are encoded in one run, each at the place that its
    number has among them, wherever a segment begins.

    Args:
        reader: of the frames, in the size of the encoder's pictures; closed by whoever made it.
        encoder: what makes latents of them; closed likewise.
        frames: numbers of the frames that will be asked for, ascending; what is not among them is
            encoded by itself. Used up a few frames ahead.
    """

    def __init__(
        self, reader: FilmReader, encoder: PictureEncoder, frames: Iterable[int] = ()
    ) -> None:
        self._reader, self._encoder = reader, encoder
        self._promised = iter(frames)
        self._following: list[int] = []
        self._ready: dict[int, Latents] = {}
        # By their places in the last run.
        self._pictures: dict[int, Pixels] = {}
        self._made: dict[int, Latents] = {}

    def latents(self, frame: int) -> Latents:
        """Returns the latents of a frame.

        Args:
            frame: its number; best as promised.

        Returns:
            (4, h, w) float32, not to be written to.

        Raises:
            InputError: the film has no such frame, or is damaged there.
        """
        if frame not in self._ready:
            self._ready = self._encoded([frame, *self._beside(frame)])
        return self._ready[frame]

    def _beside(self, frame: int) -> list[int]:
        """Returns the promised frames after one that are encoded in the same run."""
        end = frame - frame % self._encoder.batch + self._encoder.batch
        self._following = [number for number in self._following if number > frame]
        while not self._following or self._following[-1] < end:
            if (number := next(self._promised, None)) is None:
                break
            if number > frame:
                self._following.append(number)
        return [number for number in self._following if number < end]

    def _encoded(self, numbers: list[int]) -> dict[int, Latents]:
        places = {number % self._encoder.batch: number for number in numbers}
        pictures = {place: self._reader.read(number) for place, number in places.items()}
        # A frame may show what the one before showed, as one array.
        before = self._pictures.items()
        if {(p, id(x)) for p, x in pictures.items()} != {(p, id(x)) for p, x in before}:
            self._made = self._encoder.encode_together(pictures)
            for latents in self._made.values():
                latents.flags.writeable = False
            self._pictures = pictures
        return {number: self._made[place] for place, number in places.items()}
