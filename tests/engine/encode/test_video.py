"""MP4: what the pictures, the rate, the colours and the structure of a file read back as."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange

from giffusion.engine.encode.containers import MP4, open_video, read_tag
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.video import Mp4Encoder
from giffusion.engine.errors import RenderError
from tests.engine.encode.files import encode_video, video_spec, write_all
from tests.engine.encode.pictures import nv12_picture as picture

SOFTWARE = ("libx264", "libx265", "libsvtav1")

encode = partial(encode_video, Mp4Encoder, encoder="libx264")


@pytest.mark.parametrize("encoder", SOFTWARE)
@pytest.mark.parametrize(
    "fps", ["24", "30000/1001", "20", "2997/125", "7/3", "1/3", "1/1000", "240", "1000"]
)
@pytest.mark.parametrize("num_frames", [1, 7])
def test_rate_times_and_duration_are_exact(
    tmp_path: Path, encoder: str, fps: str, num_frames: int
) -> None:
    rate = Fraction(fps)
    if rate > (ENCODERS[encoder].max_fps or rate):
        pytest.skip(f"{encoder} takes at most {ENCODERS[encoder].max_fps} frames a second")
    encode(tmp_path / "a.mp4", num_frames, rate, encoder=encoder)
    with open_video(tmp_path / "a.mp4", MP4) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        base = stream.time_base
        assert base is not None
        assert (stream.duration or 0) * base == num_frames / rate
        times = [(frame.pts or 0) * base for frame in container.decode(stream)]
    assert times == [index / rate for index in range(num_frames)]


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_colours_are_limited_range_bt709_and_say_so(tmp_path: Path, encoder: str) -> None:
    encode(tmp_path / "a.mp4", 2, encoder=encoder)
    with open_video(tmp_path / "a.mp4", MP4) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        assert codec.color_range == ColorRange.MPEG
        assert codec.pix_fmt == "yuv420p"


def test_av1_says_that_chroma_is_sited_left(tmp_path: Path) -> None:
    """H.264 means left where it says nothing; AV1 means unknown.

    The last two bits of `av1C`'s third byte are `chroma_sample_position`, where 1 is left: AV1
    Codec ISO Media File Format Binding, section 2.3.3.
    """
    encode(tmp_path / "a.mp4", 2, encoder="libsvtav1")
    with open_video(tmp_path / "a.mp4", MP4) as container:
        extradata = container.streams.video[0].codec_context.extradata
    assert extradata is not None
    assert extradata[2] & 0b11 == 1


def test_hevc_goes_by_the_name_that_apples_players_know(tmp_path: Path) -> None:
    assert ENCODERS["libx265"].tag == ENCODERS["hevc_nvenc"].tag
    encode(tmp_path / "a.mp4", 3, encoder="libx265")
    with open_video(tmp_path / "a.mp4", MP4) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"
        assert sum(1 for _ in container.decode(video=0)) == 3


def test_hevc_says_nothing_of_the_machine(tmp_path: Path) -> None:
    """x265 would write its settings into the file, the processor's features among them."""
    encode(tmp_path / "a.mp4", 3, encoder="libx265")
    data = (tmp_path / "a.mp4").read_bytes()
    assert b"x265" not in data
    assert b"cpuid" not in data


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, encoder: str) -> None:
    for name in ("a", "b", "c"):
        encode(tmp_path / f"{name}.mp4", 40, encoder=encoder)
    first = (tmp_path / "a.mp4").read_bytes()
    assert (tmp_path / "b.mp4").read_bytes() == first
    assert (tmp_path / "c.mp4").read_bytes() == first


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process")
@pytest.mark.parametrize("encoder", SOFTWARE)
def test_the_bytes_do_not_depend_on_the_number_of_cores(tmp_path: Path, encoder: str) -> None:
    encode(tmp_path / "all.mp4", 40, encoder=encoder)
    script = f"""
import os, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.engine.encode.test_video import *
encode(Path({str(tmp_path / "one.mp4")!r}), 40, encoder={encoder!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "all.mp4").read_bytes()


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_an_encoder_writes_nothing_on_the_terminal(
    tmp_path: Path, encoder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    encode(tmp_path / "a.mp4", 5, encoder=encoder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_a_browser_can_begin_before_it_has_the_whole_file(tmp_path: Path, encoder: str) -> None:
    encode(tmp_path / "a.mp4", 5, encoder=encoder)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_the_text_stands_under_its_own_name_and_as_the_comment(
    tmp_path: Path, encoder: str
) -> None:
    text = '{"é": "' + "x" * 200_000 + '"}'
    encode(tmp_path / "a.mp4", 1, metadata=text, encoder=encoder)
    assert read_tag(tmp_path / "a.mp4", MP4) == text
    with open_video(tmp_path / "a.mp4", MP4) as container:
        assert container.metadata["comment"] == text
        assert "creation_time" not in container.metadata


@pytest.mark.parametrize("encoder", SOFTWARE)
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (64, 32), (200, 72)])
def test_small_and_odd_shaped_pictures_work(
    tmp_path: Path, encoder: str, size: tuple[int, int]
) -> None:
    if min(size) < ENCODERS[encoder].min_side:
        pytest.skip(f"{encoder} takes no side under {ENCODERS[encoder].min_side} pixels")
    spec = VideoSpec(size, Fraction(24), 3, "", EncoderChoice(ENCODERS[encoder]))
    video = Mp4Encoder(tmp_path / "a.mp4", spec)
    for index in range(3):
        video.write(np.full((size[1] * 3 // 2, size[0]), 100 + index, np.uint8))
    video.finish()
    with open_video(tmp_path / "a.mp4", MP4) as container:
        assert [frame.width for frame in container.decode(video=0)] == [size[0]] * 3


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_finishing_again_changes_nothing(tmp_path: Path, encoder: str) -> None:
    video = Mp4Encoder(tmp_path / "a.mp4", video_spec(1, encoder))
    video.write(picture(0))
    video.finish()
    before = (tmp_path / "a.mp4").read_bytes()
    video.finish()
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_finishing_frees_the_encoder(tmp_path: Path) -> None:
    """An NVENC session ends with its encoder; x264's threads show that it does."""
    before = _num_threads()
    spec = VideoSpec((512, 512), Fraction(24), 1, "", EncoderChoice(ENCODERS["libx264"]))
    video = Mp4Encoder(tmp_path / "a.mp4", spec)
    video.write(np.full((768, 512), 128, np.uint8))
    assert _num_threads() > before
    video.finish()
    assert _num_threads() == before


def test_a_file_that_lost_frames_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    video = Mp4Encoder(path, video_spec(9, "libx264"))
    write_all(video, map(picture, range(9)))
    video.finish()
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RenderError, match="reads back as"):
        video.finish()


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_discarding_removes_the_file_and_may_be_repeated(tmp_path: Path, encoder: str) -> None:
    video = Mp4Encoder(tmp_path / "a.mp4", video_spec(99, encoder))
    write_all(video, map(picture, range(99)))
    video.discard()
    video.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_never_taken_for_a_protocol_or_pattern(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("pipe:%d #?.mp4")
    encode(path, 1, metadata="{}")
    assert read_tag(path, MP4) == "{}"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_playlist_is_not_followed(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 1)
    crafted = tmp_path / "b.mp4"
    crafted.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.mp4\n")
    with pytest.raises(av.error.FFmpegError):
        read_tag(crafted, MP4)


def _num_threads() -> int:
    """Threads of the process, those of C libraries among them."""
    folder = Path("/proc/self/task")
    if not folder.is_dir():
        pytest.skip(f"the system does not list threads; Python knows {threading.active_count()}")
    return len(list(folder.iterdir()))


@pytest.mark.parametrize("num_frames", [1, 2])
def test_few_frames_are_decoded_as_they_are_shown(tmp_path: Path, num_frames: int) -> None:
    """x265 leaves the decode times of so few unset: files differed, and some could not be made."""
    video = Mp4Encoder(tmp_path / "a.mp4", video_spec(num_frames, "libx265"))
    write_all(video, map(picture, range(num_frames)))
    times = [(packet.pts, packet.dts) for packet in video._rest()]
    video.discard()
    assert times == [(index, index) for index in range(num_frames)]
