"""Frames set aside without loss, for formats that must see them all before writing one.

Called by `gif.py`. The invariant: memory does not grow with the frames, and the file has no name,
so that even a killed render leaves nothing of it behind.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from giffusion.engine.encode.formats import RgbFrame, Size

_NUM_THREADS = 4


class FrameSpool:
    """Keeps frames as FFV1 in an unnamed file; first all are written, then they are read.

    Args:
        folder: where the space is taken.
        size: (width, height) of every frame.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        # Buffered: a raw file may write less than it was given, which FFmpeg does not notice.
        # It outlives this function (SIM115).
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._container = av.open(self._file, "w", format="matroska")
        self._stream = self._container.add_stream("ffv1", rate=Fraction(25))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "bgr0"
        self._stream.codec_context.thread_count = _NUM_THREADS
        self._num_frames = 0
        self._complete = False

    def write(self, frame: RgbFrame) -> None:
        """Appends a frame.

        Raises:
            OSError: the folder is full.
        """
        picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
        picture.pts = self._num_frames
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def frames(self) -> Iterator[RgbFrame]:
        """Yields every frame from the first; nothing can be written after that.

        Raises:
            OSError: the folder is full.
        """
        self._end_writing()
        self._file.seek(0)
        with av.open(self._file, "r", format="matroska") as container:
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24").astype(np.uint8, copy=False)

    def close(self) -> None:
        """Gives the space back; may be called twice."""
        # A full disk shows once more when what is buffered is written out.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(Exception):
            self._container.close()

    def _end_writing(self) -> None:
        if not self._complete:
            self._complete = True
            self._container.mux(self._stream.encode())
            self._container.close()
            self._file.flush()
