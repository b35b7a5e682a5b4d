"""The spline between pixels: against SciPy's, at its ends, and what it does to frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage  # type: ignore[import-untyped]  # it has no types

from giffusion.engine.motion.spline import Spline, mirror


@pytest.mark.parametrize("size", [(48, 64), (7, 5), (2, 3), (1, 9), (9, 1), (1, 1)])
def test_it_is_scipys_cubic_spline(size: tuple[int, int]) -> None:
    height, width = size
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), np.uint8)
    x, y = rng.uniform(0, width - 1, 500), rng.uniform(0, height - 1, 500)
    sampled = Spline.through(picture).sample(x, y)
    assert sampled.dtype == np.float32
    for channel, values in enumerate(sampled):
        expected = ndimage.map_coordinates(
            picture[..., channel].astype(float), [y, x], order=3, mode="mirror"
        )
        np.testing.assert_allclose(values, expected, atol=1e-3)


def test_a_pixels_place_has_its_value() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (31, 17, 3), np.uint8)
    y, x = np.mgrid[0:31, 0:17].astype(float).reshape(2, -1)
    values = Spline.through(picture).sample(x, y)
    np.testing.assert_array_equal(np.rint(values).T.reshape(picture.shape), picture)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 32), st.floats(0, 1))
def test_no_frequency_grows(cycles: int, shift: float) -> None:
    # 64 pixels of a mirrored signal repeat after 126: away from the ends it is what it was.
    x = np.arange(64)
    wave = 127.5 + 100 * np.cos(2 * np.pi * cycles / 64 * (x - 3))
    picture = np.repeat(wave.astype(np.float32)[None, :, None], 2, 0)
    inner = (x[16:-17] + shift).astype(np.float64)
    moved = Spline.through(picture).sample(inner, np.zeros(len(inner)))[0]
    assert np.abs(moved - 127.5).max() <= 100.2


@given(st.integers(1, 40), st.floats(-1e4, 1e4))
def test_mirrored_places_are_inside_and_repeat(length: int, place: float) -> None:
    folded, again = mirror(np.array([place, place + 2 * (length - 1)]), length)
    assert 0 <= folded <= length - 1
    assert again == pytest.approx(folded, abs=1e-8)


def test_mirrors_are_at_the_outermost_pixels() -> None:
    assert mirror(np.arange(-3, 8), 4).tolist() == [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]
