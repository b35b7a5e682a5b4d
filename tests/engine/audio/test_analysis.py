"""Sound files to curves and times, in one pass."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giffusion.engine.audio.analysis import analyse, energy_curve
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.with_librosa import tempo
from giffusion.engine.errors import InputError, SettingsError
from tests.engine.audio.sounds import clicks, sine, write_wav

FPS = Fraction(24)
TIMES_S = [Fraction(n, 2) for n in range(1, 12)]


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stereo at 44,100 Hz: clicks each half a second, over a sine in one of the channels."""
    struck = clicks(TIMES_S, 6, rate=44100) * np.float32(0.6)
    held = sine(440, 6, rate=44100)
    path = tmp_path_factory.mktemp("sound") / "song.wav"
    return write_wav(path, struck + held, struck, rate=44100)


@pytest.mark.parametrize("component", ["both", "percussive"])
def test_clicks_are_found_on_their_frames(song: Path, component: str) -> None:
    analysis = analyse(song, FPS, AudioOptions(component=component))
    found = [round(time_s * FPS) for time_s in analysis.onsets() if time_s > 0.1]
    assert found == [12 * n for n in range(1, 12)]
    assert set(round(time_s * FPS) for time_s in analysis.beats()) <= set(range(0, 144, 12))
    assert analysis.tempo() == pytest.approx(120, rel=0.02)
    assert analysis.duration_s == 6
    assert len(analysis.curve) == 144


def test_components_tell_clicks_from_sines(song: Path) -> None:
    curves = {
        name: energy_curve(song, FPS, AudioOptions(component=name, margin=1.5))
        for name in ("percussive", "harmonic")
    }
    between = [curve.at(frame) for curve in curves.values() for frame in (30, 54, 78)]
    assert max(between[:3]) < 0.01
    assert min(between[3:]) > 0.5


def test_the_timeline_gets_the_same_curve(song: Path) -> None:
    options = AudioOptions(component="percussive", smooth=0.5)
    whole = energy_curve(song, FPS, options)
    assert whole == analyse(song, FPS, options).curve
    assert whole.smooth == 0.5


def test_beats_and_their_tempo_are_found_in_one(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = []

    def counted(*args: Any) -> float:
        computed.append(args)
        return tempo(*args)

    monkeypatch.setattr("giffusion.engine.audio.analysis.tempo", counted)
    monkeypatch.setattr("giffusion.engine.audio.with_librosa.tempo", counted)
    analysis = analyse(song, FPS, AudioOptions())
    assert analysis.beats()
    assert analysis.tempo() == pytest.approx(120, rel=0.02)
    assert len(computed) == 1


def test_a_start_moves_everything_by_as_much(song: Path) -> None:
    options = AudioOptions(start_s=Fraction(5, 4), end_s=Fraction(9, 2))
    analysis = analyse(song, FPS, options)
    assert abs(analysis.duration_s - Fraction(13, 4)) <= Fraction(1, 22050)
    assert len(analysis.curve) == 78
    found = [round(time_s * FPS) for time_s in analysis.onsets() if time_s > 0.1]
    assert found == [12 * n - 30 for n in range(3, 9)]


def test_peaks_span_the_sound(song: Path) -> None:
    low, high = analyse(song, FPS, AudioOptions()).peaks
    assert len(low) == -(-6 * 22050 // 512)
    assert (low <= high).all()
    assert 0.3 < high.max() < 1


def test_silence_is_said(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "silence.wav", np.zeros(22050, np.float32))
    notes: list[str] = []
    for component in ("both", "harmonic", "percussive"):
        options = AudioOptions(component=component)
        assert energy_curve(path, FPS, options, notes.append).values == (0.0,) * 24
        analysis = analyse(path, FPS, options)
        assert (analysis.onsets(), analysis.beats(), analysis.tempo()) == ([], [], None)
    assert notes == [f"{path}: only silence is heard"] * 3


@pytest.mark.parametrize("num_samples", [1, 30, 700])
def test_the_shortest_sounds_are_heard(tmp_path: Path, num_samples: int) -> None:
    path = write_wav(tmp_path / "short.wav", sine(1000, 1)[5 : 5 + num_samples])
    for component in ("both", "percussive"):
        analysis = analyse(path, FPS, AudioOptions(component=component))
        assert len(analysis.curve) == 1
        assert analysis.beats() in ([], analysis.onsets())


def test_a_start_behind_the_end_is_refused(song: Path) -> None:
    for read in (
        lambda options: analyse(song, FPS, options),
        lambda options: energy_curve(song, FPS, options),
    ):
        with pytest.raises(InputError, match=re.escape(f"{song} has no sound from 7.5 s on")):
            read(AudioOptions(start_s=Fraction(15, 2)))


def test_more_frames_than_a_render_has_are_refused(
    song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("giffusion.engine.audio.analysis.MAX_FRAMES", 1000)
    with pytest.raises(SettingsError, match="has 6000 frames at 1000 a second: expected at most"):
        analyse(song, Fraction(1000), AudioOptions())


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WAVE", b"not a sound\n" * 40])
def test_files_without_sound_end_in_a_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        analyse(path, FPS, AudioOptions())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
