"""A sequence of PNG pictures, each of which carries the plan; one of them read back.

Called by `formats.py`. The invariant: a picture is closed before the next is begun, so that memory
grows with nothing, and what is read is bounded whatever a file says.

Source: W3C, Portable Network Graphics (PNG) Specification.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from giffusion.engine.encode.formats import Progress, Size, VideoSpec
from giffusion.engine.encode.sequence import is_pattern, parse_pattern
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame

_KEYWORD = b"giffusion"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
_COMPRESSED = 1
_MAX_TEXT_BYTES = 2**26
_FIRST = b"IHDR"


class PngEncoder:
    """Writes each RGB frame as a PNG, the first with number 0; an `Encoder`.

    Args:
        path: the pattern of the pictures' names, in a folder that is there and empty.
        spec: what each picture carries is `spec.metadata`.
    """

    def __init__(self, path: Path, spec: VideoSpec) -> None:
        self._folder = path.parent
        self._pattern = parse_pattern(path)
        self._spec = spec
        self._num_frames = 0
        self._level = int(spec.encoder.info.settings(spec.quality)["compress_level"])
        self._info = PngInfo()
        if spec.metadata:
            self._info.add(b"iTXt", _text_chunk(spec.metadata))

    def write(self, frame: Frame) -> None:
        assert isinstance(frame, np.ndarray), "PNG takes arrays"
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, "PNG", compress_level=self._level, pnginfo=self._info)
        self._path(self._num_frames).write_bytes(encoded.getbuffer())
        self._num_frames += 1

    def finish(self, progress: Progress | None = None) -> None:
        found = sum(1 for _ in os.scandir(self._folder))
        if found != self._num_frames:
            raise RenderError(
                f"the folder holds {found} pictures, expected {self._num_frames}: render it again"
            )
        for index in range(self._num_frames):
            _verify(self._path(index), self._spec)

    def discard(self) -> None:
        """Nothing is held between two pictures."""

    def _path(self, index: int) -> Path:
        return self._folder / self._pattern.name(index)


def read_text(path: Path) -> str | None:
    """Returns the text that a picture carries, or None where it has none of ours.

    Args:
        path: a picture, the folder of a sequence, or the pattern of its names.

    Raises:
        ValueError: it is no PNG, holds no picture, or its text is too large.
        OSError: it cannot be read.
    """
    with _a_picture(path).open("rb") as file:
        for kind, num_bytes in _chunks(file):
            if kind == b"iTXt":
                text = _text(_payload(file, num_bytes))
                if text is not None:
                    return text
    return None


def _a_picture(path: Path) -> Path:
    """Returns the picture that a path names, or the first of those that it names."""
    if path.is_dir():
        folder, names = path, (name for name in os.listdir(path) if name.lower().endswith(".png"))
    elif is_pattern(path) and not path.exists():
        pattern, folder = parse_pattern(path), path.parent
        names = (name for name in os.listdir(folder) if pattern.index(name) is not None)
    else:
        return path
    first = min(names, default=None)
    if first is None:
        raise ValueError("it holds no picture of that name")
    return folder / first


def _text_chunk(text: str) -> bytes:
    """Returns the payload of a chunk of international text."""
    compressed = zlib.compress(text.encode(), 9)
    return _KEYWORD + bytes([0, _COMPRESSED, 0, 0, 0]) + compressed


def _text(payload: bytes) -> str | None:
    """Returns the text of such a chunk, or None where it is another's."""
    keyword, _, rest = payload.partition(b"\0")
    if keyword != _KEYWORD:
        return None
    # Two bytes say whether it is compressed; language and translated keyword follow.
    data = rest[2:].split(b"\0", 2)[2]
    if rest[0] != _COMPRESSED:
        return data.decode()
    expander = zlib.decompressobj()
    text = expander.decompress(data, _MAX_TEXT_BYTES)
    if not expander.eof:
        raise ValueError("its text is cut short or too large")
    return text.decode()


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields (kind, bytes of payload), the file at the payload's beginning.

    Raises:
        ValueError: it is no PNG, or ends too early.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise ValueError("it does not begin as a PNG")
    position, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends too early")
        num_bytes, kind = struct.unpack(">I4s", head)
        yield kind, num_bytes
        position += 12 + num_bytes


def _payload(file: BinaryIO, num_bytes: int) -> bytes:
    if num_bytes > _MAX_TEXT_BYTES:
        raise ValueError(f"its text of {num_bytes} bytes is too large")
    return file.read(num_bytes)


def _verify(path: Path, spec: VideoSpec) -> None:
    """Reads a picture's ends back, since a full disk can go unnoticed until then."""
    with path.open("rb") as file:
        kind, size = _size(file)
        file.seek(-len(_END), os.SEEK_END)
        ended = file.read() == _END
    if kind != _FIRST or size != spec.size or not ended:
        raise RenderError(
            f"{path.name} reads back as {size}, expected {spec.size}: render it again"
        )


def _size(file: BinaryIO) -> tuple[bytes, Size]:
    kind, _ = next(_chunks(file))
    width, height = struct.unpack(">II", file.read(8))
    return kind, (width, height)
