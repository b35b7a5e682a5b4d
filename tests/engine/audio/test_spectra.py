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
    mel_filters,
    power_spectra,
)


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


def test_bands_follow_slaneys_scale() -> None:
    filters = mel_filters(2048).astype(np.float64)
    bins = np.arange(1025) * RATE / 2048
    # Even up to 1000 Hz, which is 15 mel; the middles are in even steps of mel.
    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    middles = np.linspace(0, top, NUM_BANDS + 2)[1:-1]
    expected = np.where(middles < 15, middles * 200 / 3, 1000 * 6.4 ** ((middles - 15) / 27))
    centroids = (bins @ filters) / filters.sum(axis=0)
    np.testing.assert_allclose(centroids[30:], expected[30:], rtol=0.01)
    # Each has an area of 1 in Hz, as far as the bins are fine enough to show it.
    np.testing.assert_allclose(filters[:, 60:].sum(axis=0) * RATE / 2048, 1, rtol=0.05)


def test_bands_have_numbers_that_were_published() -> None:
    # librosa 0.11: filters.mel(sr=22050, n_fft=2048), which these have to agree with.
    filters = mel_filters(2048)
    assert filters.shape == (1025, NUM_BANDS)
    found = [filters[2, 0], filters[10, 3], filters[100, 40], filters[700, 113]]
    published = [0.032365706, 0.032018088, 0.01619472, 0.00153989]
    np.testing.assert_allclose(found, published, rtol=1e-5)


@pytest.mark.parametrize("length", [1024, 2048])
@pytest.mark.parametrize("band", [None, (0, 100), (1000, 1001), (50, 9000)])
def test_bands_sum_as_the_filters_say(band: tuple[float, float] | None, length: int) -> None:
    power = np.random.default_rng(0).uniform(0, 1, (3, length // 2 + 1)).astype(np.float32)
    expected = power.astype(np.float64) @ mel_filters(length)[:, bands_within(band)]
    np.testing.assert_allclose(MelBands.within(band, length).of(power), expected, rtol=1e-5)


def test_a_band_of_frequencies_is_a_run_of_mel_bands() -> None:
    assert bands_within(None) == slice(0, NUM_BANDS)
    assert bands_within((0, RATE / 2)) == slice(0, NUM_BANDS)
    low, high = bands_within((0, 200)), bands_within((200, RATE / 2))
    assert 0 == low.start < low.stop == high.start < high.stop == NUM_BANDS
    # Between two middles there is none: the nearest one is taken.
    narrow = bands_within((8000, 8001))
    assert narrow.stop - narrow.start == 1
