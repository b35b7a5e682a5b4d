"""GIF: what a file's pictures, delays, comment and number of frames read back as."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.gif import GifEncoder, read_comment
from giffusion.engine.encode.limits import delay_cs
from giffusion.engine.errors import RenderError
from tests.engine.encode.files import decode_animation as decode
from tests.engine.encode.files import encode_animation
from tests.engine.encode.pictures import rgb_picture as picture
from tests.engine.encode.pictures import square_error

encode = partial(encode_animation, GifEncoder, EncoderChoice(ENCODERS["gif"]))


def test_the_pictures_come_back_in_order(tmp_path: Path) -> None:
    frames = [picture(index) for index in range(20)]
    encode(tmp_path / "a.gif", frames).discard()
    decoded, _ = decode(tmp_path / "a.gif")
    assert len(decoded) == 20
    for index, frame in enumerate(decoded):
        nearest = min(range(20), key=lambda other: square_error(frame, frames[other]))
        assert nearest == index
        assert square_error(frame, frames[index]) < 255**2 / 10**2.4


@pytest.mark.parametrize("fps", ["20", "24", "50", "30000/1001", "1/3", "49"])
def test_delays_add_up_to_the_exact_time(tmp_path: Path, fps: str) -> None:
    rate = Fraction(fps)
    encode(tmp_path / "a.gif", [picture(index) for index in range(25)], rate).discard()
    _, durations = decode(tmp_path / "a.gif")
    assert durations == [10 * delay_cs(index, rate) for index in range(25)]
    assert sum(durations) == 10 * round(2500 / rate)


def test_it_loops_forever(tmp_path: Path) -> None:
    encode(tmp_path / "a.gif", [picture(0), picture(1)]).discard()
    with Image.open(tmp_path / "a.gif") as file:
        assert file.info["loop"] == 0


@pytest.mark.parametrize("size", [(1, 1), (97, 33), (3, 200)])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_any_size_and_a_single_frame_work(
    tmp_path: Path, size: tuple[int, int], num_frames: int
) -> None:
    frames = [np.full((*size[::-1], 3), 200 * index, np.uint8) for index in range(num_frames)]
    encode(tmp_path / "a.gif", frames).discard()
    decoded, _ = decode(tmp_path / "a.gif")
    assert np.array_equal(decoded, frames)


def test_frames_that_are_alike_are_all_there(tmp_path: Path) -> None:
    frames = [picture(0)] * 5 + [picture(1)] + [picture(0)] * 4
    encode(tmp_path / "a.gif", frames).discard()
    decoded, durations = decode(tmp_path / "a.gif")
    assert durations == [50] * 10
    assert all(np.array_equal(decoded[0], decoded[index]) for index in (1, 4, 6, 9))
    assert not np.array_equal(decoded[0], decoded[5])
    with av.open(str(tmp_path / "a.gif")) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 10


def test_only_what_changed_is_drawn(tmp_path: Path) -> None:
    still, moved = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    moved[10:20, 30:35] = 255
    encode(tmp_path / "a.gif", [still, moved]).discard()
    with Image.open(tmp_path / "a.gif") as file:
        file.seek(1)
        assert file.tile[0].extents == (30, 10, 35, 20)
    assert np.array_equal(decode(tmp_path / "a.gif")[0][1], moved)


@pytest.mark.parametrize("length", [1, 254, 255, 256, 510, 200_000])
def test_the_comment_holds_any_text(tmp_path: Path, length: int) -> None:
    text = "é" + "x" * length
    encode(tmp_path / "a.gif", [picture(0)], metadata=text).discard()
    assert read_comment(tmp_path / "a.gif") == text
    with Image.open(tmp_path / "a.gif") as file:
        assert file.info["comment"] == text.encode()


def test_progress_counts_the_second_pass_and_it_may_be_repeated(tmp_path: Path) -> None:
    encoder = encode(tmp_path / "a.gif", [picture(index) for index in range(5)])
    before = (tmp_path / "a.gif").read_bytes()
    told: list[tuple[int, int]] = []
    encoder.finish(lambda *counts: told.append(counts))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert (tmp_path / "a.gif").read_bytes() == before
    encoder.discard()


def test_a_file_that_lost_frames_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encode(tmp_path / "a.gif", [picture(index) for index in range(5)])
    monkeypatch.setattr(encoder._spool, "frames", lambda: iter([picture(0), picture(1)]))
    with pytest.raises(RenderError, match=r"reads back as \(\(96, 64\), 2\)"):
        encoder.finish()
    encoder.discard()


def test_memory_does_not_grow_with_the_frames(tmp_path: Path) -> None:
    script = f"""
import resource, numpy as np
from fractions import Fraction
from pathlib import Path
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.gif import GifEncoder

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def render(num_frames):
    gif = EncoderChoice(ENCODERS['gif'])
    spec = VideoSpec((256, 256), Fraction(25), num_frames, '', gif)
    encoder = GifEncoder(Path({str(tmp_path)!r}, 'a.gif'), spec)
    frame = np.zeros((256, 256, 3), np.uint8)
    for index in range(num_frames):
        frame[index % 256] = index % 251
        encoder.write(frame)
    encoder.finish()
    encoder.discard()

render(70)
before = peak_mib()
render(600)
print(peak_mib() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # The frames together are 113 MiB.
    assert float(done.stdout) < 20
