"""H.264 in MP4, through PyAV: every player reads it.

Called by `formats.py`. The invariant: the same frames give the same bytes, whatever the machine's
number of cores, so the encoder's threads are fixed and no date is written.
"""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from giffusion.engine.encode.formats import Frame, Progress, VideoSpec
from giffusion.engine.errors import RenderError

TAG = "giffusion"
NUM_THREADS = 4
# Measured: without cpu-independent, x264 differed from run to run on a processor with AVX-512.
# veryfast: half the processor time of medium and smaller files, for 0.3 to 0.8 dB.
_X264 = {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"}
_MIN_TIMESCALE = 10_000
# The number that H.264 gives to BT.709, as primaries, as transfer and as matrix.
_BT709 = 1
# swscale's SWS_ACCURATE_RND and SWS_FULL_CHR_H_INP, for which PyAV 15 has no names: without them
# chroma is off by one.
_EXACT = int(Interpolation.BICUBIC) | 0x40000 | 0x4000


class Mp4Encoder:
    """Encodes frames into an MP4 file; an `Encoder`.

    Args:
        path: the file to write; what is there is overwritten.
        spec: sizes are even.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._path = path.absolute()
        self._spec = spec
        self._num_frames = 0
        self._flushed = False
        self._container = av.open(str(self._path), "w", format="mp4", options=_muxer(spec))
        if spec.metadata:
            self._container.metadata.update({"comment": spec.metadata, TAG: spec.metadata})
        self._stream = self._container.add_stream("libx264", rate=spec.fps, options=_X264)
        _configure(self._stream, spec)

    def write(self, frame: Frame) -> None:
        picture = to_yuv420p(VideoFrame.from_ndarray(frame, format="rgb24"))
        picture.pts = self._num_frames
        picture.time_base = 1 / self._spec.fps
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def finish(self, progress: Progress | None = None) -> None:
        if not self._flushed:
            self._flushed = True
            self._container.mux(self._stream.encode())
        self._container.close()
        _verify(self._path, self._num_frames, self._spec)

    def discard(self) -> None:
        # With the file gone, closing cannot spend time on moving its contents about.
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(Exception):
            self._container.close()


def to_yuv420p(picture: VideoFrame) -> VideoFrame:
    """Converts full-range RGB to limited-range YUV 4:2:0 by the BT.709 matrix."""
    return picture.reformat(
        format="yuv420p",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=_EXACT,
    )


def open_video(path: Path) -> InputContainer:
    """Opens an MP4 file for reading, and nothing else that a crafted file may name."""
    options = {"protocol_whitelist": "file"}
    return av.open(str(path.absolute()), "r", format="mp4", options=options)


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


def _configure(stream: VideoStream, spec: VideoSpec) -> None:
    stream.width, stream.height = spec.size
    stream.pix_fmt = "yuv420p"
    codec = stream.codec_context
    codec.thread_count = NUM_THREADS
    codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
    codec.color_range = ColorRange.MPEG


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
