"""The samplers of k-diffusion: Euler, Euler ancestral, KDPM2 ancestral and LMS.

Their latents are x0 + sigma · eps, so they grow with the noise; the model sees them at variance 1.
They end at no noise, Euler where the configuration says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from giffusion.engine.samplers.rows import (
    LATENTS,
    NOISE,
    UNIT,
    Evaluations,
    Level,
    denoised,
    table,
)
from giffusion.engine.samplers.spacing import Path, final_ratio, scaled_path, timesteps_of
from giffusion.engine.schedule import FloatArray, NoiseSchedule

LMS_ORDER = 4
ANCHOR = UNIT[1]


def euler(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Euler's method (Karras et al. 2022, algorithm 2 without churn).

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.

    Returns:
        N - start evaluations.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps.
    """
    path = scaled_path(schedule, num_steps, final_ratio(schedule))

    def step(sigma: float, sigma_next: float) -> FloatArray:
        return table(UNIT[LATENTS] + (sigma_next - sigma) * _slope(schedule, sigma))

    return _walk(schedule, path, start, [step(*pair) for pair in _pairs(path, start)])


def euler_ancestral(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Euler steps below the next noise level, and noise up to it; arguments as `euler`."""
    path = scaled_path(schedule, num_steps, 0.0)

    def step(sigma: float, sigma_next: float) -> FloatArray:
        down, up = _ancestral(sigma, sigma_next)
        slope = _slope(schedule, sigma)
        return table(UNIT[LATENTS] + (down - sigma) * slope + up * UNIT[NOISE])

    return _walk(schedule, path, start, [step(*pair) for pair in _pairs(path, start)])


def kdpm2_ancestral(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DPM-Solver-2 with ancestral noise, as k-diffusion has it; arguments as `euler`.

    A step evaluates at its own level and at the geometric mean of that and of where it lands, which
    is the next level; row 1 keeps the latents that the step is taken from. The last step is one
    of Euler's, so there are 2 (N - start) - 1 evaluations.
    """
    path = scaled_path(schedule, num_steps, 0.0, whole_karras=True)
    sigmas = path.ratios
    between = timesteps_of(schedule, np.asarray(sigmas[1:-1])).tolist()
    tables, levels, timesteps = [], [], []
    for i in range(start, num_steps):
        sigma, middle = sigmas[i], sigmas[i + 1]
        slope = _slope(schedule, sigma)
        tables.append(table(UNIT[LATENTS] + (middle - sigma) * slope, UNIT[LATENTS]))
        levels.append(sigma)
        timesteps.append(path.timesteps[i])
        if middle > 0:
            down, up = _ancestral(sigma, middle)
            slope = _slope(schedule, middle)
            tables.append(table(ANCHOR + (down - sigma) * slope + up * UNIT[NOISE]))
            levels.append(middle)
            timesteps.append(between[i])
    evaluated = Path(np.array(timesteps), [*levels, 0.0])
    return _walk(schedule, evaluated, 0, tables, noisiest=sigmas[0])


def lms(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Linear multistep of order 4 over the sigmas, as k-diffusion has it; arguments as `euler`.

    Row 0 holds the latents, rows 1 … 3 the last slopes, newest first. A step integrates the
    polynomial through the slopes, of which there are fewer at first.
    """
    path = scaled_path(schedule, num_steps, 0.0)

    def step(i: int) -> FloatArray:
        known = path.ratios[max(start, i - LMS_ORDER + 1) : i + 1][::-1]
        slopes = (_slope(schedule, known[0]), *UNIT[1:LMS_ORDER])[: len(known)]
        weights = _adams_bashforth(known, path.ratios[i + 1])
        return table(UNIT[LATENTS] + weights @ np.stack(slopes), *slopes[: LMS_ORDER - 1])

    return _walk(schedule, path, start, [step(i) for i in range(start, num_steps)])


def _pairs(path: Path, start: int) -> list[tuple[float, float]]:
    return list(zip(path.ratios[start:-1], path.ratios[start + 1 :], strict=True))


def _slope(schedule: NoiseSchedule, sigma: float) -> FloatArray:
    """dx/dsigma = (x − x0) / sigma as weights (7,) (Karras et al. 2022, equation 3)."""
    level = Level.of_ratio(sigma)
    x0 = denoised(schedule, level)
    # The model sees latents of variance 1; the state is larger by 1 / alpha.
    x0[LATENTS] *= level.alpha
    return (UNIT[LATENTS] - x0) / sigma


def _ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Where a step without noise ends, and the noise that lifts it to the next level.

    The split is that of ancestral sampling, DDPM (Ho et al. 2020, section 3.2) written in sigmas:
    sigma_up² = sigma_next² (sigma² - sigma_next²) / sigma².
    """
    up = sigma_next * math.sqrt(sigma**2 - sigma_next**2) / sigma
    return sigma_next**2 / sigma, up


def _adams_bashforth(nodes: Sequence[float], end: float) -> FloatArray:
    """Integrals from nodes[0] to `end` of the nodes' Lagrange polynomials, of degree 3 at most.

    Gauss's rule of two points is exact for them.
    """
    middle, half = (nodes[0] + end) / 2, (end - nodes[0]) / 2
    points = middle + half / math.sqrt(3) * np.array([-1.0, 1.0])

    def integral(node: float) -> float:
        factors = [(points - other) / (node - other) for other in nodes if other != node]
        return half * float(np.prod([np.ones(2), *factors], axis=0).sum())

    return np.array([integral(node) for node in nodes])


def _walk(
    schedule: NoiseSchedule,
    path: Path,
    start: int,
    tables: list[FloatArray],
    noisiest: float | None = None,
) -> Evaluations:
    """Completes the tables from the start step on; `noisiest` is where the whole walk starts."""
    noisiest = path.ratios[0] if noisiest is None else noisiest
    leading = schedule.timestep_spacing == "leading"
    return Evaluations(
        tables=np.stack(tables),
        scales=np.array([Level.of_ratio(sigma).alpha for sigma in path.ratios[start:-1]]),
        timesteps=path.timesteps[start:],
        noise_sigma=math.hypot(noisiest, 1.0) if leading else noisiest,
        start=Level(1.0, path.ratios[start]),
    )
