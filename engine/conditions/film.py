"""What a film's frames are in a model's latents, made just ahead of their use.

A job that starts from a film has one, on the thread that makes conditions. The invariant: a film is
decoded once as long as its frames are asked for in order, and the latents of a few are in memory,
however long it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.media.video import FilmReader

Latents = NDArray[np.float32]


class FilmLatents:
    """Latents of the frames of a film that a job needs.

    Args:
        reader: of the frames, in the size of the encoder's pictures; closed by whoever made it.
        encoder: what makes latents of them; closed likewise.
        frames: numbers of the frames that will be asked for, ascending; read as they are needed.
        batch: frames that are encoded at once, or None for as many as the encoder takes in a run.
    """

    def __init__(
        self,
        reader: FilmReader,
        encoder: PictureEncoder,
        frames: Iterable[int],
        batch: int | None = None,
    ) -> None:
        self._reader, self._encoder = reader, encoder
        self._frames: Iterator[int] = iter(frames)
        self._batch = batch or encoder.batch
        self._ready: dict[int, Latents] = {}
        self._reached = -1

    def latents(self, frame: int) -> Latents:
        """Returns the latents of a frame.

        Args:
            frame: its number. In ascending order frames are encoded in batches; one that is not
                among the promised ones, or has gone by, is decoded and encoded by itself.

        Returns:
            (4, h, w) float32, not to be written to.

        Raises:
            InputError: the film has no such frame, or is damaged there.
        """
        if frame in self._ready:
            return self._ready[frame]
        if frame <= self._reached:
            return self._encoded([frame])[frame]
        following = (number for number in self._frames if number > frame)
        numbers = [frame, *islice(following, self._batch - 1)]
        self._ready, self._reached = self._encoded(numbers), numbers[-1]
        return self._ready[frame]

    def _encoded(self, numbers: list[int]) -> dict[int, Latents]:
        made = self._encoder.encode_many([self._reader.read(number) for number in numbers])
        for latents in made:
            latents.flags.writeable = False
        return dict(zip(numbers, made, strict=True))
