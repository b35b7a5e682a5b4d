"""Noise as a function of its name: golden values, the distribution, independent streams."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.conditions.noise import _normal_quantile, _uniform, initial_noise, step_noise
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED, MAX_STEPS

LATENTS = (4, 64, 64)

seeds = st.integers(0, MAX_SEED)
frames = st.integers(0, MAX_FRAMES)
steps = st.integers(0, 2 * MAX_STEPS)


@pytest.mark.parametrize(
    ("noise", "golden"),
    [
        (
            initial_noise(0, (4, 2, 2)),
            [-2.2718842, -0.7013279, -1.2189802, 0.16217156, 0.005964819, -0.5899694],
        ),
        (
            initial_noise(MAX_SEED, (6,)),
            [1.445254, -0.9093972, 0.30352965, -0.033939738, 1.2145147, 2.3765306],
        ),
        (
            initial_noise(42, (6,)),
            [0.91612047, -0.8806796, 1.1154016, -0.26739773, -0.33681428, -0.1650654],
        ),
        (
            step_noise(42, 0, 0, (6,)),
            [-1.1153535, 1.1052996, -0.27788115, 0.119016476, 0.40819883, 0.35724348],
        ),
        (
            step_noise(42, 7, 3, (6,)),
            [1.2501125, -1.5638477, 0.14986919, 0.7247716, -0.48072773, 0.7794181],
        ),
    ],
    ids=["seed 0", "largest seed", "initial", "first step", "later step"],
)
def test_golden_values(noise: NDArray[np.float32], golden: list[float]) -> None:
    """Pictures of a seed are the same in every version and on every machine."""
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise.ravel()[: len(golden)], np.array(golden, np.float32))


def test_quantile_against_the_standard_library() -> None:
    exponents = np.arange(1, 53)
    tails = 2.0**-exponents
    uniform = np.concatenate([tails, 1 - tails, np.linspace(0.001, 0.999, 999)])
    expected = [NormalDist().inv_cdf(u) for u in uniform]
    np.testing.assert_allclose(_normal_quantile(uniform), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(
    ("uniform", "quantile"),
    [(0.5, 0.0), (0.975, 1.959963984540054), (0.0013498980316300946, -3.0), (1e-20, -9.2623400897)],
)
def test_quantile_at_textbook_values(uniform: float, quantile: float) -> None:
    assert _normal_quantile(np.array([uniform]))[0] == pytest.approx(quantile, rel=1e-9, abs=0)


def test_the_extreme_bits_stay_inside_of_0_and_1() -> None:
    raw = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    uniform = _uniform(raw)
    assert 0 < uniform[0] < 2.0**-52
    assert uniform[3] < 1
    np.testing.assert_array_equal(uniform, 1 - uniform[::-1])
    normal = _normal_quantile(uniform)
    assert 8 < normal[3] < 9
    np.testing.assert_allclose(normal, -normal[::-1])


@given(raw=st.integers(0, 2**64 - 1))
def test_mirrored_bits_give_mirrored_values(raw: int) -> None:
    pair = _uniform(np.array([raw, 2**64 - 1 - raw], np.uint64))
    assert pair.sum() == 1
    low, high = _normal_quantile(pair)
    assert low == pytest.approx(-high, rel=1e-12)


@pytest.mark.parametrize("noise", [initial_noise(5, LATENTS), step_noise(5, 1, 1, LATENTS)])
def test_values_are_standard_normal(noise: NDArray[np.float32]) -> None:
    x = np.sort(noise.astype(np.float64).ravel())
    n = x.size
    # Standard errors of the sample's moments; 4 of them.
    assert abs(x.mean()) < 4 * math.sqrt(1 / n)
    assert abs((x**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    # Kolmogorov and Smirnov's distance; 1.95 / √n is exceeded once in a thousand samples.
    cdf = np.array([NormalDist().cdf(value) for value in x])
    distance = max(
        np.abs(cdf - np.arange(n) / n).max(), np.abs(cdf - np.arange(1, n + 1) / n).max()
    )
    assert distance < 1.95 / math.sqrt(n)


def test_streams_do_not_correlate_at_any_shift() -> None:
    """Nor with themselves: a counter that streams share would show as a shifted copy."""
    streams = {
        "initial": initial_noise(1, LATENTS),
        "next seed": initial_noise(2, LATENTS),
        "far seed": initial_noise(1 + 2**32, LATENTS),
        "step": step_noise(1, 0, 0, LATENTS),
        "next step": step_noise(1, 0, 1, LATENTS),
        "next frame": step_noise(1, 1, 0, LATENTS),
        "step of the next seed": step_noise(2, 0, 0, LATENTS),
    }
    spectra = {name: np.fft.rfft(noise.ravel()) for name, noise in streams.items()}
    n = math.prod(LATENTS)
    for (name, a), (other, b) in combinations(spectra.items(), 2):
        correlations = np.fft.irfft(a * b.conj()) / n
        # The largest of n normal values of deviation 1 / √n; 6 of them happens once in 30000.
        assert np.abs(correlations).max() < 6 / math.sqrt(n), (name, other)
    alone = np.fft.irfft(np.abs(spectra["initial"]) ** 2)[1:] / n
    assert np.abs(alone).max() < 6 / math.sqrt(n)


@given(seed=seeds, frame=frames, step=steps)
def test_every_name_is_a_stream_of_its_own(seed: int, frame: int, step: int) -> None:
    shape = (2, 3)
    neighbours = [
        initial_noise(seed, shape),
        initial_noise(seed ^ 1, shape),
        step_noise(seed, frame, step, shape),
        step_noise(seed ^ 1, frame, step, shape),
        step_noise(seed, frame + 1, step, shape),
        step_noise(seed, frame, step + 1, shape),
    ]
    if frame != step:
        neighbours.append(step_noise(seed, step, frame, shape))
    assert len({noise.tobytes() for noise in neighbours}) == len(neighbours)
    assert all(np.isfinite(noise).all() for noise in neighbours)


@given(seed=seeds, frame=frames, step=steps, before=st.lists(st.tuples(seeds, frames), max_size=3))
def test_what_was_drawn_before_does_not_matter(
    seed: int, frame: int, step: int, before: list[tuple[int, int]]
) -> None:
    initial = initial_noise(seed, (4, 4, 4))
    stepped = step_noise(seed, frame, step, (4, 4, 4))
    for other_seed, other_frame in before:
        initial_noise(other_seed, (3,))
        step_noise(other_seed, other_frame, 0, (3,))
    np.testing.assert_array_equal(step_noise(seed, frame, step, (4, 4, 4)), stepped)
    np.testing.assert_array_equal(initial_noise(seed, (4, 4, 4)), initial)
