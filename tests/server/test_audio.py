"""`giffusion audio`: a sound to key frames, for people, for programs and as a picture."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from giffusion.engine.errors import GiffusionError
from giffusion.server.audio_options import add_audio_options
from giffusion.server.commands.audio import run
from tests.engine.audio.sounds import clicks, write_wav

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write_wav(tmp_path / "song.wav", clicks(np.arange(0.5, 5.6, 0.5), 6))


def audio(*words: object) -> None:
    parser = argparse.ArgumentParser()
    add_audio_options(parser)
    run(parser.parse_args([str(word) for word in words]))


def test_key_frames_are_printed(song: Path, capsys: Capture) -> None:
    audio(song)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "# 24 frames a second"
    assert [line.partition(":")[0] for line in lines] == [
        *(str(12 * n) for n in range(12)),
        "143",
    ]
    assert lines[-1] == "143: 5.96s"
    audio(song, "--detect", "beats", "--fps", "24000/1001")
    frames = [int(line.partition(":")[0]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert (frames[0], frames[-1]) == (0, 143)
    assert set(frames[1:-1]) <= {round(n / 2 * 24000 / 1001) for n in range(1, 12)}


def test_programs_get_the_curve_too(song: Path, capsys: Capture) -> None:
    words = ("--start", "0.25", "--end", "3.25", "--band", "20-8000", "--component", "percussive")
    audio(song, "--json", *words, "--reduction", "mean", "--margin", "1.5")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["fps"], facts["num_frames"], facts["duration_s"]) == ("24", 72, 3)
    assert [mark["frame"] for mark in facts["key_frames"]] == [0, *range(6, 67, 12), 71]
    assert len(facts["curve"]) == 72
    assert max(facts["curve"]) == 1


def test_a_plot_is_drawn(song: Path, tmp_path: Path, capsys: Capture) -> None:
    audio(song, "--plot", tmp_path / "curve.png", "--smooth", "0.2")
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert capsys.readouterr().out.startswith("# 24 frames a second\n0: 0.00s\n")


def test_silence_is_said(tmp_path: Path, capsys: Capture) -> None:
    path = write_wav(tmp_path / "silence.wav", np.zeros(22050, np.float32))
    audio(path)
    captured = capsys.readouterr()
    assert captured.out == "# 24 frames a second\n0: 0.00s\n23: 0.96s\n"
    assert captured.err == f"giffusion: warning: {path}: only silence is heard\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--detect", "chords"), "unknown detect 'chords': known: beats, onsets"),
        (("--component", "vocals"), "unknown component 'vocals': known: both, harmonic"),
        (("--margin", "0"), "margin 0.0 is out of range: expected at least 1"),
        (("--band", "200-100"), "band 200-100 cannot be heard"),
        (("--start", "3", "--end", "2"), "the sound would begin at 3 s and end at 2 s"),
        (("--start", "30"), "has no sound from 30 s on: expected a start within it"),
        (("--plot", "plot.pdf"), "plot.pdf is no name of a plot"),
    ],
)
def test_wrong_options_end_in_a_line(song: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(GiffusionError) as caught:
        audio(song, *words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
