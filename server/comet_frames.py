"""The frames of a finished file, one after the other: what is logged of them.

`comet_worker.py` reads them. The invariant: one frame is in memory at a time, however long the
file is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.engine.encode.sequence import is_pattern
from giffusion.engine.media.colours import ColourConverter
from giffusion.engine.media.opening import opened_media

if TYPE_CHECKING:
    from PIL import Image

PREVIEW_SIDE = 128
MAX_PREVIEW_FRAMES = 48
_VIDEOS = (".mp4", ".webm")
_KINDS = ("GIF", "WEBP", "AVIF", "PNG")


def read_frames(path: Path) -> Iterator[Image.Image]:
    """Yields the frames of a file that a render wrote, in RGB.

    Args:
        path: the file, or of a sequence its folder or pattern.

    Raises:
        InputError: a video cannot be read.
        OSError: a picture cannot be read.
    """
    if is_pattern(path):
        path = path.parent
    if path.is_dir():
        yield from _pictures(path)
    elif path.suffix.lower() in _VIDEOS:
        yield from _video(path)
    else:
        yield from _animation(path)


def preview_step(num_frames: int) -> int:
    """Returns that every how many-th frame is in the preview, so that it stays small."""
    return -(-num_frames // MAX_PREVIEW_FRAMES)


def small(frame: Image.Image) -> Image.Image:
    """Returns a frame as the preview has it."""
    copy = frame.copy()
    copy.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    return copy


def write_preview(frames: list[Image.Image], path: Path, seconds: float) -> None:
    """Writes a preview, an animated GIF that loops.

    Args:
        frames: as `small` makes them, one or more.
        path: where it goes.
        seconds: how long it takes.
    """
    delay_ms = max(20, round(1000 * seconds / len(frames)))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=delay_ms, loop=0)


def _video(path: Path) -> Iterator[Image.Image]:
    with opened_media(path, "video") as container:
        colours = ColourConverter()
        for frame in container.decode(video=0):
            yield colours.convert(frame)


def _animation(path: Path) -> Iterator[Image.Image]:
    from PIL import Image

    with Image.open(path, formats=_KINDS) as picture:
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            yield picture.convert("RGB")


def _pictures(folder: Path) -> Iterator[Image.Image]:
    def number(path: Path) -> list[int]:
        return [int(digits) for digits in re.findall(r"\d+", path.stem)]

    for path in sorted(folder.glob("*.png"), key=lambda path: (number(path), path.name)):
        yield from _animation(path)
