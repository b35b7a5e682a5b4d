"""DDIM, DDPM and LCM: samplers that step from one trained timestep to another.

They read the share of signal ᾱ itself, so that a level of pure noise, ᾱ = 0, is exact.
"""

from __future__ import annotations

import math

import numpy as np

from giffusion.engine.errors import SettingsError
from giffusion.engine.samplers.rows import (
    LATENTS,
    NOISE,
    UNIT,
    Evaluations,
    Level,
    denoised,
    first_order,
    noise_in,
    table,
    unscaled,
)
from giffusion.engine.samplers.spacing import spaced_timesteps
from giffusion.engine.schedule import FloatArray, NoiseSchedule

SIGMA_DATA = 0.5
"""Standard deviation of the data in LCM's boundary conditions."""


def ddim(schedule: NoiseSchedule, num_steps: int, start: int, eta: float = 0.0) -> Evaluations:
    """DDIM (Song et al. 2020, equations 12 and 16).

    A step ends T // N timesteps below its own with every spacing, even where the next one starts
    elsewhere; at some counts of trailing spacing a trace of noise is left.

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.
        eta: share of DDPM's noise that every step adds, 0 … 1.

    Returns:
        N - start evaluations.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps.
    """
    spacing = schedule.timestep_spacing or "leading"
    timesteps = spaced_timesteps(schedule, num_steps, spacing)[start:]
    stride = schedule.num_train_timesteps // num_steps
    shares = schedule.alphas_cumprod.tolist()
    last = shares[0] if schedule.set_alpha_to_one is False else 1.0

    def step(t: int) -> FloatArray:
        share, share_after = shares[t], shares[t - stride] if t >= stride else last
        level, after = Level.of_share(share), Level.of_share(share_after)
        x0 = denoised(schedule, level)
        if eta == 0:
            return table(first_order(x0, level, after))
        added = eta * math.sqrt(_posterior(share, share_after))
        kept = math.sqrt(max(after.sigma**2 - added**2, 0.0))
        row = after.alpha * x0 + kept * noise_in(x0, level) + added * UNIT[NOISE]
        return table(row)

    first = Level.of_share(shares[int(timesteps[0])])
    return unscaled([step(int(t)) for t in timesteps], timesteps, first)


def ddpm(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DDPM (Ho et al. 2020, equation 7), from each timestep to the next; arguments as `ddim`.

    The last step ends at no noise. It adds some only with the variance `fixed_large`, and not at
    timestep 0.
    """
    if schedule.solver.variance_type == "fixed_large_log":
        raise SettingsError(
            "ddpm with variance_type 'fixed_large_log' is not supported: expected 'fixed_large' or"
            " 'fixed_small'; correct the model's scheduler_config.json or take another --sampler"
        )
    large = schedule.solver.variance_type == "fixed_large"
    spacing = schedule.timestep_spacing or "leading"
    timesteps = spaced_timesteps(schedule, num_steps, spacing)
    shares = [*schedule.alphas_cumprod[timesteps.astype(np.int64)].tolist(), 1.0]

    def step(i: int) -> FloatArray:
        share, share_after = shares[i], shares[i + 1]
        kept = share / share_after
        x0 = denoised(schedule, Level.of_share(share))
        of_x0 = math.sqrt(share_after) * (1 - kept) / (1 - share)
        of_latents = math.sqrt(kept) * (1 - share_after) / (1 - share)
        variance = 1 - kept if large else _posterior(share, share_after)
        added = math.sqrt(variance) if timesteps[i] > 0 else 0.0
        return table(of_x0 * x0 + of_latents * UNIT[LATENTS] + added * UNIT[NOISE])

    tables = [step(i) for i in range(start, num_steps)]
    return unscaled(tables, timesteps[start:], Level.of_share(shares[start]))


def lcm(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Multistep latent consistency sampling (Luo et al. 2023, algorithm 3); arguments as `ddim`.

    Timesteps are taken from those of the walk that the model was distilled from, whatever the
    spacing. Each evaluation denoises wholly; all but the last add noise up to the next timestep.
    """
    timesteps = _distilled_timesteps(schedule, num_steps)
    levels = [Level.of_share(schedule.alphas_cumprod[int(t)]) for t in timesteps]

    def step(i: int) -> FloatArray:
        scaled = timesteps[i] * schedule.solver.timestep_scaling
        norm = math.hypot(scaled, SIGMA_DATA)
        skip, out = (SIGMA_DATA / norm) ** 2, scaled / norm
        clean = out * denoised(schedule, levels[i]) + skip * UNIT[LATENTS]
        if i == num_steps - 1:
            return table(clean)
        after = levels[i + 1]
        return table(after.alpha * clean + after.sigma * UNIT[NOISE])

    tables = [step(i) for i in range(start, num_steps)]
    return unscaled(tables, timesteps[start:], levels[start])


def _posterior(share: float, share_after: float) -> float:
    """Variance of a step back between two timesteps if x0 is known (Ho et al., equation 7)."""
    return (1 - share_after) / (1 - share) * (1 - share / share_after)


def _distilled_timesteps(schedule: NoiseSchedule, num_steps: int) -> FloatArray:
    original, count = schedule.solver.original_inference_steps, schedule.num_train_timesteps
    if original > count:
        raise SettingsError(
            f"lcm's original_inference_steps {original} exceeds the schedule's {count} timesteps:"
            f" expected at most {count}; correct the model's scheduler_config.json"
        )
    if num_steps > original:
        raise SettingsError(
            f"steps {num_steps} exceeds lcm's original_inference_steps, {original}: expected 1 to"
            f" {original}, and 2 to 8 are usual; lower --steps"
        )
    distilled = np.arange(original, 0, -1) * (count // original) - 1
    chosen = np.floor(np.linspace(0, original, num_steps, endpoint=False)).astype(np.int64)
    return distilled[chosen].astype(np.float64)
