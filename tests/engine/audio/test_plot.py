"""The picture of a sound: where it goes, and what it shows."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.audio.analysis import Analysis, analyse
from giffusion.engine.audio.key_frames import Mark, marked_frames
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.plot import SIZE, check_plot, write_plot
from giffusion.engine.errors import OutputError, RuntimeUnavailableError
from tests.engine.audio.sounds import clicks, write_wav

FPS = Fraction(24)


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, list[Mark]]:
    path = tmp_path_factory.mktemp("sound") / "song.wav"
    write_wav(path, clicks([0.5, 1.0, 2.25], 3))
    analysis = analyse(path, FPS, AudioOptions())
    return analysis, marked_frames(analysis.onsets(), FPS, len(analysis.curve))


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", SIZE)
        return np.array(picture.convert("RGB"))


def test_the_same_sound_gives_the_same_bytes(
    tmp_path: Path, heard: tuple[Analysis, list[Mark]]
) -> None:
    for name in ("a.png", "b.png"):
        write_plot(tmp_path / name, *heard, FPS, "a $song$ of 50 %\n\udcff \u97f3")
    picture = pixels(tmp_path / "a.png")
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_key_frames_are_drawn(tmp_path: Path, heard: tuple[Analysis, list[Mark]]) -> None:
    analysis, marks = heard
    assert [mark.frame for mark in marks] == [0, 12, 24, 54, 71]
    write_plot(tmp_path / "all.png", analysis, marks, FPS, "")
    write_plot(tmp_path / "few.png", analysis, [marks[0], marks[-1]], FPS, "")
    differs = (pixels(tmp_path / "all.png") != pixels(tmp_path / "few.png")).any(axis=(0, 2))
    changed = np.flatnonzero(differs)
    # What is new lies from frame 12 to frame 71 of 72, of a plot with margins at both sides.
    assert 0.1 < changed[0] / SIZE[0] < 0.25


def test_many_key_frames_and_silence_can_be_drawn(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "silence.wav", np.zeros(60 * 22050, np.float32))
    analysis = analyse(path, FPS, AudioOptions())
    marks = marked_frames([Fraction(n, 24) for n in range(1440)], FPS, 1440)
    write_plot(tmp_path / "plot.png", analysis, marks, FPS, "")
    pixels(tmp_path / "plot.png")


def test_a_place_is_checked_first(tmp_path: Path, heard: tuple[Analysis, list[Mark]]) -> None:
    path = tmp_path / "plot.png"
    check_plot(path, force=False)
    write_plot(path, *heard, FPS, "")
    with pytest.raises(OutputError, match="exists: give --force to replace it"):
        check_plot(path, force=False)
    check_plot(path, force=True)
    write_plot(path, *heard, FPS, "", force=True)
    with pytest.raises(OutputError, match=r"expected one that ends in \.png"):
        check_plot(tmp_path / "plot.jpg", force=True)
    with pytest.raises(OutputError, match="does not exist: create it"):
        check_plot(tmp_path / "no" / "plot.png", force=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["plot.png"]


def test_without_matplotlib_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'giffusion\[audio\]'"):
        check_plot(tmp_path / "plot.png", force=False)
