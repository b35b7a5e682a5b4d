"""One loudness a frame, at the frame's exact time."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.audio.energy import EnergyMeter, num_frames_of
from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.spectra import RATE
from tests.engine.audio.sounds import Samples, blocks_of, clicks, sine

NTSC = Fraction(24000, 1001)


def measure(
    samples: Samples,
    fps: Fraction,
    options: AudioOptions | None = None,
    block: int = RATE,
) -> EnergyCurve:
    meter = EnergyMeter(fps, options or AudioOptions())
    for part in blocks_of(samples, block):
        meter.write(part)
    meter.end()
    return meter.curve()


def test_ten_minutes_do_not_drift() -> None:
    # A hop of 920 samples instead of 919.7 would be seven frames late at the end.
    struck = range(240, 14385, 480)
    impulses = np.zeros(600 * RATE, np.float32)
    for frame in struck:
        impulses[round(frame / NTSC * RATE)] = 0.9
    curve = measure(impulses, NTSC)
    assert len(curve) == 14386
    for frame in struck:
        before, at, after = (curve.at(frame + step) for step in (-1, 0, 1))
        assert at > 0.99
        # Half a sample off at most: the two neighbours hear the same of it.
        assert before == pytest.approx(after, rel=0.06)
        assert before < 0.5


@pytest.mark.parametrize("fps", [Fraction(1), Fraction(8), NTSC, Fraction(60), Fraction(1000, 7)])
def test_a_click_is_loudest_on_the_nearest_frame(fps: Fraction) -> None:
    time_s = Fraction(23, 10)
    curve = measure(clicks([time_s], 5), fps)
    loudest = int(np.argmax(curve.values))
    assert abs(loudest - time_s * fps) <= Fraction(1, 2) + fps / 100


@pytest.mark.parametrize("fps", [Fraction(1, 2), Fraction(2), Fraction(10)])
def test_nothing_falls_between_slow_frames(fps: Fraction) -> None:
    for time_s in np.linspace(2, 4.3, 11):
        assert max(measure(clicks([float(time_s)], 6), fps).values) == 1


@pytest.mark.parametrize("block", [100, 3000, 10**6])
def test_blocks_make_no_difference(block: int) -> None:
    samples = clicks([0.5, 1.2, 2.9], 3.3) + sine(440, 3.3)
    for fps in (NTSC, Fraction(5)):
        ours = measure(samples, fps, block=block)
        np.testing.assert_allclose(ours.values, measure(samples, fps).values, atol=1e-6)


def test_silence_is_zeros() -> None:
    for samples in (np.zeros(5000, np.float32), np.full(5000, 1e-8, np.float32)):
        assert measure(samples, Fraction(24)).values == (0.0,) * 6


def test_a_curve_is_as_long_as_the_sound() -> None:
    assert len(measure(sine(300, 1), Fraction(24))) == 24
    assert num_frames_of(Fraction(10), Fraction(24)) == 240
    assert num_frames_of(Fraction(10) + Fraction(1, RATE), Fraction(24)) == 241


def test_loudness_does_not_hang_on_the_level() -> None:
    samples = clicks([0.5], 1) + sine(200, 1)
    np.testing.assert_allclose(
        measure(samples * np.float32(0.01), Fraction(24)).values,
        measure(samples, Fraction(24)).values,
        atol=1e-5,
    )


def test_a_band_hears_only_its_frequencies() -> None:
    low, high = sine(100, 2), sine(3000, 2)
    low[RATE:] = 0
    high[:RATE] = 0
    bass = measure(low + high, Fraction(10), options=AudioOptions(band=(20, 300)))
    treble = measure(low + high, Fraction(10), options=AudioOptions(band=(2000, 5000)))
    assert min(bass.values[2:8]) > 0.9
    assert max(bass.values[12:]) < 1e-4
    assert max(treble.values[2:8]) < 1e-4
    assert min(treble.values[12:18]) > 0.9


def test_reductions_differ_in_what_is_loud() -> None:
    # A sine is loud in one band, noise of less power in all of them.
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    samples = np.concatenate([sine(1000, 1), noise])
    for reduction, sine_is_louder in (("max", True), ("median", False)):
        curve = measure(samples, Fraction(10), options=AudioOptions(reduction=reduction))
        assert (np.mean(curve.values[2:8]) > np.mean(curve.values[12:18])) == sine_is_louder
    mean = measure(samples, Fraction(10), options=AudioOptions(reduction="mean"))
    assert max(mean.values) == 1
