"""Coherence: GIFfusion's gradient step, its limits, and where a chain of steps goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.errors import SettingsError
from giffusion.engine.motion.coherence import Coherence, scale_limits
from giffusion.engine.settings import RenderSettings

SHAPE = (4, 8, 6)
N = 4 * 8 * 6


def normal(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32)


def test_it_is_a_gradient_step_on_the_mean_squared_distance() -> None:
    latents, reference, noise = (normal(seed) for seed in range(3))
    step = Coherence(scale=20, alpha=0.3, noise=0.01)
    pulled, moved = step.apply(latents, reference, noise)
    x = torch.tensor(latents, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((x - torch.tensor(reference)).pow(2).mean(), x)
    expected = x.detach() - 20 * gradient + 0.01 * torch.tensor(noise)
    np.testing.assert_allclose(pulled, expected, atol=1e-6)
    np.testing.assert_allclose(moved, 0.3 * expected + 0.7 * torch.tensor(reference), atol=1e-6)
    assert pulled.dtype == moved.dtype == np.float32


def test_without_a_reference_the_latents_are_it() -> None:
    latents = normal(0)
    pulled, reference = Coherence(scale=N / 2).apply(latents, None)
    np.testing.assert_array_equal(pulled, latents)
    np.testing.assert_array_equal(reference, latents)


def test_what_is_handed_in_stays() -> None:
    latents, reference, noise = (normal(seed) for seed in range(3))
    copies = latents.copy(), reference.copy(), noise.copy()
    Coherence(scale=9, alpha=0.5, noise=1).apply(latents, reference, noise)
    for array, copy in zip((latents, reference, noise), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_the_ends_of_the_ranges() -> None:
    latents, reference = normal(0), normal(1)
    pulled, moved = Coherence(scale=0, alpha=0).apply(latents, reference)
    np.testing.assert_array_equal(pulled, latents)
    np.testing.assert_array_equal(moved, reference)
    pulled, moved = Coherence(scale=N / 2, alpha=1).apply(latents, reference)
    np.testing.assert_allclose(pulled, reference, atol=1e-6)
    np.testing.assert_allclose(moved, reference, atol=1e-6)


@given(st.floats(0, N / 2), st.floats(0, 1))
def test_a_step_never_overshoots(scale: float, alpha: float) -> None:
    latents, reference = np.ones(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    pulled, moved = Coherence(scale, alpha).apply(latents, reference)
    assert 0 <= pulled.min() <= pulled.max() <= 1
    assert (moved <= pulled).all()


@pytest.mark.parametrize("scale", [-1, N / 2 + 0.5, float("nan"), float("inf")])
def test_a_scale_that_overshoots_is_refused(scale: float) -> None:
    with pytest.raises(SettingsError, match=r"^coherence is .*: expected 0 to "):
        Coherence(scale).apply(normal(0), normal(1))


def test_the_limit_is_half_the_elements() -> None:
    assert str(scale_limits(4 * 64 * 64)) == "0 to 8192"
    with pytest.raises(SettingsError, match=r"^coherence is 9000: expected 0 to 8192$"):
        Coherence(9000).pull(4 * 64 * 64)


@pytest.mark.parametrize("name", ["coherence_alpha", "coherence_noise"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_are_from_0_to_1(name: str, value: float) -> None:
    values: dict[str, Any] = {"coherence": 1.0, name: value}
    with pytest.raises(SettingsError, match=f"^{name} .* is out of range: expected at "):
        RenderSettings(**values)
