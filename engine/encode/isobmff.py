"""The boxes that AVIF files are made of: written, and searched for a text.

Called by `avif.py`, which fills them, and by the table of formats for the text in a file. The
invariant: reading takes memory for the index and the text alone, both bounded, however large the
file is or says it is.

Source: ISO/IEC 14496-12, ISO base media file format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from giffusion.engine.encode.xmp import MAX_PACKET_BYTES, from_xmp

XMP_TYPE = b"application/rdf+xml"
_MAX_META_BYTES = 2**24


def box(kind: bytes, *payload: bytes) -> bytes:
    """Returns a box of four letters with a payload."""
    data = b"".join(payload)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full_box(kind: bytes, version: int, flags: int, *payload: bytes) -> bytes:
    """Returns a box that says which version of its layout it has."""
    return box(kind, struct.pack(">I", version << 24 | flags), *payload)


def media_data_header(num_bytes: int) -> bytes:
    """Returns the head of the box that holds so many bytes of pictures."""
    # Always with 64 bits, so that its length does not depend on what it holds.
    return struct.pack(">I4sQ", 1, b"mdat", 16 + num_bytes)


def read_xmp_text(path: Path) -> str | None:
    """Returns the text that `AvifEncoder` stored, or None where the file has none.

    Raises:
        ValueError: it is no AVIF file, or what it holds is too large.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        for kind, start, end in _top_level(file):
            if kind != b"meta":
                continue
            if end - start > _MAX_META_BYTES:
                raise ValueError(f"its index of {end - start} bytes is too large")
            file.seek(start)
            meta = file.read(end - start)
            packet = _item(file, meta)
            return None if packet is None else from_xmp(packet)
    return None


def _top_level(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields (kind, start, end of the payload) of a file's outermost boxes."""
    size = file.seek(0, 2)
    if not size:
        raise ValueError("it is empty")
    position = 0
    while position < size:
        file.seek(position)
        head = file.read(16)
        if position == 0 and (head[4:8] != b"ftyp" or head[8:12] not in (b"avis", b"avif")):
            raise ValueError("it does not begin as an AVIF file")
        kind, start, position = _bounds(head, position, size)
        yield kind, start, position


def _bounds(head: bytes, position: int, size: int) -> tuple[bytes, int, int]:
    """Returns (kind, start, end) of the box whose first bytes are given."""
    length, kind = struct.unpack(">I4s", head[:8])
    start = position + 8
    if length == 1:
        length, start = struct.unpack(">Q", head[8:16])[0], position + 16
    end = size if length == 0 else position + length
    if not start <= end <= size:
        raise ValueError("it is cut short")
    return kind, start, end


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (kind, payload) of boxes that lie in memory."""
    position = 0
    while position < len(data):
        kind, start, end = _bounds(data[position : position + 16], position, len(data))
        yield kind, data[start:end]
        position = end


def _item(file: BinaryIO, meta: bytes) -> bytes | None:
    """Returns the XMP packet that a `meta` box lists, or None."""
    parts = dict(_boxes(meta[4:]))
    number = _xmp_number(parts.get(b"iinf", b""))
    if number is None:
        return None
    extents = dict(_locations(parts[b"iloc"])).get(number, [])
    if sum(length for _, length in extents) > MAX_PACKET_BYTES:
        raise ValueError("its XMP is too large")
    parts_of_packet = []
    for offset, length in extents:
        file.seek(offset)
        parts_of_packet.append(file.read(length))
    return b"".join(parts_of_packet)


def _xmp_number(items: bytes) -> int | None:
    """Returns the number of the item that is XMP in an `iinf` box, or None."""
    if not items:
        return None
    for kind, entry in _boxes(items[6 if items[0] == 0 else 8 :]):
        if kind != b"infe" or entry[0] not in (2, 3):
            continue
        layout = ">H" if entry[0] == 2 else ">I"
        number = int(struct.unpack_from(layout, entry, 4)[0])
        rest = entry[4 + struct.calcsize(layout) + 2 :]
        if rest[:4] == b"mime" and rest[4:].split(b"\0")[1:2] == [XMP_TYPE]:
            return number
    return None


def _locations(places: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yields (item's number, its extents as (offset, length)) of an `iloc` box."""
    version, sizes = places[0], struct.unpack_from(">H", places, 4)[0]
    offset_bytes, length_bytes, base_bytes, index_bytes = (
        sizes >> shift & 0xF for shift in (12, 8, 4, 0)
    )
    reader = _Reader(places, 6)
    number_bytes = 2 if version < 2 else 4
    for _ in range(reader.take(number_bytes)):
        number = reader.take(number_bytes)
        elsewhere = reader.take(2) if version else 0
        reader.take(2)
        base = reader.take(base_bytes)
        extents = []
        num_extents = reader.take(2)
        if num_extents > 1 and not length_bytes:
            # Numbers without bytes could be counted for hours.
            raise ValueError("its index is damaged")
        for _ in range(num_extents):
            reader.take(index_bytes if version else 0)
            extents.append((base + reader.take(offset_bytes), reader.take(length_bytes)))
        if not elsewhere:
            yield number, extents


class _Reader:
    """Takes numbers off a row of bytes, the highest byte first."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def take(self, num_bytes: int) -> int:
        start, self._position = self._position, self._position + num_bytes
        if self._position > len(self._data):
            raise ValueError("its index is cut short")
        return int.from_bytes(self._data[start : self._position], "big")
