"""Which video encoders work on this machine, found out by encoding one frame with each."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from giffusion.engine.errors import one_line

PROBE_SIDE = 256
"""NVENC refuses frames below 145x145."""
ENCODERS = {
    "libx264": ("mp4", "yuv420p"),
    "ffv1": ("gif, its lossless first pass", "bgr0"),
    "gif": ("gif", "rgb8"),
    "h264_nvenc": ("NVIDIA hardware, not used by this version", "yuv420p"),
}


@dataclass(frozen=True, slots=True)
class EncoderStatus:
    """Whether an encoder works on this machine.

    Args:
        name: FFmpeg's name of it.
        works: whether one frame could be encoded.
        detail: what it is for, and why it does not work.
    """

    name: str
    works: bool
    detail: str


def probe_encoders() -> list[EncoderStatus]:
    """Encodes one frame with every encoder and reports how it went."""
    return [_probe(name, use, pixel_format) for name, (use, pixel_format) in ENCODERS.items()]


def _probe(name: str, use: str, pixel_format: str) -> EncoderStatus:
    import av

    try:
        context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
        context.width = context.height = PROBE_SIDE
        context.pix_fmt = pixel_format
        context.time_base = Fraction(1, 24)
        frame = av.VideoFrame(PROBE_SIDE, PROBE_SIDE, pixel_format)
        frame.pts = 0
        num_packets = len([*context.encode(frame), *context.encode(None)])
    except Exception as error:  # PyAV raises OSError, ValueError and its own kinds alike
        reason = _reason(name, error)
        return EncoderStatus(name, False, f"{use}: {reason}")
    if num_packets == 0:
        return EncoderStatus(name, False, f"{use}: the encoder gave no packet")
    return EncoderStatus(name, True, use)


def _reason(name: str, error: Exception) -> str:
    if name.endswith("_nvenc") and isinstance(error, PermissionError):
        # FFmpeg reports a missing libcuda or driver as "operation not permitted".
        return "no NVIDIA driver with NVENC was found"
    return one_line(error)
