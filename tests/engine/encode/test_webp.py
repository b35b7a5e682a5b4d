"""WebP: chunks, boxes, pictures and times as real decoders find them; crafted files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import webp as webp_module
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.limits import duration_ms
from giffusion.engine.encode.riff import chunk, chunks, read_xmp_text, riff_header
from giffusion.engine.encode.webp import WebpEncoder
from giffusion.engine.encode.xmp import MAX_PACKET_BYTES, to_xmp
from giffusion.engine.errors import RenderError
from tests.engine.encode.files import decode_animation as decode
from tests.engine.encode.files import encode_animation, write_all
from tests.engine.encode.pictures import SIZE, square_error
from tests.engine.encode.pictures import rgb_picture as picture

WEBP = EncoderChoice(ENCODERS["libwebp"])

encode = partial(encode_animation, WebpEncoder, WEBP)


def test_the_pictures_come_back_in_order(tmp_path: Path) -> None:
    frames = [picture(index) for index in range(20)]
    encode(tmp_path / "a.webp", frames).discard()
    decoded, _ = decode(tmp_path / "a.webp")
    assert len(decoded) == 20
    for index, frame in enumerate(decoded):
        assert min(range(20), key=lambda other: square_error(frame, frames[other])) == index
        assert square_error(frame, frames[index]) < 255**2 / 10**3.5


@pytest.mark.parametrize("fps", ["20", "24", "90", "30000/1001", "1/3", "1/10000"])
def test_durations_add_up_to_the_exact_time(tmp_path: Path, fps: str) -> None:
    rate = Fraction(fps)
    encode(tmp_path / "a.webp", [picture(index) for index in range(25)], rate).discard()
    _, durations = decode(tmp_path / "a.webp")
    assert durations == [duration_ms(index, rate) for index in range(25)]
    assert sum(durations) == round(25_000 / rate)


@pytest.mark.parametrize("size", [(1, 1), (97, 33), (3, 200)])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_any_size_and_a_single_frame_work(
    tmp_path: Path, size: tuple[int, int], num_frames: int
) -> None:
    frames = [np.full((*size[::-1], 3), 200 * index, np.uint8) for index in range(num_frames)]
    encode(tmp_path / "a.webp", frames).discard()
    decoded, _ = decode(tmp_path / "a.webp")
    assert np.abs(np.array(decoded, int) - np.array(frames, int)).max() <= 2


def test_frames_that_are_alike_are_all_there(tmp_path: Path) -> None:
    frames = [picture(0)] * 5 + [picture(1)] + [picture(0)] * 4
    encode(tmp_path / "a.webp", frames).discard()
    decoded, durations = decode(tmp_path / "a.webp")
    assert durations == [50] * 10
    assert square_error(decoded[0], decoded[4]) < 1  # one pixel is drawn again
    assert square_error(decoded[0], decoded[5]) > 50
    assert square_error(decoded[0], decoded[9]) < 5


@pytest.mark.parametrize(
    ("changed", "drawn"),
    [((30, 10, 35, 20), (30, 10, 5, 10)), ((31, 11, 33, 12), (30, 10, 3, 2))],
)
def test_only_what_changed_is_drawn_from_an_even_place(
    tmp_path: Path, changed: tuple[int, int, int, int], drawn: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = changed
    still, moved = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    moved[top:bottom, left:right] = 255
    encode(tmp_path / "a.webp", [still, moved]).discard()
    with (tmp_path / "a.webp").open("rb") as file:
        second = [found for found in chunks(file) if found.kind == b"ANMF"][1]
        file.seek(second.start)
        x, y, w, h = (int.from_bytes(file.read(3), "little") for _ in range(4))
    assert (2 * x, 2 * y, w + 1, h + 1) == drawn
    assert square_error(decode(tmp_path / "a.webp")[0][1], moved) < 50


def test_it_loops_forever_and_carries_its_text_as_xmp(tmp_path: Path) -> None:
    text = "é<&" + "x" * 1_000_001
    encode(tmp_path / "a.webp", [picture(0), picture(1)], metadata=text).discard()
    assert read_xmp_text(tmp_path / "a.webp") == text
    with Image.open(tmp_path / "a.webp") as file:
        assert file.info["loop"] == 0
        assert file.info["xmp"] == to_xmp(text)


def test_finishing_again_changes_nothing(tmp_path: Path) -> None:
    encoder = encode(tmp_path / "a.webp", [picture(0), picture(1)], metadata="abc")
    before = (tmp_path / "a.webp").read_bytes()
    encoder.finish()
    assert (tmp_path / "a.webp").read_bytes() == before
    encoder.discard()
    encoder.discard()


@pytest.mark.parametrize("num_lost", [1, 300, 1500])
def test_a_file_that_lost_its_end_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_lost: int
) -> None:
    path = tmp_path / "a.webp"
    encoder = encode(path, [picture(index) for index in range(5)], metadata="abc")
    verify: Callable[..., None] = webp_module._verify

    def cut(*arguments: object) -> None:
        path.write_bytes(path.read_bytes()[:-num_lost])
        verify(*arguments)

    monkeypatch.setattr(webp_module, "_verify", cut)
    with pytest.raises((RenderError, ValueError), match=r"reads back as|ends too early"):
        encoder.finish()
    encoder.discard()


def test_a_file_too_large_for_its_own_counting_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webp_module, "MAX_FILE_BYTES", 4000)
    encoder = WebpEncoder(tmp_path / "a.webp", VideoSpec(SIZE, Fraction(24), 50, "", WEBP))
    with pytest.raises(RenderError, match="a WebP holds at most 4 GiB, which are full after"):
        write_all(encoder, map(picture, range(50)))
    encoder.discard()
    assert (tmp_path / "a.webp").stat().st_size <= 4000


def webp(*parts: bytes, size: int | None = None) -> bytes:
    data = b"".join(parts)
    return riff_header(12 + len(data) if size is None else size) + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as a WebP"),
        (b"RIFF\0\0\0\0WAVE", "does not begin as a WebP"),
        (webp(b"XMP \xff\xff\xff\xff"), "is too large"),
        (webp(struct.pack("<4sI", b"XMP ", MAX_PACKET_BYTES + 1)), "is too large"),
        (webp(b"VP8X", size=2**31), "ends too early"),
        (webp(chunk(b"VP8X", b""), size=2**31), "ends too early"),
    ],
)
def test_crafted_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.webp").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_xmp_text(tmp_path / "a.webp")


def test_a_picture_of_someone_elses_has_no_text(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.webp")
    assert read_xmp_text(tmp_path / "a.webp") is None
    Image.fromarray(picture(0)).save(tmp_path / "b.webp", xmp=b"<x:xmpmeta/>")
    assert read_xmp_text(tmp_path / "b.webp") is None
    Image.fromarray(picture(0)).save(tmp_path / "c.webp", xmp=to_xmp("mine"))
    assert read_xmp_text(tmp_path / "c.webp") == "mine"
