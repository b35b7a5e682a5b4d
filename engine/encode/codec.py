"""An encoder's context as its entry in the table has it: size, format, colours, threads.

Called by `video.py` and `avif.py`, which mux what it gives, and by `probe.py`, which only looks
whether it gives anything. The invariant: what is probed is set up as what is used.
"""

from __future__ import annotations

import os

from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import ColorRange

from giffusion.engine.encode.encoders import EncoderInfo
from giffusion.engine.encode.formats import Size

# The number that H.264 and AV1 give to BT.709, as primaries, as transfer and as matrix.
_BT709 = 1
# SVT-AV1 writes its own log to standard error, past FFmpeg's. 0 keeps what is fatal alone: it calls
# a render that was stopped an error, and true ones FFmpeg raises as well.
_SVT_LOG, _FATAL_ONLY = "SVT_LOG", "0"


def options(info: EncoderInfo, quality: int | None = None) -> dict[str, str]:
    """Returns FFmpeg's options for an encoder at a quality of 1 … 100, or at its own for None."""
    # PyAV has no attribute for the siting of chroma.
    return {**info.settings(quality), "chroma_sample_location": "left"}


def configure(codec: VideoCodecContext, info: EncoderInfo, size: Size, pixel_format: str) -> None:
    """Sets a context up before it is opened.

    Args:
        codec: made for the encoder, with `options`.
        info: the encoder.
        size: (width, height) in pixels.
        pixel_format: FFmpeg's name of what its pictures will be in.
    """
    if info.planar:
        os.environ.setdefault(_SVT_LOG, _FATAL_ONLY)
    codec.width, codec.height = size
    codec.pix_fmt = pixel_format
    if info.num_threads is not None:
        codec.thread_count = info.num_threads
    if info.tag is not None:
        codec.codec_tag = info.tag
    codec.color_primaries = codec.color_trc = codec.colorspace = _BT709
    codec.color_range = ColorRange.MPEG
