"""Frames that are shown again, backwards: what `--pingpong` does between the engine and a file.

Opened by `rendering.py`. The invariant: each frame is rendered once; meanwhile they lie, as they
are, in a file without a name beside the output, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from giffusion.engine.batching.frame_file import FrameFile
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
        self._file = FrameFile(writer.folder, writer.pixel_format.shape(size))

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
            self._file.write(index - 1, frame, index)

    def play_back(self, on_frame: Callable[[int], None]) -> None:
        """Hands on the frames between the ends, from the last to the first.

        Args:
            on_frame: told how many frames were handed on by now.

        Raises:
            RenderError: as `Writer.write`.
        """
        num_kept = self._num_frames - 2
        for done in range(1, num_kept + 1):
            frame = self._file.read(num_kept - done, self._num_frames)
            self._writer.write(self._num_frames + done - 1, frame)
            on_frame(done)

    def close(self) -> None:
        """Gives the space back."""
        self._file.close()
