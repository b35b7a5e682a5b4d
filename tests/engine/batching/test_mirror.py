"""Frames that are shown again backwards, through real writers into real files."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.batching.mirror import Mirror, mirrored_frames
from giffusion.engine.encode import open_writer
from giffusion.engine.encode.writer import Writer
from giffusion.engine.errors import DiskFullError, OutputError
from giffusion.engine.frames import PixelFormat

SIZE = (64, 32)
Pixels = NDArray[np.uint8]


def start(path: Path, num_frames: int) -> Writer:
    return open_writer(
        path, size=SIZE, fps=Fraction(20), num_frames=mirrored_frames(num_frames), metadata=""
    )


def frame(index: int, pixel_format: PixelFormat = PixelFormat.RGB24) -> Pixels:
    """A grey of its own for each number, in any pixel format."""
    picture = np.full(pixel_format.shape(SIZE), 20 + 12 * index, np.uint8)
    if pixel_format == PixelFormat.NV12:
        picture[SIZE[1] :] = 128
    return picture


def render(path: Path, num_frames: int) -> list[int]:
    """Sends frames there and back, and returns what was told on the way back."""
    told: list[int] = []
    writer = start(path, num_frames)
    with writer, closing(Mirror(writer, num_frames, SIZE)) as mirror:
        for index in range(num_frames):
            mirror.write(index, frame(index, mirror.pixel_format))
        mirror.play_back(told.append)
        writer.close()
    return told


def greys(path: Path) -> list[float]:
    """The mean brightness of each picture of a file, 0 … 255."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return [float(f.to_ndarray(format="gray").mean()) for f in container.decode(video=0)]
    with Image.open(path) as file:
        return [float(np.asarray(f.convert("L")).mean()) for f in ImageSequence.Iterator(file)]


def test_how_many_frames_are_shown() -> None:
    assert [mirrored_frames(num) for num in (1, 2, 3, 4, 100)] == [1, 2, 4, 6, 198]


@pytest.mark.parametrize("extension", [".gif", ".mp4"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 17])
def test_frames_come_back_mirrored(tmp_path: Path, extension: str, num_frames: int) -> None:
    path = tmp_path / f"out{extension}"
    told = render(path, num_frames)
    there = list(range(num_frames))
    expected = [*there, *there[-2:0:-1]]
    assert told == list(range(1, max(num_frames - 1, 1)))
    shown = greys(path)
    assert len(shown) == len(expected) == mirrored_frames(num_frames)
    # H.264 is near enough to tell them apart: they are 12 steps of brightness from each other.
    nearest = [min(there, key=lambda index: abs(shown[index] - grey)) for grey in shown]
    assert nearest == expected
    if extension == ".gif":
        assert shown == [20 + 12 * index for index in expected]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("num_frames", [3, 8])
def test_frames_that_are_not_contiguous_come_back_whole(tmp_path: Path, num_frames: int) -> None:
    path = tmp_path / "out.gif"
    writer = start(path, num_frames)
    pictures = [np.zeros((SIZE[1], SIZE[0], 3), np.uint8) for _ in range(num_frames)]
    for index, picture in enumerate(pictures):
        picture[: 4 * index + 4, :, 0] = 255
    with writer, closing(Mirror(writer, num_frames, SIZE)) as mirror:
        for index, picture in enumerate(pictures):
            mirror.write(index, np.asfortranarray(picture))
        mirror.play_back(lambda done: None)
        writer.close()
    with Image.open(path) as file:
        shown = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(file)]
    np.testing.assert_array_equal(shown, [*pictures, *pictures[-2:0:-1]])


def test_a_mirror_is_a_sink_of_its_writers_kind(tmp_path: Path) -> None:
    writer = start(tmp_path / "out.mp4", 4)
    with closing(Mirror(writer, 4, SIZE)) as mirror:
        sink: FrameSink = mirror
        assert sink.pixel_format == writer.pixel_format
        assert not sink.on_device
        mirror.write(0, frame(0, mirror.pixel_format))
        assert 0 <= sink.backlog <= 1
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_the_file_has_no_name_and_is_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    temporary_file = tempfile.TemporaryFile

    def watched(**options: Any) -> Any:
        opened.append(options)
        return temporary_file(**options)

    monkeypatch.setattr(tempfile, "TemporaryFile", watched)
    writer = start(tmp_path / "out.gif", 4)
    with closing(Mirror(writer, 4, SIZE)) as mirror:
        for index in range(3):
            mirror.write(index, frame(index))
        writer.abort()
        assert os.listdir(tmp_path) == []
    assert opened[-1] == {"dir": tmp_path}


def test_where_no_file_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Any:
        def refused(**options: Any) -> None:
            raise OSError(number, os.strerror(number))

        return refused

    with start(tmp_path / "out.gif", 4) as writer:
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.ENOSPC))
        with pytest.raises(DiskFullError, match=r"no space left in .* after 0 frames"):
            Mirror(writer, 4, SIZE)
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse(errno.EACCES))
        with pytest.raises(OutputError, match=r"cannot write in .*: Permission denied"):
            Mirror(writer, 4, SIZE)
        writer.abort()


LIMITED = """
import resource, sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path
import numpy as np
from giffusion.engine.encode import open_writer
from giffusion.engine.errors import DiskFullError
from giffusion.engine.batching.mirror import Mirror, mirrored_frames

limit, num_frames, path = int(sys.argv[1]), 40, Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with open_writer(
        path, size=(64, 32), fps=Fraction(20), num_frames=mirrored_frames(num_frames), metadata=""
    ) as writer, closing(Mirror(writer, num_frames, (64, 32))) as mirror:
        for index in range(num_frames):
            mirror.write(index, np.full(mirror.pixel_format.shape((64, 32)), index, np.uint8))
        mirror.play_back(lambda done: None)
except DiskFullError as error:
    print(error)
"""


# What a file may hold of 40 frames of 3 KB: some, all but the last part, and none.
@pytest.mark.parametrize("num_bytes", [1000, 60_000, 110_000])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, num_bytes: int) -> None:
    command = [sys.executable, "-c", LIMITED, str(num_bytes), str(tmp_path / "out.mp4")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert process.stdout.startswith(f"no space left in {tmp_path} after ")
    assert process.stdout.endswith(" frames: File too large\n")
    assert os.listdir(tmp_path) == []
