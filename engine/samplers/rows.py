"""Rows of a sampler's tables, written as arithmetic on unit vectors.

The families' modules build on it. A row (7,) holds the weights of the state's five rows, the
model's output and the noise; sums and multiples of rows are those of the tensors they stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.errors import SettingsError
from giffusion.engine.schedule import ZERO_SNR_ALPHA, FloatArray, NoiseSchedule

LATENTS = 0
MODEL_OUTPUT = STATE_ROWS
NOISE = STATE_ROWS + 1
UNIT: tuple[FloatArray, ...] = tuple(np.eye(TABLE_COLUMNS))

# DPM-Solver's implementations end at lower order when they take fewer steps than this.
FEW_STEPS = 15


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level: latents there are `alpha` · x0 + `sigma` · eps."""

    alpha: float
    sigma: float

    @classmethod
    def of_ratio(cls, ratio: float) -> Level:
        """The level of variance 1 whose ratio of noise to signal is `ratio`."""
        alpha = 1.0 / math.hypot(ratio, 1.0)
        return cls(alpha, ratio * alpha)

    @classmethod
    def of_share(cls, share: float) -> Level:
        """The level of variance 1 of which `share`, ᾱ, is signal; 0 is pure noise."""
        return cls(math.sqrt(share), math.sqrt(1.0 - share))


@dataclass(frozen=True, slots=True)
class Evaluations:
    """What a sampler does from its start step on, E evaluations of the model.

    Attributes:
        tables: (E, 5, 7), the state after an evaluation from [state; model output; noise].
        scales: (E,), factor of the latents at the model's input.
        timesteps: (E,), timesteps that the model is evaluated at.
        noise_sigma: standard deviation of the latents when the whole schedule is walked.
        start: noise level of the first evaluation.
    """

    tables: FloatArray
    scales: FloatArray
    timesteps: FloatArray
    noise_sigma: float
    start: Level


Sampler = Callable[[NoiseSchedule, int, int], Evaluations]
"""Called with the schedule, the steps of the whole walk, N, and the step to start at, 0 … N − 1.

Raises SettingsError where the schedule has no timesteps for so many steps, or an option of the
model's configuration does not go with the sampler.
"""


def unscaled(tables: list[FloatArray], timesteps: FloatArray, start: Level) -> Evaluations:
    """The evaluations of a sampler whose latents have variance 1 at every level."""
    return Evaluations(np.stack(tables), np.ones(len(tables)), timesteps, 1.0, start)


def denoised(schedule: NoiseSchedule, level: Level) -> FloatArray:
    """Predicted x0 as weights (7,) of latents of variance 1 and the model's output.

    Epsilon: DDIM's equation 9; v: Salimans and Ho 2022, appendix D, v = alpha eps - sigma x0.

    Raises:
        SettingsError: the model predicts the noise, and the level has no signal to find beside it.
    """
    alpha, sigma = level.alpha, level.sigma
    if schedule.prediction_type == "epsilon":
        if schedule.rescale_betas_zero_snr and alpha <= ZERO_SNR_ALPHA:
            raise SettingsError(
                "the model predicts noise, and its rescale_betas_zero_snr leaves nothing else at"
                " the last timestep: expected a walk that starts below; lower --strength, take"
                " leading timestep_spacing, or take a v_prediction model"
            )
        return (UNIT[LATENTS] - sigma * UNIT[MODEL_OUTPUT]) / alpha
    if schedule.prediction_type == "sample":
        return 1.0 * UNIT[MODEL_OUTPUT]
    return alpha * UNIT[LATENTS] - sigma * UNIT[MODEL_OUTPUT]


def noise_in(x0: FloatArray, level: Level) -> FloatArray:
    """The noise eps (7,) that the latents hold if x0 is right: (latents − alpha x0) / sigma."""
    return (UNIT[LATENTS] - level.alpha * x0) / level.sigma


def first_order(x0: FloatArray, level: Level, after: Level) -> FloatArray:
    """Latents at the next level if x0 is right: alpha' x0 + sigma' (latents - alpha x0) / sigma."""
    ratio = after.sigma / level.sigma
    return ratio * UNIT[LATENTS] + (after.alpha - level.alpha * ratio) * x0


def table(*rows: FloatArray) -> FloatArray:
    """A matrix (5, 7) of the given rows; the history that they leave is cleared."""
    matrix = np.zeros((STATE_ROWS, TABLE_COLUMNS))
    matrix[: len(rows)] = rows
    return matrix
