"""The chunks of a WebP file: made, and read back.

Called by `webp.py`, which writes them, and by the table of formats for the text in one. The
invariant: reading takes memory for the text alone, however large the file is or says it is.

Source: Google, WebP Container Specification (RFC 9649).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from giffusion.engine.encode.xmp import MAX_PACKET_BYTES, from_xmp

HEADER_BYTES = 12
MAX_FILE_BYTES = 2**32 - 2
"""RIFF counts in 32 bits."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a chunk's payload lies in a file.

    Args:
        kind: its four letters.
        start: offset of the payload.
        num_bytes: bytes of the payload, which may be more than the file has.
    """

    kind: bytes
    start: int
    num_bytes: int


def chunk(kind: bytes, *payload: bytes) -> bytes:
    """Returns a chunk; its payload is padded to an even number of bytes."""
    data = b"".join(payload)
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def uint24(value: int) -> bytes:
    """Returns a number as three bytes, the lowest first."""
    return value.to_bytes(3, "little")


def riff_header(num_bytes: int) -> bytes:
    """Returns the head of a WebP file of so many bytes in all."""
    return b"RIFF" + struct.pack("<I", num_bytes - 8) + b"WEBP"


def chunks(file: BinaryIO) -> Iterator[Chunk]:
    """Yields the chunks of a WebP file.

    Raises:
        ValueError: it is not one, or ends within a chunk's head.
    """
    file.seek(0)
    head = file.read(HEADER_BYTES)
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        raise ValueError("it does not begin as a WebP file")
    position, end = HEADER_BYTES, 8 + struct.unpack("<I", head[4:8])[0]
    while position < end:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends too early")
        found = Chunk(head[:4], position + 8, struct.unpack("<I", head[4:])[0])
        yield found
        position = found.start + found.num_bytes + found.num_bytes % 2


def read_xmp_text(path: Path) -> str | None:
    """Returns the text that `WebpEncoder` stored, or None where the file has none.

    Raises:
        ValueError: it is no WebP file, or what it holds is too large.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for found in chunks(file):
            if found.kind == b"XMP ":
                if found.num_bytes > MAX_PACKET_BYTES:
                    raise ValueError(f"its XMP of {found.num_bytes} bytes is too large")
                file.seek(found.start)
                return from_xmp(file.read(found.num_bytes))
    return None
