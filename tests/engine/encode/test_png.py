"""PNG sequences: pictures without loss, the text in each; crafted files; full disks."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import open_writer, read_metadata
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import RgbFrame, VideoSpec
from giffusion.engine.encode.png import PngEncoder, read_text
from giffusion.engine.errors import DiskFullError, InputError, RenderError

SIZE = (97, 33)
PNG = EncoderChoice(ENCODERS["png"])
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def noise(index: int) -> RgbFrame:
    width, height = SIZE
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(folder: Path, num_frames: int = 3, metadata: str = "") -> PngEncoder:
    spec = VideoSpec(SIZE, Fraction(24), num_frames, metadata, PNG)
    encoder = PngEncoder(folder / "%03d.png", spec)
    for index in range(num_frames):
        encoder.write(noise(index))
    encoder.finish()
    return encoder


def test_pictures_come_back_bit_for_bit(tmp_path: Path) -> None:
    encode(tmp_path).discard()
    assert sorted(os.listdir(tmp_path)) == ["000.png", "001.png", "002.png"]
    for index in range(3):
        with Image.open(tmp_path / f"{index:03d}.png") as picture:
            assert picture.mode == "RGB"
            assert np.array_equal(np.asarray(picture), noise(index))


def test_each_carries_the_text_as_others_read_it(tmp_path: Path) -> None:
    text = 'é🦁\r\n"' + "x" * 100_000
    encode(tmp_path, metadata=text)
    for index in range(3):
        path = tmp_path / f"{index:03d}.png"
        assert read_text(path) == text
        with Image.open(path) as picture:
            assert getattr(picture, "text", {}) == {"giffusion": text}
        # It is compressed.
        assert len(path.read_bytes()) < 40_000


def test_a_sequence_is_read_by_folder_pattern_or_picture(tmp_path: Path) -> None:
    encode(tmp_path, metadata="plan")
    (tmp_path / "zzz.png").write_bytes(b"of another kind")
    for path in (tmp_path, tmp_path / "%03d.png", tmp_path / "002.png"):
        assert read_metadata(path) == "plan"


@pytest.mark.parametrize("name", ["", "%d.png", "1.png"])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot be read as PNG: (it holds no picture|No such)"):
        read_metadata(tmp_path / name)


def test_a_name_with_a_percent_sign_may_be_a_picture(tmp_path: Path) -> None:
    encode(tmp_path, metadata="plan")
    (tmp_path / "000.png").rename(tmp_path / "a%d.png")
    assert read_metadata(tmp_path / "a%d.png") == "plan"


@pytest.mark.parametrize("fault", ["missing", "more", "cut", "other"])
def test_a_sequence_that_lost_something_is_noticed(tmp_path: Path, fault: str) -> None:
    encoder = encode(tmp_path)
    path = tmp_path / "001.png"
    if fault == "missing":
        path.unlink()
    elif fault == "more":
        (tmp_path / "note").write_bytes(b"")
    elif fault == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(RenderError, match="render it again"):
        encoder.finish()


def chunk(kind: bytes, payload: bytes, length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return struct.pack(">I", size) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def text_chunk(payload: bytes) -> bytes:
    return SIGNATURE + chunk(b"iTXt", payload) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as a PNG"),
        (b"GIF89a", "does not begin as a PNG"),
        (SIGNATURE, "ends too early"),
        (SIGNATURE + chunk(b"iTXt", b"", 2**31), "text of 2147483648 bytes is too large"),
        (SIGNATURE + chunk(b"IDAT", b"", 2**31), "ends too early"),
        (text_chunk(b"giffusion\0\1\0\0\0" + zlib.compress(b"a" * 99)[:-6]), "cut short or too"),
        (
            text_chunk(b"giffusion\0\1\0\0\0" + zlib.compress(b"\0" * (2**26 + 1))),
            "cut short or too large",
        ),
    ],
    ids=["empty", "gif", "end", "length", "picture", "cut", "bomb"],
)
def test_crafted_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_text(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"Comment\0\0\0\0\0mine", None),
        (b"giffusion\0\0\0en\0Plan\0plain", "plain"),
        (b"giffusion\0\0\0\0\0", ""),
    ],
)
def test_texts_that_others_wrote(tmp_path: Path, payload: bytes, text: str | None) -> None:
    (tmp_path / "a.png").write_bytes(text_chunk(payload))
    assert read_text(tmp_path / "a.png") == text


def _fill(folder: Path, num_frames: int) -> str:
    """Renders a sequence until the disk is full; returns what was said then, or nothing."""
    writer = open_writer(
        folder / "a" / "%d.png", size=SIZE, fps=Fraction(24), num_frames=num_frames, metadata="{}"
    )
    try:
        with writer:
            for index in range(num_frames):
                writer.write(index, noise(index))
    except DiskFullError as error:
        return str(error)
    return ""


def test_a_full_disk_is_told_and_left_clean(small_disk: Callable[[int], Path]) -> None:
    for num_kib, fits in ((64, False), (300, False), (600, False), (4000, True)):
        folder = small_disk(1024 * num_kib)
        said = _fill(folder, 60)
        assert said.startswith("" if fits else f"no space left in {folder} after ")
        assert os.listdir(folder) == (["a"] if fits else [])
        assert fits is (not said)
