"""Blends: exact at the ends, the right formula between them, finite everywhere."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from giffusion.engine.conditions.interpolation import BLENDS, PARALLEL, Blend, lerp, slerp
from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.settings import BLENDS as BLEND_NAMES

Array = NDArray[np.float32]
SHAPE = (2, 3)

each_blend = pytest.mark.parametrize("blend", [lerp, slerp])
values = arrays(np.float32, SHAPE, elements=st.floats(-1e6, 1e6, width=32))
weights = st.floats(0, 1)
inner_weights = st.floats(2**-20, 1 - 2**-20)


def test_every_name_of_the_settings_has_its_blend() -> None:
    assert {"slerp": slerp, "lerp": lerp} == BLENDS
    assert set(BLENDS) == set(BLEND_NAMES)


@each_blend
@given(start=values, end=values)
def test_ends_are_exact(blend: Blend, start: Array, end: Array) -> None:
    assert blend(start, end, 0.0).tobytes() == start.tobytes()
    assert blend(start, end, 1.0).tobytes() == end.tobytes()


@each_blend
@given(value=values, weight=weights)
def test_between_an_array_and_itself_lies_nothing_else(
    blend: Blend, value: Array, weight: float
) -> None:
    """A key frame that holds its prompt shows the same picture, bit for bit."""
    assert blend(value, value, weight).tobytes() == value.tobytes()


@given(start=values, end=values, weight=inner_weights)
def test_lerp_is_the_weighted_mean(start: Array, end: Array, weight: float) -> None:
    expected = start.astype(np.float64) * (1 - weight) + end.astype(np.float64) * weight
    scale = max(np.abs(start).max(), np.abs(end).max(), 1e-30)
    blended = lerp(start, end, weight)
    assert blended.dtype == np.float32
    np.testing.assert_allclose(blended, expected, rtol=0, atol=4e-7 * scale)


@given(weight=inner_weights, angle=st.floats(0.05, np.pi - 0.05))
def test_slerp_turns_at_an_even_pace(weight: float, angle: float) -> None:
    """Between unit vectors it is the unit vector at that share of the angle."""
    start = np.array([1, 0], np.float32)
    end = np.array([np.cos(angle), np.sin(angle)], np.float32)
    turned = [np.cos(weight * angle), np.sin(weight * angle)]
    np.testing.assert_allclose(slerp(start, end, weight), turned, atol=1e-5)


def test_slerp_from_one_axis_to_another() -> None:
    start, end = np.array([[2, 0]], np.float32), np.array([[0, 2]], np.float32)
    middle = slerp(start, end, 0.5)
    assert middle.shape == (1, 2)
    assert middle.dtype == np.float32
    np.testing.assert_allclose(middle, [[2**0.5, 2**0.5]], rtol=1e-6)
    third = slerp(start, end, 1 / 3)
    np.testing.assert_allclose(third, [[3**0.5, 1]], rtol=1e-6)


@given(seed=st.integers(0, 1000), weight=inner_weights)
def test_slerp_keeps_the_norm_of_noise_and_lerp_does_not(seed: int, weight: float) -> None:
    start, end = initial_noise(seed, (4, 16, 16)), initial_noise(seed + 1, (4, 16, 16))
    norms = sorted(float(np.linalg.norm(noise)) for noise in (start, end))
    assert norms[0] * 0.999 <= np.linalg.norm(slerp(start, end, weight)) <= norms[1] * 1.001
    # Independent noise is nearly orthogonal: halfway, lerp is short by √2.
    assert np.linalg.norm(lerp(start, end, 0.5)) < norms[0] * 0.8


@each_blend
@given(start=values, end=values, weight=inner_weights)
def test_the_way_back_is_the_same(blend: Blend, start: Array, end: Array, weight: float) -> None:
    scale = max(np.abs(start).max(), np.abs(end).max(), 1e-30)
    there, back = blend(start, end, weight), blend(end, start, 1 - weight)
    # Near opposite vectors slerp divides by the sine, at least √(1 − PARALLEL²).
    np.testing.assert_allclose(there, back, rtol=0, atol=2e-5 * scale)


@each_blend
@given(start=values, end=values, weight=weights)
def test_the_inputs_stay_as_they_are(blend: Blend, start: Array, end: Array, weight: float) -> None:
    before = start.tobytes(), end.tobytes()
    blend(start, end, weight)
    assert (start.tobytes(), end.tobytes()) == before


@pytest.mark.parametrize("weight", [0.001, 0.25, 0.5, 0.999])
def test_slerp_is_finite_where_the_arc_is_not_defined(weight: float) -> None:
    one = initial_noise(3, (4, 4))
    zero = np.zeros_like(one)
    tiny, large = one * np.float32(1e-38), one * np.float32(1e37)
    for start, end in product([one, zero, tiny, large, -one, 2 * one], repeat=2):
        blended = slerp(start, end, weight)
        assert np.isfinite(blended).all()
        bound = max(np.linalg.norm(a.astype(np.float64)) for a in (start, end))
        assert np.linalg.norm(blended.astype(np.float64)) <= bound * 1.001
    np.testing.assert_array_equal(slerp(one, -one, weight), lerp(one, -one, weight))
    np.testing.assert_array_equal(slerp(one, zero, weight), lerp(one, zero, weight))


def test_slerp_becomes_lerp_without_a_jump() -> None:
    start, threshold = np.array([1, 0], np.float32), np.arccos(PARALLEL)
    angles = threshold - 1e-4, threshold + 1e-4
    ends = [np.array([np.cos(a), np.sin(a)], np.float32) for a in angles]
    before, after = (slerp(start, end, 0.25) for end in ends)
    np.testing.assert_allclose(before, after, atol=2e-4)
    np.testing.assert_array_equal(before, lerp(start, ends[0], 0.25))
    assert not np.array_equal(after, lerp(start, ends[1], 0.25))
