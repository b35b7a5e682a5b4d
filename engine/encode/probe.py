"""Which encoders work on this machine, found out by encoding one picture with each.

Called by `choice.py`, for an encoder that was named or that the choice hangs on, and by `doctor`,
for all. The invariant: an encoder is tried once in a process, and a failure that may pass is not
remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice, EncoderInfo
from giffusion.engine.errors import one_line
from giffusion.engine.frames import PixelFormat

PROBE_SIZE = (256, 256)
"""Larger than the least that NVENC takes."""
_GREY = 128

_known: dict[str, EncoderStatus] = {}


@dataclass(frozen=True, slots=True)
class EncoderStatus:
    """Whether an encoder works on this machine.

    Args:
        name: its name.
        works: whether one picture could be encoded.
        reason: why it does not work, in words; empty where it does.
        passing: another moment may see it work.
    """

    name: str
    works: bool
    reason: str = ""
    passing: bool = False


def probe_encoders() -> list[EncoderStatus]:
    """Tries every encoder and reports how it went."""
    return [probe_encoder(name) for name in ENCODERS]


def probe_encoder(name: str) -> EncoderStatus:
    """Tries one encoder of the table, if this process has not yet.

    NVENC is tried with a picture in host memory, which FFmpeg brings to the first GPU that can
    encode.
    """
    status = _known.get(name) or _probe(ENCODERS[name])
    if not status.passing:
        _known[name] = status
    return status


def _probe(info: EncoderInfo) -> EncoderStatus:
    from giffusion.engine.encode.nvenc import NvencError, explained

    with_pillow = info.pixel_format is PixelFormat.RGB24
    attempt: Callable[[EncoderInfo], int] = _encode_whole if with_pillow else _encode_one
    guard: AbstractContextManager[None] = explained() if info.on_nvidia else nullcontext()
    try:
        with guard:
            num_packets = attempt(info)
    except NvencError as error:
        return EncoderStatus(info.name, False, str(error), error.passing)
    except Exception as error:  # PyAV raises OSError, ValueError and its own kinds alike
        return EncoderStatus(info.name, False, one_line(error))
    if num_packets == 0:
        return EncoderStatus(info.name, False, "the encoder gave no packet")
    return EncoderStatus(info.name, True)


def _encode_one(info: EncoderInfo) -> int:
    """Encodes one grey picture as a render would; returns the number of packets."""
    import av
    import numpy as np

    from giffusion.engine.encode.codec import configure, options
    from giffusion.engine.encode.pictures import PictureMaker

    pictures = PictureMaker(EncoderChoice(info), PROBE_SIZE)
    context = cast(av.VideoCodecContext, av.CodecContext.create(info.name, "w"))
    context.options = options(info)
    context.time_base = Fraction(1, 24)
    configure(context, info, PROBE_SIZE, pictures.format)
    frame = np.full(info.pixel_format.shape(PROBE_SIZE), _GREY, np.uint8)
    picture = pictures.picture(frame)
    picture.pts = 0
    return len([*context.encode(picture), *context.encode(None)])


def _encode_whole(info: EncoderInfo) -> int:
    """Makes a file of one grey picture as a render would; returns the number of pictures."""
    import tempfile
    from pathlib import Path

    import numpy as np

    from giffusion.engine.encode.formats import FORMATS, VideoSpec

    kind = next(kind for kind in FORMATS.values() if info.name in kind.encoders)
    with tempfile.TemporaryDirectory() as folder:
        # A sequence's name has its number in it.
        path = Path(folder) / "probe%d"
        encoder = kind.open_encoder(
            path, VideoSpec(PROBE_SIZE, Fraction(24), 1, "", EncoderChoice(info))
        )
        try:
            encoder.write(np.full(info.pixel_format.shape(PROBE_SIZE), _GREY, np.uint8))
            encoder.finish()
        finally:
            encoder.discard()
    return 1
