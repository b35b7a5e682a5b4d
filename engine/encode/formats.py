"""The kinds of file that a render can be written to, as one table.

Called by the package. A new format is one entry in `FORMATS`: its encoders, its limits, how to
open an encoder and how to read its metadata. The encoders are imported when one is opened, so that
checking an output path loads neither PyAV nor Pillow.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.encode.encoders import EncoderChoice
from giffusion.engine.errors import OutputError
from giffusion.engine.frames import Frame

RgbFrame = NDArray[np.uint8]  # (H, W, 3)
Size = tuple[int, int]  # (width, height)
Progress = Callable[[int, int], None]  # frames done, frames in all

# Browsers show a GIF frame of less than 2 hundredths of a second for 10 of them.
_MIN_GIF_DELAY_CS = 2
_MAX_GIF_DELAY_CS = 0xFFFF
# FFmpeg keeps a rate as a fraction of two C ints.
_MAX_RATE_TERM = 2**31 - 1


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """What an encoder has to know before the first frame.

    Args:
        size: (width, height) of every frame, in pixels.
        fps: frames a second, exact.
        num_frames: frames that are to come, at least 1.
        metadata: text that the file carries, the plan as JSON; empty for none.
        encoder: what encodes it; it says what frames are given in, and where they lie.
    """

    size: Size
    fps: Fraction
    num_frames: int
    metadata: str
    encoder: EncoderChoice


class Encoder(Protocol):
    """Writes one file, frame after frame; used by one thread at a time."""

    def write(self, frame: Frame) -> None:
        """Encodes the next frame; its memory is the encoder's from now on."""

    def finish(self, progress: Progress | None = None) -> None:
        """Completes the file and checks that it can be read and holds every frame.

        May be called again after it was interrupted.

        Args:
            progress: told the frames done and their number, where the format needs a second pass.

        Raises:
            RenderError: the file does not hold what was written.
        """

    def discard(self) -> None:
        """Lets go of everything without completing the file; may be called twice."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """One kind of output file.

    Args:
        name: what it is called in messages.
        encoders: names of those that can write it, its own first.
        problem: says what it cannot express of (fps, size), or None; size may be unknown yet.
        open_encoder: starts an encoder that writes to a path.
        read_metadata: reads the text that `VideoSpec.metadata` put there, or None.
    """

    name: str
    encoders: tuple[str, ...]
    problem: Callable[[Fraction, Size | None], str | None]
    open_encoder: Callable[[Path, VideoSpec], Encoder]
    read_metadata: Callable[[Path], str | None]


def output_format(path: Path) -> OutputFormat:
    """Returns the format that a path's extension names, in either case.

    Raises:
        OutputError: the extension is missing or unknown.
    """
    extension = path.suffix.lower()
    if extension not in FORMATS:
        got = f"extension '{path.suffix}' is unknown" if extension else "the extension is missing"
        raise OutputError(f"{path}: {got}: expected {' or '.join(sorted(FORMATS))}")
    return FORMATS[extension]


def delays_cs(fps: Fraction, num_frames: int) -> list[int]:
    """Returns how long each frame of a GIF is shown, in hundredths of a second.

    Frame i begins at round(100·i / fps), so that rounding never adds up.
    """
    starts = [round(100 * index / fps) for index in range(num_frames + 1)]
    return [end - start for start, end in itertools.pairwise(starts)]


def _gif_problem(fps: Fraction, size: Size | None) -> str | None:
    fastest, slowest = Fraction(100, _MIN_GIF_DELAY_CS), Fraction(100, _MAX_GIF_DELAY_CS)
    if fps > fastest:
        return f"fps {fps} is too fast for GIF: expected at most {fastest}, or write .mp4"
    if fps < slowest:
        return f"fps {fps} is too slow for GIF: expected at least {float(slowest):.4f}"
    return None


def _mp4_problem(fps: Fraction, size: Size | None) -> str | None:
    if max(fps.numerator, fps.denominator) > _MAX_RATE_TERM:
        near = fps.limit_denominator(1001)
        return f"fps {fps} is too fine for MP4: expected a shorter fraction, such as {near}"
    if size is not None and (size[0] % 2 or size[1] % 2):
        even = "x".join(str(2 * math.ceil(side / 2)) for side in size)
        return f"size {size[0]}x{size[1]} is odd: MP4 expects even numbers, such as {even}"
    return None


def _open_gif(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.gif import GifEncoder

    return GifEncoder(path, spec)


def _open_mp4(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.video import Mp4Encoder

    return Mp4Encoder(path, spec)


def _read_gif(path: Path) -> str | None:
    from giffusion.engine.encode.gif import read_comment

    return read_comment(path)


def _read_mp4(path: Path) -> str | None:
    from giffusion.engine.encode.video import read_tag

    return read_tag(path)


_MP4_ENCODERS = ("libx264", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc")

FORMATS: dict[str, OutputFormat] = {
    ".gif": OutputFormat("GIF", ("gif",), _gif_problem, _open_gif, _read_gif),
    ".mp4": OutputFormat("MP4", _MP4_ENCODERS, _mp4_problem, _open_mp4, _read_mp4),
}
