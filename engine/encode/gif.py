"""Animated GIF in two passes: look at some frames for a palette, then write them all with it.

Called by `formats.py`. The container is written here and only its compression is Pillow's: its
writer holds all frames in memory, and it and FFmpeg's both merge frames that are alike. The
invariant: a file has exactly the frames that were written, in bounded memory.

Source: CompuServe, Graphics Interchange Format, version 89a.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.GifImagePlugin import getdata

from giffusion.engine.encode.changes import Box, changed_box
from giffusion.engine.encode.formats import Progress, Size, VideoSpec
from giffusion.engine.encode.limits import delay_cs
from giffusion.engine.encode.palette import MAX_COLOURS, FrameSamples, choose_palette, to_indices
from giffusion.engine.encode.spool import FrameSpool
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame

_TRAILER = b";"
_LOOP_FOREVER = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
# A table of 256 colours, for pictures of 8 bits a channel.
_GLOBAL_TABLE = 0xF7
# The picture stays until the next is drawn over it.
_KEEP = 1 << 2


class GifEncoder:
    """Encodes RGB frames into an animated GIF that loops forever; an `Encoder`.

    Args:
        path: the file to write; its folder also takes the lossless copy of the first pass.
        spec: a rate whose delays GIF can express.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._path = path
        self._spec = spec
        self._num_frames = 0
        self._samples = FrameSamples(spec.num_frames)
        self._spool = FrameSpool(path.parent, spec.size)

    def write(self, frame: Frame) -> None:
        assert isinstance(frame, np.ndarray), "GIF takes arrays"
        self._samples.offer(self._num_frames, frame)
        self._spool.write(frame)
        self._num_frames += 1

    def finish(self, progress: Progress | None = None) -> None:
        with self._path.open("wb") as file:
            for num_done, block in enumerate(self._blocks()):
                file.write(block)
                if progress is not None and num_done:
                    progress(num_done, self._num_frames)
            file.write(_TRAILER)
        _verify(self._path, self._num_frames, self._spec.size)

    def discard(self) -> None:
        self._spool.close()

    def _blocks(self) -> Iterator[bytes]:
        """Yields the header, then one block a frame."""
        palette = choose_palette(self._samples.pixels())
        yield _header(self._spec.size, palette) + _comment(self._spec.metadata)
        shown: NDArray[np.uint8] | None = None
        for index, frame in enumerate(self._spool.frames()):
            delay = delay_cs(index, self._spec.fps)
            picture = to_indices(frame, palette)
            indices = np.asarray(picture)
            yield _image(picture, changed_box(shown, indices), delay)
            shown = indices


def read_comment(path: Path) -> str | None:
    """Returns a GIF's comment, where `GifEncoder` puts the metadata, or None."""
    with Image.open(path, formats=["GIF"]) as picture:
        comment = picture.info.get("comment")
    return None if comment is None else bytes(comment).decode(errors="replace")


def _header(size: Size, palette: Image.Image) -> bytes:
    colours = bytes(palette.getpalette() or ())
    assert len(colours) == 3 * MAX_COLOURS, len(colours)
    screen = struct.pack("<HHBBB", *size, _GLOBAL_TABLE, 0, 0)
    return b"GIF89a" + screen + colours + _LOOP_FOREVER


def _comment(text: str) -> bytes:
    data = text.encode()
    if not data:
        return b""
    parts = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\x21\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def _image(picture: Image.Image, box: Box, delay: int) -> bytes:
    control = b"\x21\xf9" + struct.pack("<BBHBB", 4, _KEEP, delay, 0, 0)
    return control + b"".join(getdata(picture.crop(box), box[:2], interlace=0))


def _verify(path: Path, num_frames: int, size: Size) -> None:
    with path.open("rb") as file, Image.open(file, formats=["GIF"]) as picture:
        found = picture.size, getattr(picture, "n_frames", 1)
        file.seek(-len(_TRAILER), os.SEEK_END)
        ended = file.read() == _TRAILER
    expected = (size, num_frames)
    if not ended or found != expected:
        raise RenderError(f"the GIF reads back as {found}, expected {expected}: render it again")
