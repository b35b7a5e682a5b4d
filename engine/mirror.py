"""Frames that are shown again, backwards: what `--pingpong` does between the engine and a file.

Opened by `rendering.py`. The invariant: each frame is rendered once; meanwhile they lie, as they
are, in a file without a name beside the output, so that memory does not grow with them.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable

import numpy as np

from giffusion.engine.encode.place import cannot_begin, write_error
from giffusion.engine.encode.writer import Writer
from giffusion.engine.frames import Frame, PixelFormat


def mirrored_frames(num_frames: int) -> int:
    """Returns how many frames are shown of some that go there and back, the ends shown once."""
    return max(2 * num_frames - 2, 1)


class Mirror:
    """A sink that hands frames on to a writer, and afterwards those between the ends, backwards.

    Args:
        writer: takes `mirrored_frames(num_frames)` frames, as arrays.
        num_frames: frames that are rendered.
        size: (width, height) of each.

    Raises:
        OutputError: no file can be made beside the output.
        DiskFullError: not even an empty file fits.
    """

    on_device = False

    def __init__(self, writer: Writer, num_frames: int, size: tuple[int, int]) -> None:
        self._writer = writer
        self._num_frames = num_frames
        self._shape = writer.pixel_format.shape(size)
        self._folder = writer.folder
        try:
            # It outlives this function (SIM115).
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        except OSError as error:
            raise cannot_begin(error, self._folder) from error

    @property
    def pixel_format(self) -> PixelFormat:
        """What `write` takes frames in."""
        return self._writer.pixel_format

    @property
    def backlog(self) -> int:
        """Frames taken and not yet encoded."""
        return self._writer.backlog

    def write(self, index: int, frame: Frame) -> None:
        """Takes the next frame; see `Writer.write`.

        Raises:
            DiskFullError: there is no room to keep it.
        """
        self._writer.write(index, frame)
        if 0 < index < self._num_frames - 1:
            assert isinstance(frame, np.ndarray), "the writer takes arrays"
            try:
                self._file.write(np.ascontiguousarray(frame).data)
            except OSError as error:
                raise write_error(error, self._folder, index) from error

    def play_back(self, on_frame: Callable[[int], None]) -> None:
        """Hands on the frames between the ends, from the last to the first.

        Args:
            on_frame: told how many frames were handed on by now.

        Raises:
            RenderError: as `Writer.write`.
        """
        num_kept, num_bytes = self._num_frames - 2, int(np.prod(self._shape))
        for done in range(1, num_kept + 1):
            try:
                self._file.seek((num_kept - done) * num_bytes)
                frame = np.frombuffer(self._file.read(num_bytes), np.uint8).reshape(self._shape)
            except (OSError, ValueError) as error:
                raise write_error(error, self._folder, self._num_frames) from error
            self._writer.write(self._num_frames + done - 1, frame)
            on_frame(done)

    def close(self) -> None:
        """Gives the space back."""
        # Where the disk is full, what is not written yet fails again, and is not wanted any more.
        with contextlib.suppress(OSError):
            self._file.close()
