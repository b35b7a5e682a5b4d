"""Each sampler as one function that writes its evaluations as matrices; `sampling.py` calls them.

Every sampler here is linear in the latents, the model's outputs and the noise. A new one is a
function of the same signature and a line in `SAMPLERS`; one that keeps history starts it anew
at its first evaluation.

Symbols follow the papers: latents at a noise level are alpha · x0 + sigma · eps, with
alpha² + sigma² = 1 for DDIM and DPM-Solver and alpha = 1 for the Euler samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.errors import SettingsError
from giffusion.engine.schedule import FloatArray, NoiseSchedule

LATENTS = 0
LAST_DENOISED = 1
MODEL_OUTPUT = STATE_ROWS
NOISE = STATE_ROWS + 1
UNIT: tuple[FloatArray, ...] = tuple(np.eye(TABLE_COLUMNS))

# DPM-Solver's implementations end with a first-order step when they take fewer steps than this.
FEW_STEPS = 15


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level: latents there are `alpha` · x0 + `sigma` · eps."""

    alpha: float
    sigma: float


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


def ddim(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DDIM without noise (Song et al. 2020, equation 12 with sigma_t = 0).

    A step ends T // N timesteps below its own with every spacing, even where the next one starts
    elsewhere; at some counts of trailing spacing a trace of noise is left.

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.

    Returns:
        N - start evaluations.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps.
    """
    timesteps = _timesteps(schedule, num_steps, "leading")[start:]
    stride = schedule.num_train_timesteps // num_steps
    sigmas = schedule.sigmas.tolist()
    last = 0.0 if schedule.set_alpha_to_one else sigmas[0]

    def step(t: int) -> FloatArray:
        level = _level(sigmas[t])
        after = _level(sigmas[t - stride] if t >= stride else last)
        return _table(_first_order(_denoised(schedule, level), level, after))

    tables = np.stack([step(int(t)) for t in timesteps])
    first = _level(sigmas[int(timesteps[0])])
    return Evaluations(tables, np.ones(len(timesteps)), timesteps, 1.0, first)


def euler(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Euler's method (Karras et al. 2022, algorithm 2 without churn); arguments as `ddim`."""
    last = 0.0 if schedule.final_sigmas_type == "zero" else float(schedule.sigmas[0])

    def step(x0: FloatArray, sigma: float, sigma_next: float) -> FloatArray:
        return _first_order(x0, Level(1.0, sigma), Level(1.0, sigma_next))

    return _euler_walk(schedule, num_steps, start, last, step)


def euler_ancestral(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """Euler steps below the next noise level, and noise up to it; arguments as `ddim`.

    The split is that of ancestral sampling, DDPM (Ho et al. 2020, section 3.2) written in sigmas:
    sigma_up² = sigma_next² (sigma² - sigma_next²) / sigma².
    """

    def step(x0: FloatArray, sigma: float, sigma_next: float) -> FloatArray:
        sigma_up = sigma_next * math.sqrt(sigma**2 - sigma_next**2) / sigma
        sigma_down = sigma_next**2 / sigma
        row = _first_order(x0, Level(1.0, sigma), Level(1.0, sigma_down))
        return row + sigma_up * UNIT[NOISE]

    return _euler_walk(schedule, num_steps, start, 0.0, step)


def dpmpp_2m(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2 of arXiv:2211.01095); arguments as `ddim`.

    With lambda = log(alpha / sigma), h = lambda_next - lambda and r = h_previous / h, it steps with
    D = (1 + 1/2r) x0 - 1/2r x0_previous in the place of x0: at first order where there is no
    previous one, where lambda_next is infinite, and at the end of a short walk.
    """
    timesteps = _timesteps(schedule, num_steps, "linspace", keep_zero=False)
    last = 0.0 if schedule.final_sigmas_type == "zero" else float(schedule.sigmas[0])
    sigmas = [*schedule.sigmas[timesteps.astype(np.int64)].tolist(), last]

    def step(i: int) -> FloatArray:
        level, after = _level(sigmas[i]), _level(sigmas[i + 1])
        x0 = _denoised(schedule, level)
        final = i == num_steps - 1 and (last == 0 or num_steps < FEW_STEPS)
        if i == start or final:
            return _table(_first_order(x0, level, after), x0)
        h, h_previous = (math.log(sigmas[j] / sigmas[j + 1]) for j in (i, i - 1))
        weight = h / h_previous / 2
        slope = (1 + weight) * x0 - weight * UNIT[LAST_DENOISED]
        return _table(_first_order(slope, level, after), x0)

    tables = np.stack([step(i) for i in range(start, num_steps)])
    first = _level(sigmas[start])
    return Evaluations(tables, np.ones(len(tables)), timesteps[start:], 1.0, first)


SAMPLERS: Mapping[str, Sampler] = {
    "ddim": ddim,
    "dpm++2m": dpmpp_2m,
    "euler": euler,
    "euler_ads": euler_ancestral,
}


def _euler_walk(
    schedule: NoiseSchedule,
    num_steps: int,
    start: int,
    last: float,
    step: Callable[[FloatArray, float, float], FloatArray],
) -> Evaluations:
    """Walks latents x0 + sigma · eps from the start step to the sigma `last`."""
    timesteps = _timesteps(schedule, num_steps, "linspace", fractional=True)
    trained = schedule.sigmas
    sigmas = [*np.interp(timesteps, np.arange(len(trained)), trained).tolist(), last]

    def table(sigma: float, sigma_next: float) -> FloatArray:
        level = _level(sigma)
        x0 = _denoised(schedule, level)
        # The model sees latents of variance 1; the state is larger by 1 / alpha.
        x0[LATENTS] *= level.alpha
        return _table(step(x0, sigma, sigma_next))

    tables = [table(sigmas[i], sigmas[i + 1]) for i in range(start, num_steps)]
    scales = np.array([_level(sigma).alpha for sigma in sigmas[start:-1]])
    leading = schedule.timestep_spacing == "leading"
    noise_sigma = math.hypot(sigmas[0], 1.0) if leading else sigmas[0]
    first = Level(1.0, sigmas[start])
    return Evaluations(np.stack(tables), scales, timesteps[start:], noise_sigma, first)


def _timesteps(
    schedule: NoiseSchedule,
    num_steps: int,
    spacing: str,
    *,
    fractional: bool = False,
    keep_zero: bool = True,
) -> FloatArray:
    """Timesteps of a whole walk, falling, (num_steps,); `spacing` where the schedule has none.

    Args:
        fractional: whether evenly spaced timesteps stay between whole ones.
        keep_zero: whether the walk may evaluate timestep 0; otherwise it ends one above.
    """
    count = schedule.num_train_timesteps
    spacing = schedule.timestep_spacing or spacing
    points = num_steps if keep_zero else num_steps + 1
    if spacing == "leading":
        exact = np.arange(points)[::-1] * float(count // points) + schedule.steps_offset
    elif spacing == "linspace":
        exact = np.linspace(0, count - 1, points)[::-1]
        exact = exact if fractional else exact.round()
    else:
        exact = np.arange(count, 0, -count / num_steps).round() - 1
    # Rounding gives some counts, such as 61, one more trailing timestep, at -1: no noise level.
    # Single precision is what the Euler samplers have always given to the model.
    timesteps = exact[:num_steps].astype(np.float32).astype(np.float64)
    if timesteps[0] > count - 1 or (np.diff(timesteps) >= 0).any():
        raise SettingsError(
            f"{num_steps} steps do not fit a schedule of {count} timesteps with {spacing} spacing"
            f" and offset {schedule.steps_offset}: expected fewer; lower --steps"
        )
    return timesteps


def _level(sigma: float) -> Level:
    """The level of variance 1 whose ratio of noise to signal is `sigma`."""
    alpha = 1.0 / math.hypot(sigma, 1.0)
    return Level(alpha, sigma * alpha)


def _denoised(schedule: NoiseSchedule, level: Level) -> FloatArray:
    """Predicted x0 as weights (7,) of latents of variance 1 and the model's output.

    Epsilon: DDIM's equation 9; v: Salimans and Ho 2022, appendix D, v = alpha eps - sigma x0.
    """
    alpha, sigma = level.alpha, level.sigma
    weights = {
        "epsilon": (1.0 / alpha, -sigma / alpha),
        "sample": (0.0, 1.0),
        "v_prediction": (alpha, -sigma),
    }
    of_latents, of_output = weights[schedule.prediction_type]
    return of_latents * UNIT[LATENTS] + of_output * UNIT[MODEL_OUTPUT]


def _first_order(x0: FloatArray, level: Level, after: Level) -> FloatArray:
    """Latents at the next level if x0 is right: alpha' x0 + sigma' (latents - alpha x0) / sigma."""
    ratio = after.sigma / level.sigma
    return ratio * UNIT[LATENTS] + (after.alpha - level.alpha * ratio) * x0


def _table(*rows: FloatArray) -> FloatArray:
    """A matrix (5, 7) of the given rows; the history that they leave is cleared."""
    table = np.zeros((STATE_ROWS, TABLE_COLUMNS))
    table[: len(rows)] = rows
    return table
