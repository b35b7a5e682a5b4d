"""Which frames are looked at, and how near a shared palette comes to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.formats import RgbFrame
from giffusion.engine.encode.palette import (
    MAX_SAMPLE_SIDE,
    MAX_SAMPLES,
    FrameSamples,
    choose_palette,
    sample_indices,
    to_indices,
)


@given(st.integers(1, 10_000))
def test_samples_are_few_and_evenly_spaced(num_frames: int) -> None:
    chosen = sorted(sample_indices(num_frames))
    assert len(chosen) == min(num_frames, MAX_SAMPLES)
    assert (chosen[0], chosen[-1]) == (0, num_frames - 1)
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("num_frames", [1, 5, 1000])
@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2000, 3), (512, 512, 3)])
def test_samples_stay_small_and_true(num_frames: int, shape: tuple[int, int, int]) -> None:
    samples = FrameSamples(num_frames)
    for index in range(num_frames):
        samples.offer(index, np.full(shape, (10, 20, 30), np.uint8))
    pixels = samples.pixels()
    assert min(num_frames, MAX_SAMPLES) <= len(pixels) <= 2**17
    assert len(pixels) <= MAX_SAMPLE_SIDE**2 * num_frames
    assert np.array_equal(np.unique(pixels, axis=0), [(10, 20, 30)])


def test_few_colours_are_kept_as_they_are() -> None:
    colours = np.array([(0, 0, 0), (255, 255, 255), (255, 0, 0), (12, 200, 77)], np.uint8)
    frame = colours[np.random.default_rng(0).integers(0, 4, (40, 40))]
    palette = choose_palette(frame.reshape(-1, 3))
    assert np.array_equal(np.asarray(to_indices(frame, palette).convert("RGB")), frame)


def test_a_smooth_picture_stays_smooth() -> None:
    """Seen from a little away, as the eye does, dithering hides that there are 256 colours."""
    frame = _gradient()
    palette = choose_palette(frame.reshape(-1, 3))
    shown = np.asarray(to_indices(frame, palette).convert("RGB"))
    assert _psnr(shown, frame) > 27
    assert _psnr(_blurred(shown), _blurred(frame)) > 36


def _gradient() -> RgbFrame:
    y, x = np.mgrid[0:128, 0:128] / 128
    return (255 * np.stack([x, y, 0.5 + 0.5 * np.sin(4 * x + 3 * y)], -1)).astype(np.uint8)


def _blurred(frame: RgbFrame) -> RgbFrame:
    blurred: RgbFrame = frame.reshape(32, 4, 32, 4, 3).mean((1, 3)).round().astype(np.uint8)
    return blurred


def _psnr(first: RgbFrame, second: RgbFrame) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / error))
