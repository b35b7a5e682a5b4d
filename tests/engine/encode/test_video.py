"""MP4: what the pictures, the rate, the colours and the structure of a file read back as."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from giffusion.engine.encode.formats import Frame, VideoSpec
from giffusion.engine.encode.video import Mp4Encoder, open_video, read_tag, to_yuv420p
from giffusion.engine.errors import RenderError

WIDTH, HEIGHT = SIZE = (96, 64)


def picture(index: int) -> Frame:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin((x + 3 * index) / 20), np.sin((y - 2 * index) / 15), np.cos((x + y) / 30)]
    return (127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)


def encode(path: Path, num_frames: int, fps: Fraction = Fraction(24), metadata: str = "") -> None:
    encoder = Mp4Encoder(path, VideoSpec(SIZE, fps, num_frames, metadata))
    for index in range(num_frames):
        encoder.write(picture(index))
    encoder.finish()


def test_the_pictures_come_back_in_order(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 30)
    with open_video(tmp_path / "a.mp4") as container:
        decoded = [_rgb(frame) for frame in container.decode(video=0)]
    assert len(decoded) == 30
    for index, frame in enumerate(decoded):
        assert _psnr(frame, picture(index)) > 35
        assert _psnr(frame, picture(index)) > _psnr(frame, picture(index + 1))


@pytest.mark.parametrize(
    "fps", ["24", "30000/1001", "20", "2997/125", "7/3", "1/3", "1/1000", "1000"]
)
@pytest.mark.parametrize("num_frames", [1, 7])
def test_rate_times_and_duration_are_exact(tmp_path: Path, fps: str, num_frames: int) -> None:
    rate = Fraction(fps)
    encode(tmp_path / "a.mp4", num_frames, rate)
    with open_video(tmp_path / "a.mp4") as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        base = stream.time_base
        assert base is not None
        assert (stream.duration or 0) * base == num_frames / rate
        times = [(frame.pts or 0) * base for frame in container.decode(stream)]
    assert times == [index / rate for index in range(num_frames)]


def test_colours_are_limited_range_bt709_and_say_so(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 2)
    with open_video(tmp_path / "a.mp4") as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        assert codec.color_range == ColorRange.MPEG
        assert codec.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    "rgb",
    [
        (255, 255, 255),
        (0, 0, 0),
        (255, 0, 0),
        (0, 255, 0),
        (0, 0, 255),
        (200, 130, 90),
        (7, 99, 180),
    ],
)
def test_the_conversion_follows_the_standards_formula(rgb: tuple[int, int, int]) -> None:
    """ITU-R BT.709-6, section 3, in 8 bits."""
    frame = np.full((16, 16, 3), rgb, np.uint8)
    planes = to_yuv420p(VideoFrame.from_ndarray(frame, format="rgb24")).to_ndarray()
    found = planes[4, 4], planes[18, 4], planes[22, 4]
    red, green, blue = (value / 255 for value in rgb)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    expected = (
        16 + 219 * luma,
        128 + 224 * (blue - luma) / 1.8556,
        128 + 224 * (red - luma) / 1.5748,
    )
    assert np.abs(np.array(found, float) - expected).max() <= 1


def test_a_browser_can_begin_before_it_has_the_whole_file(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 5)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_the_text_stands_under_its_own_name_and_as_the_comment(tmp_path: Path) -> None:
    text = '{"é": "' + "x" * 200_000 + '"}'
    encode(tmp_path / "a.mp4", 1, metadata=text)
    assert read_tag(tmp_path / "a.mp4") == text
    with open_video(tmp_path / "a.mp4") as container:
        assert container.metadata["comment"] == text
        assert "creation_time" not in container.metadata


def test_finishing_again_changes_nothing(tmp_path: Path) -> None:
    encoder = Mp4Encoder(tmp_path / "a.mp4", VideoSpec(SIZE, Fraction(24), 1, ""))
    encoder.write(picture(0))
    encoder.finish()
    before = (tmp_path / "a.mp4").read_bytes()
    encoder.finish()
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_a_file_that_lost_frames_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    encoder = Mp4Encoder(path, VideoSpec(SIZE, Fraction(24), 9, ""))
    for index in range(9):
        encoder.write(picture(index))
    encoder.finish()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RenderError, match="reads back as"):
        encoder.finish()


def test_discarding_removes_the_file_and_may_be_repeated(tmp_path: Path) -> None:
    encoder = Mp4Encoder(tmp_path / "a.mp4", VideoSpec(SIZE, Fraction(24), 99, ""))
    for index in range(99):
        encoder.write(picture(index))
    encoder.discard()
    encoder.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_never_taken_for_a_protocol_or_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("pipe:%d #?.mp4")
    encode(path, 1, metadata="{}")
    assert read_tag(path) == "{}"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 1)
    crafted = tmp_path / "b.mp4"
    crafted.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.mp4\n")
    with pytest.raises(av.error.FFmpegError):
        read_tag(crafted)


def _rgb(frame: VideoFrame) -> Frame:
    picture = frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return picture.to_ndarray().astype(np.uint8, copy=False)


def _psnr(first: Frame, second: Frame) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error))
