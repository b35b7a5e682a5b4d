"""A sampler, a schedule and a number of steps as one small matrix a step.

The scheduler gives every slot its own table, step by step, and the denoise graph applies them all
alike: nothing outside of this module and `samplers/` knows one sampler from another. A slot's
state is (5, 4, h, w), row 0 the latents and the others the sampler's history:

    output = model(scales[i] * state[0], timesteps[i])
    state = tables[i] @ [state; output; noise]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.errors import SettingsError
from giffusion.engine.sampler_names import KARRAS, TRAILING, canonical_sampler, split_sampler
from giffusion.engine.samplers.ddim import ddim
from giffusion.engine.samplers.registry import SAMPLERS
from giffusion.engine.samplers.rows import NOISE, Evaluations
from giffusion.engine.schedule import FloatArray, NoiseSchedule

MAX_CACHED_TABLES = 256


@dataclass(frozen=True, slots=True, eq=False)
class SamplerTable:
    """Everything that one walk from a start step to clean latents does, E evaluations.

    Row 0 starts as `init_latents` · clean latents + `init_noise` · noise of variance 1, the other
    rows as zeros; after the last evaluation row 0 is the result.

    Args:
        tables: (E, 5, 7) float64, the next state from [state; model output; noise].
        scales: (E,) float64, factor of row 0 at the model's input.
        timesteps: (E,) float64, whole numbers or between them, falling; some samplers evaluate one
            twice.
        uses_noise: (E,) bool, whether the evaluation adds fresh noise of variance 1.
        init_latents: weight of the clean latents at the start; 0 where all is noise.
        init_noise: weight of the initial noise.

    The arrays are made read-only, since tables are shared.
    """

    tables: FloatArray
    scales: FloatArray
    timesteps: FloatArray
    uses_noise: NDArray[np.bool_]
    init_latents: float
    init_noise: float

    def __post_init__(self) -> None:
        num_evaluations = len(self.timesteps)
        assert self.tables.shape == (num_evaluations, STATE_ROWS, TABLE_COLUMNS)
        assert self.scales.shape == self.uses_noise.shape == (num_evaluations,)
        for array in (self.tables, self.scales, self.timesteps, self.uses_noise):
            array.setflags(write=False)

    def __len__(self) -> int:
        """Number of evaluations of the model."""
        return len(self.timesteps)


def sampler_table(
    sampler: str,
    schedule: NoiseSchedule,
    num_steps: int,
    strength: float = 1.0,
    eta: float = 0.0,
) -> SamplerTable:
    """Makes the table of a walk, or returns it from the cache.

    Args:
        sampler: a name that `canonical_sampler` knows.
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N, from 1; `len` of the table is the evaluations.
        strength: share of it that is walked, in (0, 1]: the last ⌊N · strength⌋ steps, from clean
            latents noised to where they start; 1 starts from noise alone.
        eta: DDIM's share of DDPM's noise, 0 … 1 (Song et al. 2020, equation 16).

    Returns:
        The table, read-only; strengths that start at the same step share one.

    Raises:
        SettingsError: the sampler is unknown, does not go with `eta` or with the model's
            configuration, the schedule has no timesteps for so many steps, or the strength is out
            of its range or leaves no step.
    """
    canonical = canonical_sampler(sampler)
    if not 1 <= num_steps <= schedule.num_train_timesteps:
        raise SettingsError(
            f"steps {num_steps} is out of range: expected 1 to {schedule.num_train_timesteps},"
            " the number of timesteps that the model was trained at"
        )
    return _table(canonical, schedule, num_steps, start_step(num_steps, strength), eta)


def start_step(num_steps: int, strength: float) -> int:
    """Returns the step that a walk of a strength starts at, 0 … num_steps - 1.

    Only strength 1 starts at 0.

    Args:
        num_steps: steps of the whole walk.
        strength: share of it that is walked, in (0, 1].

    Raises:
        SettingsError: the strength is out of its range or leaves no step.
    """
    if not 0 < strength <= 1:
        raise SettingsError(f"strength {strength} is out of range: expected above 0, and at most 1")
    remaining = int(num_steps * strength)
    if remaining == 0:
        raise SettingsError(
            f"strength {strength} of {num_steps} steps leaves no step to walk: expected steps"
            " times strength to be at least 1; raise either"
        )
    return num_steps - remaining


@lru_cache(maxsize=MAX_CACHED_TABLES)
def _table(
    sampler: str, schedule: NoiseSchedule, num_steps: int, start: int, eta: float
) -> SamplerTable:
    walk = _walk(sampler, schedule, num_steps, start, eta)
    from_noise = start == 0
    return SamplerTable(
        tables=walk.tables,
        scales=walk.scales,
        timesteps=walk.timesteps,
        uses_noise=np.asarray(walk.tables[:, :, NOISE].any(axis=1)),
        init_latents=0.0 if from_noise else walk.start.alpha,
        init_noise=walk.noise_sigma if from_noise else walk.start.sigma,
    )


def _walk(
    sampler: str, schedule: NoiseSchedule, num_steps: int, start: int, eta: float
) -> Evaluations:
    base, modifier = split_sampler(sampler)
    if modifier == KARRAS:
        schedule = replace(schedule, solver=replace(schedule.solver, karras=True))
    elif modifier == TRAILING:
        schedule = replace(schedule, timestep_spacing=TRAILING)
    if eta == 0:
        return SAMPLERS[base](schedule, num_steps, start)
    if base != "ddim":
        raise SettingsError(f"eta {eta} does not go with {sampler}: expected 0; only ddim takes it")
    if not 0 < eta <= 1:
        raise SettingsError(f"eta {eta} is out of range: expected 0 to 1")
    return ddim(schedule, num_steps, start, eta)
