"""AVIF: what Pillow (libavif) and FFmpeg find in a file; crafted files."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from giffusion.engine.encode.avif import AvifEncoder
from giffusion.engine.encode.containers import MP4, open_video
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.isobmff import XMP_TYPE, box, full_box, read_xmp_text
from giffusion.engine.encode.xmp import to_xmp
from giffusion.engine.errors import RenderError
from tests.engine.encode.files import finished
from tests.engine.encode.pictures import SIZE

AV1 = EncoderChoice(ENCODERS["libsvtav1"])


def picture(index: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Returns one NV12 frame, a grey that grows brighter from left to right and with time."""
    width, height = size
    frame = np.full((height * 3 // 2, width), 128, np.uint8)
    frame[:height] = np.linspace(30, 200, width) + index
    return frame


def encode(
    path: Path,
    num_frames: int,
    fps: Fraction = Fraction(24),
    metadata: str = "",
    size: tuple[int, int] = SIZE,
) -> AvifEncoder:
    encoder = AvifEncoder(path, VideoSpec(size, fps, num_frames, metadata, AV1))
    return finished(encoder, (picture(index, size) for index in range(num_frames)))


@pytest.mark.parametrize(
    "fps", ["24", "30000/1001", "2997/125", "7/3", "1/3", "1/1000", "90", "6172839/500000"]
)
@pytest.mark.parametrize("num_frames", [1, 7])
def test_rate_times_and_duration_are_exact(tmp_path: Path, fps: str, num_frames: int) -> None:
    rate = Fraction(fps)
    encode(tmp_path / "a.avif", num_frames, rate).discard()
    with open_video(tmp_path / "a.avif", MP4) as container:
        stream = container.streams.video[-1]
        base = stream.time_base
        assert base is not None
        assert (stream.duration or 0) * base == num_frames / rate
        assert stream.average_rate == rate
        times = [(frame.pts or 0) * base for frame in container.decode(stream)]
    assert times == [index / rate for index in range(num_frames)]


def test_every_frame_is_there_for_libavif(tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", 30, Fraction(20)).discard()
    with Image.open(tmp_path / "a.avif", formats=["AVIF"]) as file:
        assert (file.size, getattr(file, "n_frames", 0)) == (SIZE, 30)
        shown = []
        for index, frame in enumerate(ImageSequence.Iterator(file)):
            frame.load()
            assert (frame.info["timestamp"], frame.info["duration"]) == (50 * index, 50)
            shown.append(float(np.asarray(frame.convert("L")).mean()))
    steps = np.diff(shown)
    # Full range: a step of limited luma is 255 / 219.
    assert steps.mean() == pytest.approx(255 / 219, abs=0.05)
    assert steps.min() > 0


def test_a_reader_without_animation_finds_the_first_frame(tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", 9).discard()
    data = (tmp_path / "a.avif").read_bytes()
    # Without the animation's brand and its track: a still picture.
    still = data.replace(b"ftypavis", b"ftypavif", 1).replace(b"avis", b"free")
    (tmp_path / "b.avif").write_bytes(still.replace(b"moov", b"free", 1))
    with Image.open(tmp_path / "b.avif", formats=["AVIF"]) as file:
        assert getattr(file, "n_frames", 1) == 1
        found = np.asarray(file.convert("L"), float)
    expected = (picture(0)[:64].astype(float) - 16) * 255 / 219
    assert np.abs(found - expected).mean() < 2


def test_colours_are_pictures_colours_in_limited_range(tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", 2).discard()
    with open_video(tmp_path / "a.avif", MP4) as container:
        frame = next(container.decode(container.streams.video[-1]))
        codec = container.streams.video[-1].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 13, 1)
        assert (frame.format.name, int(codec.color_range)) == ("yuv420p", 1)


@pytest.mark.parametrize("size", [(4, 4), (6, 10), (64, 32), (200, 72)])
def test_small_and_odd_shaped_pictures_work(tmp_path: Path, size: tuple[int, int]) -> None:
    encode(tmp_path / "a.avif", 3, size=size).discard()
    with Image.open(tmp_path / "a.avif") as file:
        assert (file.size, getattr(file, "n_frames", 0)) == (size, 3)


@pytest.mark.parametrize("length", [1, 1_000_000])
def test_the_text_is_xmp_of_the_picture_and_of_the_animation(tmp_path: Path, length: int) -> None:
    text = "é<&" + "x" * length
    encode(tmp_path / "a.avif", 2, metadata=text).discard()
    assert read_xmp_text(tmp_path / "a.avif") == text
    with Image.open(tmp_path / "a.avif") as file:
        assert file.info["xmp"] == to_xmp(text)


def test_it_loops_forever(tmp_path: Path) -> None:
    """Tracks of no certain length, whose edit list repeats: ISO/IEC 23008-12, 9.6.1."""
    encode(tmp_path / "a.avif", 2).discard()
    data = (tmp_path / "a.avif").read_bytes()
    edits, track = data.index(b"elst"), data.index(b"tkhd")
    assert data[edits + 4 : edits + 8] == b"\1\0\0\1"
    assert data[track + 32 : track + 40] == b"\xff" * 8


def test_a_browser_has_the_index_first(tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", 5).discard()
    data = (tmp_path / "a.avif").read_bytes()
    assert data[4:12] == b"ftypavis"
    assert data.index(b"meta") < data.index(b"moov") < data.index(b"mdat")


def test_finishing_again_changes_nothing(tmp_path: Path) -> None:
    encoder = encode(tmp_path / "a.avif", 5, metadata="abc")
    before = (tmp_path / "a.avif").read_bytes()
    encoder.finish()
    assert (tmp_path / "a.avif").read_bytes() == before
    encoder.discard()
    encoder.discard()


def test_a_file_that_lost_frames_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encode(tmp_path / "a.avif", 5)
    packets = list(encoder._packets())
    monkeypatch.setattr(encoder, "_packets", lambda: iter(packets[:3]))
    with pytest.raises(RenderError, match="the AVIF reads back as"):
        encoder.finish()
    encoder.discard()


def test_a_stopped_encoder_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    encoder = AvifEncoder(tmp_path / "a.avif", VideoSpec(SIZE, Fraction(24), 99, "", AV1))
    for index in range(99):
        encoder.write(picture(index))
    encoder.discard()
    del encoder
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


FTYP = box(b"ftyp", b"avif", b"\0" * 4, b"mif1")
ENTRY = full_box(b"infe", 2, 0, struct.pack(">HH", 2, 0), b"mime", b"XMP\0", XMP_TYPE + b"\0")
ITEMS = full_box(b"iinf", 0, 0, struct.pack(">H", 1), ENTRY)


def located(version: int, sizes: int, *fields: bytes) -> bytes:
    places = full_box(b"iloc", version, 0, struct.pack(">H", sizes), *fields)
    return FTYP + full_box(b"meta", 0, 0, ITEMS, places)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"abc", "does not begin as an AVIF"),
        (box(b"ftyp", b"isom", b"\0" * 4), "does not begin as an AVIF"),
        (FTYP + struct.pack(">I4s", 2**20, b"meta"), "is cut short"),
        (FTYP + struct.pack(">I4s", 4, b"meta"), "is cut short"),
        (FTYP + full_box(b"meta", 0, 0, b"\0" * 2**24), "index of .* bytes is too large"),
        (located(0, 0x4400, struct.pack(">H", 9)), "index is cut short"),
        (
            located(0, 0x4400, struct.pack(">HHHHII", 1, 2, 0, 1, 0, 2**31)),
            "its XMP is too large",
        ),
        (located(0, 0, struct.pack(">HHHH", 1, 2, 0, 65535)), "index is damaged"),
    ],
)
def test_crafted_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.avif").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_xmp_text(tmp_path / "a.avif")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_other_writers_layouts_are_read(tmp_path: Path, version: int) -> None:
    """Numbers of 16 and 32 bits, a base and two extents."""
    packet = to_xmp("a text")
    count = struct.pack(">H" if version < 2 else ">I", 1)
    number = struct.pack(">H" if version < 2 else ">I", 2) + (b"\0\0" if version else b"")

    def layout(base: int) -> bytes:
        place = struct.pack(">HIHIIII", 0, base, 2, 0, 10, 10, len(packet) - 10)
        return located(version, 0x4440, count, number, place)

    data = layout(len(layout(0)) + 8) + box(b"mdat", packet)
    (tmp_path / "a.avif").write_bytes(data)
    assert read_xmp_text(tmp_path / "a.avif") == "a text"


def test_a_picture_of_someone_elses_has_no_text(tmp_path: Path) -> None:
    grey = Image.new("RGB", (16, 16), "grey")
    grey.save(tmp_path / "a.avif")
    assert read_xmp_text(tmp_path / "a.avif") is None
    grey.save(tmp_path / "b.avif", xmp=to_xmp("mine"))
    assert read_xmp_text(tmp_path / "b.avif") == "mine"


def test_what_is_set_aside_has_no_name(tmp_path: Path) -> None:
    encoder = AvifEncoder(tmp_path / "a.avif", VideoSpec(SIZE, Fraction(24), 1, "", AV1))
    encoder.write(picture(0))
    assert list(tmp_path.iterdir()) == []
    encoder.discard()


def test_ffmpeg_decodes_the_frames_that_were_given(tmp_path: Path) -> None:
    encode(tmp_path / "a.avif", 12).discard()
    with av.open(str(tmp_path / "a.avif")) as container:
        decoded = list(container.decode(container.streams.video[-1]))
    assert len(decoded) == 12
    for index, frame in enumerate(decoded):
        luma = frame.to_ndarray()[:64].astype(float)
        assert np.abs(luma - picture(index)[:64]).mean() < 1
