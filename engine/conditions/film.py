"""What a film's frames are in a model's latents, made just ahead of their use.

A job that starts from a film has one, on the thread that makes conditions. The invariant: the
latents of one picture are in memory, and a picture that is shown on is encoded once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.media.video import FilmReader, Pixels

Latents = NDArray[np.float32]


class FilmLatents:
    """Latents of the frames of a film that a job needs.

    Args:
        reader: of the frames, in the size of the encoder's pictures; closed by whoever made it.
        encoder: what makes latents of them; closed likewise.
    """

    def __init__(self, reader: FilmReader, encoder: PictureEncoder) -> None:
        self._reader, self._encoder = reader, encoder
        self._made: tuple[Pixels, Latents] | None = None

    def latents(self, frame: int) -> Latents:
        """Returns the latents of a frame.

        Args:
            frame: its number; best as the reader was promised.

        Returns:
            (4, h, w) float32, not to be written to.

        Raises:
            InputError: the film has no such frame, or is damaged there.
        """
        picture = self._reader.read(frame)
        if self._made is None or self._made[0] is not picture:
            latents = self._encoder.encode(picture)
            latents.flags.writeable = False
            self._made = picture, latents
        return self._made[1]
