"""Tempo and beats, and what librosa is kept from doing with sounds that it does not expect."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import librosa
import numpy as np
import pytest

from giffusion.engine.audio.analysis import analyse
from giffusion.engine.audio.onsets import HOP, OnsetMeter, time_of
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE
from giffusion.engine.audio.with_librosa import Strength, beat_steps, mel_filters, tempo
from giffusion.engine.errors import RuntimeUnavailableError
from tests.engine.audio.sounds import Samples, clicks, write_wav


def strength(samples: Samples) -> Strength:
    meter = OnsetMeter(AudioOptions())
    meter.write(samples)
    meter.end()
    return meter.strength()


def beats(samples: Samples) -> list[float]:
    heard = strength(samples)
    steps = beat_steps(heard, RATE, HOP, tempo(heard, RATE, HOP))
    return [float(time_of(step)) for step in steps]


@pytest.mark.parametrize("bpm", [85, 120, 156])
def test_a_steady_beat_is_found(bpm: int) -> None:
    times_s = np.arange(0.4, 24, 60 / bpm)
    samples = clicks(times_s, 24.5)
    assert tempo(strength(samples), RATE, HOP) == pytest.approx(bpm, rel=0.02)
    found = np.array(beats(samples))
    assert len(found) == pytest.approx(len(times_s), abs=2)
    errors_s = np.abs(found[:, None] - times_s).min(axis=1)
    assert errors_s.mean() < 0.008
    assert errors_s.max() < 1 / 48


def test_beats_go_on_where_one_is_left_out() -> None:
    times_s = np.arange(0.5, 20, 0.5)
    found = beats(clicks(np.delete(times_s, [11, 20]), 20.5))
    for left_out in times_s[[11, 20]]:
        assert min(abs(left_out - beat) for beat in found) < 0.05


def test_beats_follow_a_tempo_that_changes_slowly() -> None:
    times_s = 0.5 + np.cumsum(np.linspace(0.5, 0.56, 40))
    found = beats(clicks(times_s, 23))
    near = sum(min(abs(time_s - beat) for beat in found) < 1 / 24 for time_s in times_s)
    assert near >= 37


@pytest.mark.parametrize("length", [2, 100, 688, 689, 690, 5000, 9000])
def test_a_tempo_in_parts_is_that_of_the_whole(length: int) -> None:
    heard = np.abs(np.random.default_rng(length).normal(0, 1, length))
    heard[::40] += 5
    expected = librosa.feature.tempo(onset_envelope=heard, sr=RATE, hop_length=HOP)
    assert tempo(heard, RATE, HOP) == expected[0]


@pytest.mark.parametrize("length", [1, 2, 3, 30, 700])
def test_one_step_alone_is_no_trouble(length: int) -> None:
    # With strength in the first step only, librosa's own tracker reads beyond the end.
    for step in {0, length // 2, length - 1}:
        heard = np.zeros(length)
        heard[step] = 5
        assert beat_steps(heard, RATE, HOP, tempo(heard, RATE, HOP)) == [step]


@pytest.mark.parametrize("times_s", [[0.5], [0.5, 0.6], [0.0]])
def test_a_few_clicks_are_no_trouble(times_s: list[float]) -> None:
    found = beats(clicks(times_s, 1))
    assert found == sorted(set(found))


def test_bands_are_those_of_librosa() -> None:
    expected = librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=128)
    np.testing.assert_array_equal(mel_filters(RATE, 2048, 128), expected.T)


@pytest.mark.parametrize("missing", ["librosa.filters", "librosa.onset", "numba.core"])
def test_without_librosa_it_says_what_to_do(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write_wav(tmp_path / "song.wav", clicks([0.5], 1))
    mel_filters.cache_clear()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        analyse(song, Fraction(24), AudioOptions())
    assert str(caught.value).startswith("sound cannot be analysed here: ")
    assert str(caught.value).endswith("; pip install 'giffusion[audio]'")
