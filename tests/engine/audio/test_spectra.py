"""Power and mel bands, against what they have to be."""

from __future__ import annotations

import numpy as np
import pytest

from giffusion.engine.audio.spectra import (
    NUM_BANDS,
    RATE,
    MelBands,
    bands_within,
    hann,
    power_spectra,
)
from giffusion.engine.audio.with_librosa import mel_filters, mel_middles, mel_of


@pytest.mark.parametrize("length", [1024, 2048])
def test_a_sine_of_full_scale_has_power_1(length: int) -> None:
    cycles = 100
    samples = np.cos(2 * np.pi * cycles * np.arange(length) / length).astype(np.float32)
    power = power_spectra(samples[None])[0]
    assert power.argmax() == cycles
    assert power[cycles] == pytest.approx(1, rel=1e-5)


def test_windows_overlap_to_a_constant() -> None:
    window = hann(2048)
    np.testing.assert_allclose(window[:1024] + window[1024:], 1, atol=1e-6)


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("band", [None, (0, 100), (1000, 1001), (50, 9000)])
def test_bands_sum_as_the_filters_say(band: tuple[float, float] | None, length: int) -> None:
    power = np.random.default_rng(0).uniform(0, 1, (3, length // 2 + 1)).astype(np.float32)
    expected = (
        power.astype(np.float64) @ mel_filters(RATE, length, NUM_BANDS)[:, bands_within(band)]
    )
    np.testing.assert_allclose(MelBands.within(band, length).of(power), expected, rtol=1e-5)


def test_a_band_of_frequencies_is_a_run_of_mel_bands() -> None:
    assert bands_within(None) == slice(0, NUM_BANDS)
    assert bands_within((0, RATE / 2)) == slice(0, NUM_BANDS)
    low, high = bands_within((0, 200)), bands_within((200, RATE / 2))
    assert 0 == low.start < low.stop == high.start < high.stop == NUM_BANDS
    # Between two middles there is none: the nearest one is taken.
    narrow = bands_within((8000, 8001))
    assert narrow.stop - narrow.start == 1


def test_bands_are_told_by_the_middles_of_their_filters() -> None:
    hz = np.arange(1025) * RATE / 2048
    filters = mel_filters(RATE, 2048, NUM_BANDS)
    assert filters.shape == (1025, NUM_BANDS)
    middles = mel_middles(RATE, NUM_BANDS)
    # Above 1000 Hz, where bins are fine enough to show it.
    for band in range(50, NUM_BANDS):
        assert mel_of(hz[filters[:, band].argmax()]) == pytest.approx(middles[band], abs=0.2)
