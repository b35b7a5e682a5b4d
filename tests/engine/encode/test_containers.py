"""WebM beside MP4: times, rate, text and structure of a file; what is never opened."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import pytest
from av.video.reformatter import ColorRange
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.containers import MP4, WEBM, exact_timescale, open_video, read_tag
from giffusion.engine.encode.encoders import ENCODERS
from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.encode.video import WebmEncoder
from giffusion.engine.errors import RenderError
from tests.engine.encode.files import encode_video, video_spec, write_all
from tests.engine.encode.pictures import nv12_picture as picture

ENCODERS_OF_WEBM = FORMATS[".webm"].encoders
CUES, CLUSTER = b"\x1c\x53\xbb\x6b", b"\x1f\x43\xb6\x75"

encode = partial(encode_video, WebmEncoder, encoder="libvpx-vp9")


@pytest.mark.parametrize("encoder", ENCODERS_OF_WEBM)
@pytest.mark.parametrize(
    "fps",
    ["24", "30000/1001", "2997/125", "7/3", "1/3", "1/1000", "240", "1000", "6172839/500000"],
)
@pytest.mark.parametrize("num_frames", [1, 4, 7])
def test_times_are_the_exact_ones_rounded_to_milliseconds(
    tmp_path: Path, encoder: str, fps: str, num_frames: int
) -> None:
    rate = Fraction(fps)
    if rate > (ENCODERS[encoder].max_fps or rate):
        pytest.skip(f"{encoder} takes at most {ENCODERS[encoder].max_fps} frames a second")
    encode(tmp_path / "a.webm", num_frames, rate, encoder=encoder)
    with open_video(tmp_path / "a.webm", WEBM) as container:
        stream = container.streams.video[0]
        assert stream.average_rate is not None
        assert WEBM.is_rate(stream.average_rate, rate)
        assert stream.time_base == Fraction(1, 1000)
        times = [frame.pts for frame in container.decode(stream)]
    assert times == [1000 * WEBM.start_of(index, rate) for index in range(num_frames)]


@pytest.mark.parametrize("encoder", ENCODERS_OF_WEBM)
def test_colours_are_limited_range_bt709_and_say_so(tmp_path: Path, encoder: str) -> None:
    encode(tmp_path / "a.webm", 2, encoder=encoder)
    with open_video(tmp_path / "a.webm", WEBM) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        assert codec.color_range == ColorRange.MPEG
        assert codec.pix_fmt == "yuv420p"


@pytest.mark.parametrize("encoder", ENCODERS_OF_WEBM)
def test_there_is_no_random_number_and_the_index_stands_first(tmp_path: Path, encoder: str) -> None:
    for name in ("a", "b"):
        encode(tmp_path / f"{name}.webm", 30, encoder=encoder)
    data = (tmp_path / "a.webm").read_bytes()
    assert (tmp_path / "b.webm").read_bytes() == data
    assert data.index(CUES) < data.index(CLUSTER)


@pytest.mark.parametrize("encoder", ENCODERS_OF_WEBM)
def test_an_encoder_writes_nothing_on_the_terminal(
    tmp_path: Path, encoder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    encode(tmp_path / "a.webm", 5, encoder=encoder)
    video = WebmEncoder(tmp_path / "b.webm", video_spec(99, encoder))
    write_all(video, map(picture, range(99)))
    video.discard()
    del video
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.webm"]


def test_the_text_is_a_tag_and_the_comment(tmp_path: Path) -> None:
    text = '{"é": "' + "x" * 1_000_000 + '"}'
    encode(tmp_path / "a.webm", 1, metadata=text)
    assert read_tag(tmp_path / "a.webm", WEBM) == text
    with open_video(tmp_path / "a.webm", WEBM) as container:
        assert container.metadata["COMMENT"] == text


def test_finishing_again_changes_nothing_and_a_lost_end_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    video = encode(path, 40)
    before = path.read_bytes()
    video.finish()
    assert path.read_bytes() == before
    path.write_bytes(before[:-600])
    with pytest.raises(RenderError, match=r"the WebM reads back as 96x64, .* expected 96x64, 40"):
        video.finish()


@pytest.mark.parametrize("kind", [MP4, WEBM], ids=["mp4", "webm"])
def test_a_playlist_is_not_followed(tmp_path: Path, kind: object) -> None:
    encode(tmp_path / "a.webm", 1, metadata="secret")
    crafted = tmp_path / "b.webm"
    crafted.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.webm\n")
    container = WEBM if kind is WEBM else MP4
    with pytest.raises(av.error.FFmpegError):
        read_tag(crafted, container)


@given(fps=st.fractions(Fraction(1, 1000), 1000, max_denominator=1001))
def test_a_frame_lasts_a_whole_number_of_an_exact_timescales_ticks(fps: Fraction) -> None:
    timescale = exact_timescale(fps)
    assert (timescale / fps).denominator == 1
    assert 10_000 <= timescale < 2**32
    assert MP4.start_of(7, fps) == 7 / fps
    assert abs(WEBM.start_of(7, fps) - 7 / fps) <= Fraction(1, 2000)


@pytest.mark.parametrize(
    ("found", "fps", "same"),
    [
        ("24", "24", True),
        ("1000/81", "6172839/500000", True),
        ("25", "24", False),
        ("0", "24", False),
    ],
)
def test_a_rate_that_was_rounded_is_the_same_rate(found: str, fps: str, same: bool) -> None:
    assert WEBM.is_rate(Fraction(found), Fraction(fps)) is same
    assert MP4.is_rate(Fraction(found), Fraction(fps)) is (found == fps)
