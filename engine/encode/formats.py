"""The kinds of file that a render can be written to, as one table.

Called by the package. A new format is one entry in `FORMATS`: its encoders, its limits, how to
open an encoder and how to read its metadata. The invariant: the encoders are imported when one is
opened, so that checking an output path loads neither PyAV nor Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.encode.encoders import EncoderChoice
from giffusion.engine.encode.folder import FOLDER
from giffusion.engine.encode.limits import (
    avif_problem,
    gif_problem,
    mp4_problem,
    png_problem,
    webm_problem,
    webp_problem,
)
from giffusion.engine.encode.output import FILE
from giffusion.engine.encode.place import Place
from giffusion.engine.encode.sound import SoundTrack
from giffusion.engine.errors import OutputError, nearest
from giffusion.engine.frames import Frame

RgbFrame = NDArray[np.uint8]  # (H, W, 3)
Size = tuple[int, int]  # (width, height)
Progress = Callable[[int, int], None]  # frames done, frames in all


@dataclass(frozen=True, slots=True)
class VideoSpec:
    """What an encoder has to know before the first frame.

    Args:
        size: (width, height) of every frame, in pixels.
        fps: frames a second, exact.
        num_frames: frames that are to come, at least 1.
        metadata: text that the file carries, the plan as JSON; empty for none.
        encoder: what encodes it; it says what frames are given in, and where they lie.
        quality: 1 … 100, or None for the encoder's own; it has one if it is given one.
        sound: what is heard, where the format carries sound, or None for nothing.
    """

    size: Size
    fps: Fraction
    num_frames: int
    metadata: str
    encoder: EncoderChoice
    quality: int | None = None
    sound: SoundTrack | None = None


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
        place: where its files, or its folder of pictures, are put.
        carries_sound: it can hold sound beside the frames.
    """

    name: str
    encoders: tuple[str, ...]
    problem: Callable[[Fraction, Size | None], str | None]
    open_encoder: Callable[[Path, VideoSpec], Encoder]
    read_metadata: Callable[[Path], str | None]
    place: Place = FILE
    carries_sound: bool = False


def output_format(path: Path) -> OutputFormat:
    """Returns the format that a path's extension names, in either case.

    Raises:
        OutputError: the extension is missing or unknown.
    """
    extension = path.suffix.lower()
    if extension not in FORMATS:
        got = f"extension '{path.suffix}' is unknown" if extension else "the extension is missing"
        raise OutputError(f"{path}: {got}: {nearest(extension, FORMATS)}")
    return FORMATS[extension]


def _open_gif(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.gif import GifEncoder

    return GifEncoder(path, spec)


def _open_mp4(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.video import Mp4Encoder

    return Mp4Encoder(path, spec)


def _open_webm(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.video import WebmEncoder

    return WebmEncoder(path, spec)


def _open_webp(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.webp import WebpEncoder

    return WebpEncoder(path, spec)


def _open_avif(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.avif import AvifEncoder

    return AvifEncoder(path, spec)


def _open_png(path: Path, spec: VideoSpec) -> Encoder:
    from giffusion.engine.encode.png import PngEncoder

    return PngEncoder(path, spec)


def _read_gif(path: Path) -> str | None:
    from giffusion.engine.encode.gif import read_comment

    return read_comment(path)


def _read_mp4(path: Path) -> str | None:
    from giffusion.engine.encode.containers import MP4, read_tag

    return read_tag(path, MP4)


def _read_webm(path: Path) -> str | None:
    from giffusion.engine.encode.containers import WEBM, read_tag

    return read_tag(path, WEBM)


def _read_webp(path: Path) -> str | None:
    from giffusion.engine.encode.riff import read_xmp_text

    return read_xmp_text(path)


def _read_avif(path: Path) -> str | None:
    from giffusion.engine.encode.isobmff import read_xmp_text

    return read_xmp_text(path)


def _read_png(path: Path) -> str | None:
    from giffusion.engine.encode.png import read_text

    return read_text(path)


_MP4_ENCODERS = ("libx264", "libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc", "av1_nvenc")
_WEBM_ENCODERS = ("libvpx-vp9", "libsvtav1")

FORMATS: dict[str, OutputFormat] = {
    ".gif": OutputFormat("GIF", ("gif",), gif_problem, _open_gif, _read_gif),
    ".mp4": OutputFormat(
        "MP4", _MP4_ENCODERS, mp4_problem, _open_mp4, _read_mp4, carries_sound=True
    ),
    ".webm": OutputFormat(
        "WebM", _WEBM_ENCODERS, webm_problem, _open_webm, _read_webm, carries_sound=True
    ),
    ".webp": OutputFormat("WebP", ("libwebp",), webp_problem, _open_webp, _read_webp),
    ".avif": OutputFormat("AVIF", ("libsvtav1",), avif_problem, _open_avif, _read_avif),
    ".png": OutputFormat("PNG", ("png",), png_problem, _open_png, _read_png, FOLDER),
}
