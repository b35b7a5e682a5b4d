"""H.264, HEVC, AV1 or VP9 in MP4 or WebM, with sound or without, through PyAV.

Called by `formats.py`. The invariant: the same frames and sound give the same bytes, whatever the
machine's number of cores, so no date is written and settings come from the table of encoders alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from giffusion.engine.encode.codec import configure, options
from giffusion.engine.encode.containers import MP4, TAG, WEBM, VideoContainer, open_video
from giffusion.engine.encode.formats import Progress, Size, VideoSpec
from giffusion.engine.encode.nvenc import NvencError, explained, sessions
from giffusion.engine.encode.pictures import PictureMaker
from giffusion.engine.encode.sound_encoder import SoundEncoder
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame

# From three frames on one can be decoded before another that is shown earlier.
_REORDERED = 3


class VideoEncoder:
    """Encodes NV12 frames into a video file; an `Encoder`, of which each container has one.

    Args:
        path: the file to write; what is there is overwritten.
        spec: sizes are even, and the encoder is one of the container's.

    Raises:
        RenderError: the encoder is one of NVIDIA's hardware, and no more of them can be opened.
        InputError: the sound cannot be read.
    """

    container: ClassVar[VideoContainer]

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._path = path.absolute()
        self._spec = spec
        self._info = spec.encoder.info
        self._num_frames = 0
        self._flushed = False
        self._pictures = PictureMaker(spec.encoder, spec.size)
        self._output: OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._sound: SoundEncoder | None = None
        if spec.sound is not None:
            duration_s = spec.num_frames / spec.fps
            self._sound = SoundEncoder(spec.sound, self.container.sound, duration_s)
        if self._info.on_nvidia:
            sessions().take(self._info.name)
        self._holds_session = self._info.on_nvidia
        try:
            self._open()
        except BaseException:
            self._let_go()
            raise

    def write(self, frame: Frame) -> None:
        assert self._output is not None
        assert self._stream is not None
        with self._starting():
            picture = self._pictures.picture(frame)
            picture.pts = self._num_frames
            picture.time_base = 1 / self._spec.fps
            packets = self._stream.encode(picture)
        self._output.mux(packets)
        self._num_frames += 1
        if self._sound is not None:
            self._output.mux(self._sound.until(self._num_frames / self._spec.fps))

    def finish(self, progress: Progress | None = None) -> None:
        if self._output is not None:
            if not self._flushed:
                self._flushed = True
                self._output.mux(self._rest())
                if self._sound is not None:
                    self._output.mux(self._sound.rest())
            self._output.close()
            self._let_go()
        num_packets = 0 if self._sound is None else self._sound.num_packets
        _verify(self._path, self._num_frames, num_packets, self._spec, self.container)

    def discard(self) -> None:
        # With the file gone, closing cannot spend time on moving its contents about.
        self._path.unlink(missing_ok=True)
        if self._output is not None:
            with contextlib.suppress(Exception):
                self._output.close()
            self._let_go()

    def _open(self) -> None:
        spec, info, kind = self._spec, self._info, self.container
        muxer = kind.options(spec.fps, None if self._sound is None else self._sound.rate)
        self._output = av.open(str(self._path), "w", format=kind.muxer, options=muxer)
        if spec.metadata:
            self._output.metadata.update({"comment": spec.metadata, TAG: spec.metadata})
        settings = options(info, spec.quality)
        stream = self._output.add_stream(info.name, rate=spec.fps, options=settings)
        self._stream = cast(VideoStream, stream)
        configure(self._stream.codec_context, info, spec.size, self._pictures.format)
        if self._sound is not None:
            self._sound.add_to(self._output)

    def _rest(self) -> list[Packet[VideoStream]]:
        """Returns what the encoder kept back."""
        assert self._stream is not None
        packets = self._stream.encode()
        if self._num_frames < _REORDERED:
            # x265 gives so few the contents of some memory for decode times; they come as shown.
            for packet in packets:
                packet.dts = packet.pts
        return packets

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
        self._output = self._stream = None
        if self._sound is not None:
            self._sound.close()
        if self._holds_session:
            self._holds_session = False
            sessions().give_back()


class Mp4Encoder(VideoEncoder):
    """Encodes NV12 frames into an MP4 file, whose times are exact."""

    container = MP4


class WebmEncoder(VideoEncoder):
    """Encodes NV12 frames into a WebM file, whose times are rounded to milliseconds."""

    container = WEBM


def _verify(
    path: Path, num_frames: int, num_packets: int, spec: VideoSpec, container: VideoContainer
) -> None:
    """Reads the file back, since a full disk can go unnoticed until then."""
    with open_video(path, container) as file:
        stream = file.streams.video[0]
        found_frames, found_packets, last, broken = 0, 0, Fraction(-1), False
        for packet in file.demux():
            broken |= packet.is_corrupt
            if packet.size and packet.stream.index == stream.index:
                found_frames += 1
                last = max(last, (packet.pts or 0) * packet.time_base)
            elif packet.size:
                found_packets += 1
        found = (stream.width, stream.height), found_frames, last, found_packets
        rate = stream.average_rate or Fraction(0)
    expected = spec.size, num_frames, container.start_of(num_frames - 1, spec.fps), num_packets
    if broken or found != expected or not container.is_rate(rate, spec.fps):
        raise RenderError(
            f"the {container.name} reads back as {_said(*found, rate)}, "
            f"expected {_said(*expected, spec.fps)}: render it again"
        )


def _said(size: Size, num_frames: int, last: Fraction, num_packets: int, rate: Fraction) -> str:
    frames = f"{size[0]}x{size[1]}, {num_frames} frames to {float(last):.3f} s at fps {rate}"
    return f"{frames}, {num_packets} packets of sound" if num_packets else frames
