"""The index of an animated AVIF: what it shows at first, how long each frame lasts, where each is.

Called by `avif.py`. Pure: numbers in, bytes out. The index stands before the pictures, so that a
browser can show them as they come. The invariant: nothing in it depends on the machine or the time.

Sources: AOMedia, AV1 Image File Format, and AV1 Codec ISO Media File Format Binding; ISO/IEC
14496-12 (tracks), 23008-12 (items and image sequences).
"""

from __future__ import annotations

import struct
import sys
from array import array
from dataclasses import dataclass
from fractions import Fraction

from giffusion.engine.encode.containers import exact_timescale
from giffusion.engine.encode.formats import Size
from giffusion.engine.encode.isobmff import XMP_TYPE, box, full_box, media_data_header

# Primaries and matrix of BT.709 as in video, and the transfer of sRGB, as in other pictures.
_BT709, TRANSFER, _LIMITED = 1, 13, 0
_PICTURE, _XMP = 1, 2  # the items' numbers
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_FOREVER = 2**64 - 1
_UNDETERMINED = 0x55C4  # the language
_SHOWN, _REPEATED, _SAME_FILE = 1, 1, 1  # flags of tkhd, elst, url


@dataclass(frozen=True, slots=True)
class Animation:
    """What the index is made from.

    Args:
        size: (width, height) in pixels.
        fps: frames a second, exact.
        sizes: bytes of each frame.
        key_frames: numbers, from 1, of the frames that need no other.
        config: the payload of AV1's configuration box.
        xmp: the packet that stands before the first frame, empty for none.
    """

    size: Size
    fps: Fraction
    sizes: array[int]
    key_frames: array[int]
    config: bytes
    xmp: bytes

    @property
    def timescale(self) -> int:
        """Ticks a second; a frame lasts a whole number of them."""
        return exact_timescale(self.fps)

    @property
    def frame_ticks(self) -> int:
        """Ticks that a frame lasts."""
        return int(self.timescale / self.fps)

    @property
    def num_ticks(self) -> int:
        """Ticks that all frames last."""
        return self.frame_ticks * len(self.sizes)


def head(animation: Animation) -> bytes:
    """Returns all that stands before the packet of XMP, the frames directly behind it."""
    num_bytes = len(animation.xmp) + sum(animation.sizes)
    media = media_data_header(num_bytes)
    # The index says where the data begin, and how long it is does not depend on that.
    start = len(_index(animation, 0)) + len(media)
    return _index(animation, start) + media


def _index(animation: Animation, start: int) -> bytes:
    brands = b"avis", b"\0" * 4, b"avif", b"avis", b"msf1", b"iso8", b"mif1", b"miaf", b"MA1B"
    return box(b"ftyp", *brands) + _still(animation, start) + _movie(animation, start)


def _still(animation: Animation, start: int) -> bytes:
    """Returns the first frame as a picture of its own, for readers that know no animation."""
    items = [full_box(b"infe", 2, 0, struct.pack(">HH", _PICTURE, 0), b"av01", b"Color\0")]
    places = [(_PICTURE, start + len(animation.xmp), animation.sizes[0])]
    describes = b""
    if animation.xmp:
        items.append(_xmp_item())
        places.append((_XMP, start, len(animation.xmp)))
        reference = box(b"cdsc", struct.pack(">HHH", _XMP, 1, _PICTURE))
        describes = full_box(b"iref", 0, 0, reference)
    return full_box(
        b"meta",
        0,
        0,
        _handler(),
        full_box(b"pitm", 0, 0, struct.pack(">H", _PICTURE)),
        _locations(places),
        full_box(b"iinf", 0, 0, struct.pack(">H", len(items)), *items),
        describes,
        box(b"iprp", *_properties(animation)),
    )


def _properties(animation: Animation) -> tuple[bytes, bytes]:
    """Returns what is said of the picture, and that it is said of that one."""
    known = (
        full_box(b"ispe", 0, 0, struct.pack(">II", *animation.size)),
        full_box(b"pixi", 0, 0, bytes([3, 8, 8, 8])),
        box(b"av1C", animation.config),
        _colours(),
    )
    # The highest bit: a reader that does not understand this one cannot show the picture.
    numbers = bytes([1, 2, 3 | 0x80, 4])
    said = struct.pack(">IHB", 1, _PICTURE, len(numbers)) + numbers
    return box(b"ipco", *known), full_box(b"ipma", 0, 0, said)


def _movie(animation: Animation, start: int) -> bytes:
    times = struct.pack(">QQIQ", 0, 0, animation.timescale, _FOREVER)
    header = struct.pack(">IHHQ", 0x10000, 0x100, 0, 0) + _MATRIX + struct.pack(">6II", *[0] * 6, 2)
    return box(
        b"moov",
        full_box(b"mvhd", 1, 0, times, header),
        box(
            b"trak",
            _track_header(animation),
            _edit_list(animation),
            _track_text(animation, start),
            _media(animation, start),
        ),
    )


def _track_header(animation: Animation) -> bytes:
    times = struct.pack(">QQIIQ", 0, 0, 1, 0, _FOREVER)
    place = struct.pack(">QHHHH", 0, 0, 0, 0, 0) + _MATRIX
    width, height = animation.size
    return full_box(b"tkhd", 1, _SHOWN, times, place, struct.pack(">II", width << 16, height << 16))


def _edit_list(animation: Animation) -> bytes:
    """Returns what makes a track loop: its own length, repeated for as long as it lasts."""
    edit = struct.pack(">IQqHH", 1, animation.num_ticks, 0, 1, 0)
    return box(b"edts", full_box(b"elst", 1, _REPEATED, edit))


def _track_text(animation: Animation, start: int) -> bytes:
    """Returns the text once more: readers that show the track look here."""
    if not animation.xmp:
        return b""
    items = full_box(b"iinf", 0, 0, struct.pack(">H", 1), _xmp_item())
    places = _locations([(_XMP, start, len(animation.xmp))])
    return full_box(b"meta", 0, 0, _handler(), places, items)


def _media(animation: Animation, start: int) -> bytes:
    times = struct.pack(">QQIQ", 0, 0, animation.timescale, animation.num_ticks)
    here = full_box(b"dref", 0, 0, struct.pack(">I", 1), full_box(b"url ", 0, _SAME_FILE))
    return box(
        b"mdia",
        full_box(b"mdhd", 1, 0, times, struct.pack(">HH", _UNDETERMINED, 0)),
        _handler(),
        box(
            b"minf",
            full_box(b"vmhd", 0, 1, b"\0" * 8),
            box(b"dinf", here),
            _samples(animation, start),
        ),
    )


def _samples(animation: Animation, start: int) -> bytes:
    """Returns the table of frames; they lie one behind the other, in one piece."""
    number, sizes, keys = len(animation.sizes), animation.sizes, animation.key_frames
    first = start + len(animation.xmp)
    return box(
        b"stbl",
        full_box(b"stsd", 0, 0, struct.pack(">I", 1), _sample_entry(animation)),
        full_box(b"stts", 0, 0, struct.pack(">III", 1, number, animation.frame_ticks)),
        full_box(b"stsc", 0, 0, struct.pack(">4I", 1, 1, number, 1)),
        full_box(b"stsz", 0, 0, struct.pack(">II", 0, number), _uint32s(sizes)),
        full_box(b"stco", 0, 0, struct.pack(">II", 1, first)),
        full_box(b"stss", 0, 0, struct.pack(">I", len(keys)), _uint32s(keys)),
    )


def _sample_entry(animation: Animation) -> bytes:
    dots_an_inch, name = 72 << 16, b"\x0aAOM Coding".ljust(32, b"\0")
    entry = struct.pack(">6xHHH12xHHIII", 1, 0, 0, *animation.size, dots_an_inch, dots_an_inch, 0)
    depth = struct.pack(">H32sHh", 1, name, 24, -1)
    # Frames may be predicted from any before them, of which up to 15 are kept.
    constraints = full_box(b"ccst", 0, 0, struct.pack(">I", 0x7C << 24))
    return box(b"av01", entry, depth, box(b"av1C", animation.config), _colours(), constraints)


def _colours() -> bytes:
    return box(b"colr", b"nclx", struct.pack(">HHHB", _BT709, TRANSFER, _BT709, _LIMITED))


def _handler() -> bytes:
    return full_box(b"hdlr", 0, 0, b"\0" * 4, b"pict", b"\0" * 13)


def _xmp_item() -> bytes:
    numbers = struct.pack(">HH", _XMP, 0)
    return full_box(b"infe", 2, 0, numbers, b"mime", b"XMP\0", XMP_TYPE + b"\0")


def _locations(places: list[tuple[int, int, int]]) -> bytes:
    """Returns where items lie, as (number, offset, bytes) of each."""
    entries = [struct.pack(">HHHII", number, 0, 1, *extent) for number, *extent in places]
    return full_box(b"iloc", 0, 0, struct.pack(">HH", 0x4400, len(places)), *entries)


def _uint32s(values: array[int]) -> bytes:
    data = array("I", values)
    if sys.byteorder == "little":
        data.byteswap()
    return data.tobytes()
