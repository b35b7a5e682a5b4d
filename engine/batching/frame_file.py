"""Frames set aside on disk, as they are: those that wait for their turn, or are shown again.

`mirror.py` and `reorder.py` open one. The invariant: the file has no name, so that even a killed
render leaves nothing of it behind, and memory does not grow with the frames in it.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.encode.place import cannot_begin, write_error


class FrameFile:
    """Places for frames of one shape, in a file without a name.

    Args:
        folder: where the space is taken.
        shape: of each frame, uint8.

    Raises:
        OutputError: no file can be made there.
        DiskFullError: not even an empty file fits.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...]) -> None:
        self._folder = folder
        self._shape = shape
        self._num_bytes = int(np.prod(shape))
        try:
            # It outlives this function (SIM115).
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        except OSError as error:
            raise cannot_begin(error, folder) from error

    def write(self, place: int, frame: NDArray[np.uint8], index: int) -> None:
        """Sets a frame aside.

        Args:
            place: where, counted from 0.
            frame: of the shape.
            index: its number, for messages.

        Raises:
            DiskFullError: there is no room for it.
        """
        try:
            self._file.seek(place * self._num_bytes)
            self._file.write(np.ascontiguousarray(frame).data)
        except OSError as error:
            raise write_error(error, self._folder, index) from error

    def read(self, place: int, index: int) -> NDArray[np.uint8]:
        """Returns the frame at a place; see `write`.

        Raises:
            RenderError: it cannot be read back.
        """
        try:
            self._file.seek(place * self._num_bytes)
            content = self._file.read(self._num_bytes)
            return np.frombuffer(content, np.uint8).reshape(self._shape)
        except (OSError, ValueError) as error:
            raise write_error(error, self._folder, index) from error

    def close(self) -> None:
        """Gives the space back."""
        # Where the disk is full, what is not written yet fails again, and is not wanted any more.
        with contextlib.suppress(OSError):
            self._file.close()
