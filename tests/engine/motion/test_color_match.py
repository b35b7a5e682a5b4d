"""Matched colours: known values of L*a*b*, statistics, flat pictures, and no bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from giffusion.engine.motion.color_match import ColorMatch
from giffusion.engine.motion.lab import from_lab, to_lab

Pixels = NDArray[np.uint8]

# Bruce Lindbloom's colour calculator, sRGB, D65.
KNOWN = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.2408, 80.0925, 67.2032),
    (0, 255, 0): (87.7347, -86.1827, 83.1793),
    (0, 0, 255): (32.2970, 79.1875, -107.8602),
    (128, 128, 128): (53.5850, 0.0, 0.0),
    # Below the knee, where the cube root is a line.
    (2, 2, 2): (0.5484, 0.0, 0.0),
}


def scene(mean: tuple[int, int, int] = (120, 110, 100), spread: float = 30) -> Pixels:
    noise = np.random.default_rng(5).normal(size=(48, 64, 3))
    return np.clip(np.rint(mean + spread * noise), 0, 255).astype(np.uint8)


def statistics(picture: Pixels) -> NDArray[np.float32]:
    lab = to_lab(picture)
    return np.stack([lab.mean(1), lab.std(1)])


@pytest.mark.parametrize(("rgb", "lab"), KNOWN.items())
def test_known_colours(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    pixel = np.array(rgb, np.uint8).reshape(1, 1, 3)
    assert to_lab(pixel)[:, 0].tolist() == pytest.approx(lab, abs=2e-3)


def test_colours_come_back_as_themselves() -> None:
    steps = np.array([*range(0, 256, 5), 1, 2, 254], np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    np.testing.assert_array_equal(from_lab(to_lab(colours), colours.shape), colours)


@settings(max_examples=40, deadline=None)
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_a_picture_matched_to_itself_stays(picture: Pixels) -> None:
    np.testing.assert_array_equal(ColorMatch(picture).match(picture), picture)


def test_a_drift_is_taken_back() -> None:
    reference = scene()
    drifted = np.clip(reference * [0.7, 0.9, 1.1] + [60, 0, -20], 0, 255).astype(np.uint8)
    assert np.abs(statistics(drifted) - statistics(reference)).max() > 4
    matched = ColorMatch(reference).match(drifted)
    assert np.abs(statistics(matched) - statistics(reference)).max() < 0.5
    assert np.abs(matched.astype(int) - reference).mean() < 4


def test_the_reference_may_have_another_size() -> None:
    matched = ColorMatch(scene()[:10, :20]).match(scene((60, 90, 140), 20))
    assert matched.shape == (48, 64, 3)


def test_neighbouring_colours_stay_neighbours() -> None:
    # A ramp that a match of histograms would tear into bands of a two-coloured reference.
    ramp = np.repeat(np.arange(100, 160, dtype=np.uint8), 3).reshape(1, -1, 3)
    reference = np.where(np.arange(64)[:, None, None] < 32, 20, 235) * np.ones((1, 8, 3))
    matched = ColorMatch(reference.astype(np.uint8)).match(ramp).astype(int)
    steps = np.diff(matched[0, :, 0])
    assert steps.min() >= 0
    assert steps.max() <= 4


def test_a_chain_does_not_drift_away() -> None:
    reference = scene()
    match = ColorMatch(reference)
    picture = reference
    for _ in range(60):
        picture = match.match(np.minimum(picture * 1.02 + 1, 255).astype(np.uint8))
    assert np.abs(statistics(picture) - statistics(reference)).max() < 1.5


def test_a_flat_picture_takes_the_mean_and_no_contrast() -> None:
    flat = np.full((8, 8, 3), 90, np.uint8)
    matched = ColorMatch(scene()).match(flat)
    assert (matched == matched[0, 0]).all()
    assert statistics(matched)[0].tolist() == pytest.approx(statistics(scene())[0], abs=0.5)


def test_noise_of_a_flat_picture_is_at_most_doubled() -> None:
    noise = np.random.default_rng(6).integers(0, 2, (32, 32, 1))
    nearly = (90 + noise * np.ones(3)).astype(np.uint8)
    matched = ColorMatch(scene()).match(nearly)
    assert np.ptp(matched[..., 0].astype(int)) <= 4


def test_a_flat_reference_leaves_half_the_contrast() -> None:
    black = np.zeros((8, 8, 3), np.uint8)
    matched = ColorMatch(black).match(scene())
    assert matched.any()
    assert statistics(matched)[0, 0] < statistics(scene())[0, 0] / 2
