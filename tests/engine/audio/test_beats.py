"""Which of the onsets are the beat."""

from __future__ import annotations

import numpy as np
import pytest

from giffusion.engine.audio.beats import beat_steps, tempo_of
from giffusion.engine.audio.onsets import OnsetMeter, Strength, time_of
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE
from tests.engine.audio.sounds import Samples, clicks


def strength(samples: Samples) -> Strength:
    meter = OnsetMeter(AudioOptions())
    meter.write(samples)
    meter.end()
    return meter.strength()


@pytest.mark.parametrize("bpm", [85, 120, 156])
def test_a_steady_beat_is_found(bpm: int) -> None:
    times_s = np.arange(0.4, 24, 60 / bpm)
    heard = strength(clicks(times_s, 24.5))
    assert tempo_of(heard) == pytest.approx(bpm, rel=0.02)
    beats = np.array([float(time_of(step)) for step in beat_steps(heard)])
    assert len(beats) == pytest.approx(len(times_s), abs=2)
    assert max(min(abs(times_s - beat)) for beat in beats) < 1 / 48


def test_beats_go_on_where_one_is_left_out() -> None:
    times_s = np.arange(0.5, 20, 0.5)
    heard = strength(clicks(np.delete(times_s, [11, 20]), 20.5))
    beats = [float(time_of(step)) for step in beat_steps(heard)]
    for left_out in times_s[[11, 20]]:
        assert min(abs(left_out - beat) for beat in beats) < 0.05


def test_beats_follow_a_tempo_that_changes_slowly() -> None:
    times_s = 0.5 + np.cumsum(np.linspace(0.5, 0.56, 40))
    beats = [float(time_of(step)) for step in beat_steps(strength(clicks(times_s, 23)))]
    found = sum(min(abs(time_s - beat) for beat in beats) < 1 / 24 for time_s in times_s)
    assert found >= 37


@pytest.mark.parametrize("length", [1, 100, 5 * RATE])
def test_silence_has_no_beat(length: int) -> None:
    assert beat_steps(strength(np.zeros(length, np.float32))) == []


@pytest.mark.parametrize("times_s", [[0.5], [0.5, 0.6], [0.0]])
def test_a_few_clicks_are_no_trouble(times_s: list[float]) -> None:
    steps = beat_steps(strength(clicks(times_s, 1)))
    assert steps == sorted(set(steps))
