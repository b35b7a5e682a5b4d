"""What is struck and what is held, apart: as of the whole sound at once."""

from __future__ import annotations

import sys

import librosa
import numpy as np
import pytest

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.audio.separation import separated
from giffusion.engine.audio.spectra import RATE
from giffusion.engine.errors import RuntimeUnavailableError
from tests.engine.audio.sounds import Samples, blocks_of, clicks, sine


def component(samples: Samples, name: str, margin: float = 1, block: int = RATE) -> Samples:
    options = AudioOptions(component=name, margin=margin)
    return np.concatenate(list(separated(blocks_of(samples, block), options)))


@pytest.mark.parametrize("margin", [1.0, 2.5])
@pytest.mark.parametrize("seconds", [0.4, 14.1])
def test_it_is_what_librosa_finds_in_the_whole(margin: float, seconds: float) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, round(seconds * RATE)).astype(np.float32)
    samples = sine(440, seconds) + noise + clicks(np.arange(0.1, seconds, 0.37), seconds)
    spectra = librosa.stft(samples)
    for name, part in zip(
        ("harmonic", "percussive"), librosa.decompose.hpss(spectra, margin=margin), strict=True
    ):
        expected = librosa.istft(part, length=len(samples))
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
