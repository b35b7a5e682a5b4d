"""Pictures set aside in the order they came, for formats that must see them all before writing one.

Called by `gif.py`, for frames without loss, and by `avif.py`, for frames that are encoded already.
The invariant: memory does not grow with the frames, and the file has no name, so that even a killed
render leaves nothing of it behind.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from giffusion.engine.encode.formats import RgbFrame, Size

_NUM_THREADS = 4
_MUXER = "matroska"


class Spool:
    """Keeps pictures in an unnamed file; first all are written, then they are read.

    Args:
        folder: where the space is taken.
        codec: FFmpeg's name of what encodes them.
        fps: pictures a second; codecs spread their bits by it.
        options: FFmpeg's options for the codec.
        configure: sets the stream up before it is opened.
    """

    def __init__(
        self,
        folder: Path,
        codec: str,
        fps: Fraction,
        options: dict[str, str],
        configure: Callable[[VideoStream], None],
    ) -> None:
        # Buffered: a raw file may write less than it was given, which FFmpeg does not notice.
        # It outlives this function (SIM115).
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._container = av.open(self._file, "w", format=_MUXER)
        self._stream = cast(
            VideoStream, self._container.add_stream(codec, rate=fps, options=options)
        )
        configure(self._stream)
        self._fps = fps
        self._num_pictures = 0
        self._complete = False

    def write(self, picture: VideoFrame) -> None:
        """Appends a picture.

        Raises:
            OSError: the folder is full.
        """
        picture.pts = self._num_pictures
        picture.time_base = 1 / self._fps
        self._container.mux(self._stream.encode(picture))
        self._num_pictures += 1

    @contextlib.contextmanager
    def reading(self) -> Iterator[InputContainer]:
        """Opens what was written, from its beginning; nothing can be written after that.

        Raises:
            OSError: the folder is full.
        """
        self._end_writing()
        self._file.seek(0)
        with av.open(self._file, "r", format=_MUXER) as container:
            yield container

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


class FrameSpool:
    """Keeps RGB frames without loss, as FFV1; first all are written, then they are read.

    Args:
        folder: where the space is taken.
        size: (width, height) of every frame.
    """

    def __init__(self, folder: Path, size: Size) -> None:
        def configure(stream: VideoStream) -> None:
            stream.width, stream.height = size
            stream.pix_fmt = "bgr0"
            stream.codec_context.thread_count = _NUM_THREADS

        self._spool = Spool(folder, "ffv1", Fraction(25), {}, configure)

    def write(self, frame: RgbFrame) -> None:
        """Appends a frame.

        Raises:
            OSError: the folder is full.
        """
        self._spool.write(VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0"))

    def frames(self) -> Iterator[RgbFrame]:
        """Yields every frame from the first; nothing can be written after that.

        Raises:
            OSError: the folder is full.
        """
        with self._spool.reading() as container:
            for picture in container.decode(video=0):
                yield picture.to_ndarray(format="rgb24").astype("uint8", copy=False)

    def close(self) -> None:
        """Gives the space back; may be called twice."""
        self._spool.close()
