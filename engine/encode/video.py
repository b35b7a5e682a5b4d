"""H.264, HEVC or AV1 in MP4, through PyAV.

Called by `formats.py`. The invariant: the same frames give the same bytes, whatever the machine's
number of cores, so no date is written and settings come from the table of encoders alone.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from giffusion.engine.encode.codec import configure, options
from giffusion.engine.encode.formats import Progress, VideoSpec
from giffusion.engine.encode.nvenc import NvencError, explained, sessions
from giffusion.engine.encode.pictures import PictureMaker
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame

TAG = "giffusion"
_MIN_TIMESCALE = 10_000


class Mp4Encoder:
    """Encodes NV12 frames into an MP4 file; an `Encoder`.

    Args:
        path: the file to write; what is there is overwritten.
        spec: sizes are even, and the encoder is one of MP4's.

    Raises:
        RenderError: the encoder is one of NVIDIA's hardware, and no more of them can be opened.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._path = path.absolute()
        self._spec = spec
        self._info = spec.encoder.info
        self._num_frames = 0
        self._flushed = False
        self._pictures = PictureMaker(spec.encoder, spec.size)
        self._container: OutputContainer | None = None
        self._stream: VideoStream | None = None
        if self._info.on_nvidia:
            sessions().take(self._info.name)
        self._holds_session = self._info.on_nvidia
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    def write(self, frame: Frame) -> None:
        assert self._container is not None
        assert self._stream is not None
        with self._starting():
            picture = self._pictures.picture(frame)
            picture.pts = self._num_frames
            picture.time_base = 1 / self._spec.fps
            packets = self._stream.encode(picture)
        self._container.mux(packets)
        self._num_frames += 1

    def finish(self, progress: Progress | None = None) -> None:
        if self._container is not None:
            if not self._flushed:
                self._flushed = True
                assert self._stream is not None
                self._container.mux(self._stream.encode())
            self._container.close()
            self._let_go()
        _verify(self._path, self._num_frames, self._spec)

    def discard(self) -> None:
        # With the file gone, closing cannot spend time on moving its contents about.
        self._path.unlink(missing_ok=True)
        if self._container is not None:
            with contextlib.suppress(Exception):
                self._container.close()
            self._let_go()

    def _open(self) -> None:
        spec, info = self._spec, self._info
        self._container = av.open(str(self._path), "w", format="mp4", options=_muxer(spec))
        if spec.metadata:
            self._container.metadata.update({"comment": spec.metadata, TAG: spec.metadata})
        stream = self._container.add_stream(info.name, rate=spec.fps, options=options(info))
        self._stream = cast(VideoStream, stream)
        configure(self._stream.codec_context, info, spec.size, self._pictures.format)

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """With its first frame hardware is opened, and why that fails only FFmpeg's log says."""
        if self._num_frames or not self._info.on_nvidia:
            yield
            return
        try:
            with explained():
                yield
        except NvencError as error:
            raise RenderError(f"{self._info.name} cannot start: {error}") from error

    def _let_go(self) -> None:
        """Frees the encoder: PyAV ends one, and its session, with the last name that it has."""
        self._container = self._stream = None
        if self._holds_session:
            self._holds_session = False
            sessions().give_back()


def open_video(path: Path) -> InputContainer:
    """Opens an MP4 file for reading, and nothing else that a crafted file may name."""
    demuxer = {"protocol_whitelist": "file"}
    return av.open(str(path.absolute()), "r", format="mp4", options=demuxer)


def read_tag(path: Path) -> str | None:
    """Returns the text that `Mp4Encoder` stored, or None where the file has none."""
    with open_video(path) as container:
        return container.metadata.get(TAG)


def _muxer(spec: VideoSpec) -> dict[str, str]:
    """Returns FFmpeg's options for an exact time base and a file that browsers play at once."""
    # FFmpeg rounds the duration to the movie's time base, milliseconds unless told otherwise.
    timescale = str(spec.fps.numerator * math.ceil(_MIN_TIMESCALE / spec.fps.numerator))
    return {
        "movflags": "+faststart+use_metadata_tags",
        "movie_timescale": timescale,
        "video_track_timescale": timescale,
    }


def _verify(path: Path, num_frames: int, spec: VideoSpec) -> None:
    """Reads the file back, since a full disk can go unnoticed until then."""
    with open_video(path) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        found = (stream.width, stream.height), stream.average_rate, len(packets)
        broken = any(packet.is_corrupt for packet in packets)
    expected: tuple[tuple[int, int], Fraction, int] = (spec.size, spec.fps, num_frames)
    if broken or found != expected:
        raise RenderError(f"the MP4 reads back as {found}, expected {expected}: render it again")
