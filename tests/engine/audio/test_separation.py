"""What is struck and what is held, apart: as of the whole sound at once."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import median_filter  # type: ignore[import-untyped]  # it has no types

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.separation import separated
from giffusion.engine.audio.spectra import RATE
from giffusion.engine.errors import RuntimeUnavailableError
from tests.engine.audio.sounds import Samples, blocks_of, clicks, sine

WINDOW, HOP = 2048, 512


def component(samples: Samples, name: str, margin: float = 1, block: int = RATE) -> Samples:
    options = AudioOptions(component=name, margin=margin)
    return np.concatenate(list(separated(blocks_of(samples, block), options)))


def plain(samples: Samples, margin: float) -> dict[str, NDArray[np.float64]]:
    """The formula, on a whole sound: librosa.effects.hpss in double precision."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    padded = np.pad(samples.astype(np.float64), WINDOW // 2)
    views = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    spectra = np.fft.rfft(views * window)
    harmonic = median_filter(np.abs(spectra), (31, 1), mode="reflect") ** 2
    percussive = median_filter(np.abs(spectra), (1, 31), mode="reflect") ** 2
    tiny = np.finfo(float).tiny
    shares = {
        "harmonic": harmonic / (harmonic + percussive * margin**2 + tiny),
        "percussive": percussive / (percussive + harmonic * margin**2 + tiny),
    }
    results = {}
    for name, share in shares.items():
        parts = np.fft.irfft(spectra * share, WINDOW) * window
        sums, weights = np.zeros(len(padded)), np.zeros(len(padded))
        for index, part in enumerate(parts):
            at = slice(index * HOP, index * HOP + WINDOW)
            sums[at] += part
            weights[at] += window**2
        inner = slice(WINDOW // 2, len(padded) - WINDOW // 2)
        results[name] = sums[inner] / weights[inner]
    return results


@pytest.mark.parametrize("margin", [1.0, 2.5])
@pytest.mark.parametrize("seconds", [0.4, 14.1])
def test_it_is_the_formula_on_the_whole_sound(margin: float, seconds: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, round(seconds * RATE)).astype(np.float32)
    samples = sine(440, seconds) + noise + clicks(np.arange(0.1, seconds, 0.37), seconds)
    for name, expected in plain(samples, margin).items():
        for block in (RATE, 5000):
            found = component(samples, name, margin, block)
            np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("length", [1, 100, 511, 512, 513, 2048, 9000])
def test_sounds_keep_their_length(length: int) -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, length).astype(np.float32)
    for name in ("harmonic", "percussive"):
        assert component(samples, name, block=300).shape == (length,)


def test_at_margin_1_the_two_add_up_to_the_whole() -> None:
    samples = sine(330, 2) + clicks([0.3, 0.9, 1.5], 2)
    both = component(samples, "harmonic") + component(samples, "percussive")
    np.testing.assert_allclose(both, samples, atol=2e-6)
    np.testing.assert_array_equal(component(samples, "both"), samples)


def test_clicks_and_sines_part() -> None:
    held, struck = sine(440, 4), clicks(np.arange(0.5, 3.6, 0.5), 4)
    inner = slice(RATE // 2, -RATE // 2)
    for name, ours, others in (("harmonic", held, struck), ("percussive", struck, held)):
        error = component(held + struck, name) - ours
        assert np.square(error[inner]).mean() < 0.1 * np.square(ours[inner]).mean()
        assert np.square(error[inner]).mean() < 0.2 * np.square(others[inner]).mean()


def test_silence_stays_silent() -> None:
    for margin in (1, 3):
        assert not component(np.zeros(RATE, np.float32), "percussive", margin).any()


def test_without_scipy_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'giffusion\[audio\]'"):
        component(np.zeros(RATE, np.float32), "percussive")
    assert len(component(np.zeros(RATE, np.float32), "both")) == RATE
