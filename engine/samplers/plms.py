"""PLMS: PNDM without its Runge-Kutta steps, a linear multistep method on the model's outputs.

`registry.py` names it. State: row 0 the latents, rows 1 … 3 the last outputs, newest first; after
the first evaluation row 2 holds the latents that it started from.
"""

from __future__ import annotations

import numpy as np

from giffusion.engine.errors import SettingsError
from giffusion.engine.samplers.rows import (
    LATENTS,
    MODEL_OUTPUT,
    UNIT,
    Evaluations,
    Level,
    denoised,
    first_order,
    table,
    unscaled,
)
from giffusion.engine.samplers.spacing import spaced_timesteps
from giffusion.engine.schedule import FloatArray, NoiseSchedule

HISTORY = UNIT[1:4]
ANCHOR = UNIT[2]
# Adams-Bashforth, by the number of outputs, newest first.
WEIGHTS = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def plms(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """PLMS (Liu et al. 2022, arXiv:2202.09778, equations 11 and 12, as latent diffusion runs it).

    The first step is taken twice, the second time with the mean of the outputs at its two ends. A
    step ends T // N timesteps below its own with every spacing.

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.

    Returns:
        N - start + 1 evaluations, or 1 where a single step is walked.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps, or its configuration does
            not go with PLMS.
    """
    _check(schedule)
    spacing = schedule.timestep_spacing or "leading"
    steps = spaced_timesteps(schedule, num_steps, spacing)[start:].astype(np.int64).tolist()
    stride = schedule.num_train_timesteps // num_steps
    shares = schedule.alphas_cumprod.tolist()
    last = 1.0 if schedule.set_alpha_to_one else shares[0]

    def level_at(t: int) -> Level:
        return Level.of_share(shares[t] if t >= 0 else last)

    def moved(t: int, output: FloatArray, latents: FloatArray) -> FloatArray:
        level, after = level_at(t), level_at(t - stride)
        if level.alpha == 0:
            raise SettingsError(
                "pndms cannot step from the last timestep of a model with rescale_betas_zero_snr:"
                " expected leading timestep_spacing; take another --sampler, such as ddim"
            )
        row = first_order(denoised(schedule, level), level, after)
        of_latents, of_output = float(row[LATENTS]), float(row[MODEL_OUTPUT])
        return of_latents * latents + of_output * output

    def step(i: int) -> FloatArray:
        known = min(i, len(WEIGHTS))
        outputs = (UNIT[MODEL_OUTPUT], *HISTORY)[:known]
        mean = np.asarray(WEIGHTS[known - 1]) @ np.stack(outputs)
        return table(moved(steps[i - 1], mean, UNIT[LATENTS]), *outputs[:3])

    new = UNIT[MODEL_OUTPUT]
    tables = [table(moved(steps[0], new, UNIT[LATENTS]), new, UNIT[LATENTS])]
    if len(steps) > 1:
        again = moved(steps[1] + stride, (new + HISTORY[0]) / 2, ANCHOR)
        tables.append(table(again, HISTORY[0]))
        tables += [step(i) for i in range(2, len(steps) + 1)]
    timesteps = np.array([*steps[:2], *steps[1:]] if len(steps) > 1 else steps, np.float64)
    return unscaled(tables, timesteps, level_at(steps[0]))


def _check(schedule: NoiseSchedule) -> None:
    if schedule.solver.skip_prk_steps is False:
        raise SettingsError(
            "pndms with skip_prk_steps false is not supported: expected true, as Stable Diffusion"
            " has it; correct the model's scheduler_config.json or take another --sampler"
        )
    if schedule.prediction_type == "sample":
        raise SettingsError(
            "pndms does not go with a model that predicts the sample: expected epsilon or"
            " v_prediction; take another --sampler, such as ddim"
        )
