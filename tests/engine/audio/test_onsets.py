"""Where something begins."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import librosa
import numpy as np
import pytest

from giffusion.engine.audio.onsets import FLOOR, HOP, THRESHOLD_DB, WINDOW, OnsetMeter, time_of
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE, hann
from giffusion.engine.audio.with_librosa import Strength, onset_steps
from giffusion.engine.schedules.limits import round_half_up
from tests.engine.audio.sounds import Samples, blocks_of, clicks, sine

TIMES_S = np.cumsum(np.random.default_rng(5).uniform(0.2, 0.8, 20))
LENGTH_S = float(TIMES_S[-1]) + 1


def strength(samples: Samples, options: AudioOptions | None = None, block: int = 7000) -> Strength:
    meter = OnsetMeter(options or AudioOptions())
    for part in blocks_of(samples, block):
        meter.write(part)
    meter.end()
    return meter.strength()


def onsets(samples: Samples, options: AudioOptions | None = None) -> list[Fraction]:
    steps = onset_steps(strength(samples, options), RATE, HOP, THRESHOLD_DB)
    return [time_of(step) for step in steps]


def notes() -> Samples:
    """Sines that fade, each of another pitch, one after the other."""
    samples = np.zeros(round(LENGTH_S * RATE), np.float32)
    for index, time_s in enumerate(TIMES_S):
        note = sine(220 * 2 ** (index % 24 / 12), 2)
        note *= np.exp(-np.arange(len(note)) / RATE * 12, dtype=np.float32)
        begin = round(time_s * RATE)
        end = min(len(samples), begin + len(note))
        samples[begin:end] += note[: end - begin]
    return samples


NOISE = np.random.default_rng(6).normal(0, 0.005, round(LENGTH_S * RATE)).astype(np.float32)
SOUNDS = {
    "clicks": clicks(TIMES_S, LENGTH_S),
    "clicks in noise": clicks(TIMES_S, LENGTH_S) + NOISE,
    "clicks over a sine": clicks(TIMES_S, LENGTH_S) + sine(330, LENGTH_S),
    "soft clicks": clicks(TIMES_S, LENGTH_S) * np.float32(0.01),
    "notes": notes(),
}


@cache
def onsets_of(name: str) -> list[Fraction]:
    return onsets(SOUNDS[name])


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(24000, 1001), Fraction(60)])
@pytest.mark.parametrize("name", SOUNDS)
def test_onsets_are_found_within_a_frame(name: str, fps: Fraction) -> None:
    found = onsets_of(name)
    expected = [round_half_up(Fraction(time_s) * fps) for time_s in TIMES_S]
    # What sounds from the first sample on begins there.
    frames = [round_half_up(time_s * fps) for time_s in found if time_s > 0.1]
    assert len(frames) == len(expected)
    assert max(abs(a - b) for a, b in zip(frames, expected, strict=True)) <= 1


def test_blocks_have_the_strength_that_librosa_finds_in_the_whole() -> None:
    samples = SOUNDS["clicks in noise"]
    power = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=WINDOW, hop_length=HOP)
    power *= (2 / hann(WINDOW).sum()) ** 2
    level = librosa.power_to_db(power, amin=FLOOR, top_db=None)
    expected = librosa.onset.onset_strength(S=level, sr=RATE, hop_length=HOP, center=False)
    for block in (300, 10**6):
        found = strength(samples, block=block)
        assert len(found) == len(expected)
        # The first step is heard after silence, and behind the end nothing is.
        np.testing.assert_allclose(found[1:-2], expected[1:-2], atol=2e-4)


def test_times_are_nearer_than_with_librosas_defaults() -> None:
    errors_s: dict[str, list[float]] = {"ours": [], "defaults": []}
    for name in ("clicks", "clicks in noise", "notes"):
        defaults = librosa.onset.onset_detect(y=SOUNDS[name], sr=RATE, units="time")
        for key, found in (("ours", np.array(onsets_of(name), float)), ("defaults", defaults)):
            errors_s[key] += [np.abs(found - time_s).min() for time_s in TIMES_S]
    assert np.mean(errors_s["ours"]) < 0.004
    assert np.max(errors_s["ours"]) < 0.010
    assert np.mean(errors_s["defaults"]) > 0.010


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32)])
def test_nothing_begins_in_silence(samples: Samples) -> None:
    assert onsets(samples) == []


def test_nothing_begins_in_what_is_held_or_cut_off() -> None:
    assert [time_s for time_s in onsets(sine(440, 3)) if time_s > 0.1] == []


def test_onsets_do_not_hang_on_what_is_far_away() -> None:
    quiet = clicks(TIMES_S, LENGTH_S) * np.float32(0.05)
    loud = np.concatenate([quiet, clicks([0.5], 1) * np.float32(1.2)])
    assert onsets(loud)[:-1] == onsets(quiet)


def test_a_band_has_its_own_onsets() -> None:
    samples = SOUNDS["notes"] * np.float32(0)
    for index, time_s in enumerate(TIMES_S):
        # A short tone that swells and fades, so that nothing of it is in the other band.
        tone = sine((100, 4000)[index % 2], 0.1)
        tone *= np.hanning(len(tone)).astype(np.float32)
        begin = round(time_s * RATE)
        samples[begin : begin + len(tone)] += tone
    assert len(onsets(samples, AudioOptions(band=(50, 200)))) == 10
    assert len(onsets(samples, AudioOptions(band=(3000, 5000)))) == 10
