"""Which timesteps a walk evaluates, and which noise levels it passes.

The samplers of k-diffusion take a `scaled_path`, the solvers of DPM-Solver's kind a `solver_path`;
DDIM's kind takes bare `spaced_timesteps`. A path's ratios of noise to signal never rise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import SettingsError
from giffusion.engine.samplers.rows import Evaluations, Level, unscaled
from giffusion.engine.schedule import FloatArray, NoiseSchedule

KARRAS_RHO = 7.0


@dataclass(frozen=True, slots=True)
class Path:
    """The levels of a whole walk of N steps.

    Attributes:
        timesteps: (N,), where the model is evaluated.
        ratios: N + 1 ratios of noise to signal, the last where the walk ends.
    """

    timesteps: FloatArray
    ratios: list[float]

    def walk(self, start: int, step: Callable[[int], FloatArray]) -> Evaluations:
        """The evaluations from a start step on, of latents with variance 1 at every level.

        Args:
            start: step to start at, 0 … N - 1.
            step: the table (5, 7) of a step.
        """
        tables = [step(i) for i in range(start, len(self.timesteps))]
        return unscaled(tables, self.timesteps[start:], Level.of_ratio(self.ratios[start]))


def spaced_timesteps(
    schedule: NoiseSchedule,
    num_steps: int,
    spacing: str,
    *,
    fractional: bool = False,
    keep_zero: bool = True,
) -> FloatArray:
    """Timesteps of a whole walk, falling, (num_steps,).

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the walk.
        spacing: `leading`, `linspace` or `trailing`.
        fractional: whether evenly spaced timesteps stay between whole ones.
        keep_zero: whether the walk may evaluate timestep 0; otherwise it ends one above.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps.
    """
    count = schedule.num_train_timesteps
    points = num_steps if keep_zero else num_steps + 1
    if spacing == "leading":
        exact = np.arange(points)[::-1] * float(count // points) + schedule.steps_offset
    elif spacing == "linspace":
        exact = np.linspace(0, count - 1, points)[::-1]
        exact = exact if fractional else exact.round()
    else:
        exact = np.arange(count, 0, -count / num_steps).round() - 1
    # Rounding gives some counts, such as 61, one more trailing timestep, at -1: no noise level.
    timesteps = _single(exact[:num_steps])
    if timesteps[0] > count - 1 or (np.diff(timesteps) >= 0).any():
        raise SettingsError(
            f"{num_steps} steps do not fit a schedule of {count} timesteps with {spacing} spacing"
            f" and offset {schedule.steps_offset}: expected fewer; lower --steps"
        )
    return timesteps


def scaled_path(
    schedule: NoiseSchedule, num_steps: int, last: float, *, whole_karras: bool = False
) -> Path:
    """The path of k-diffusion's samplers, to the ratio `last`.

    Karras spacing runs between the ends of the walk without it, its timesteps between whole ones
    unless `whole_karras`.
    """
    spacing = schedule.timestep_spacing or "linspace"
    timesteps = spaced_timesteps(schedule, num_steps, spacing, fractional=True)
    trained = schedule.sigmas
    ratios = np.interp(timesteps, np.arange(len(trained)), trained)
    if schedule.solver.karras:
        ratios = _karras(ratios[0], ratios[-1], num_steps)
        timesteps = timesteps_of(schedule, ratios)
        timesteps = timesteps.round() if whole_karras else timesteps
    return Path(timesteps, [*ratios.tolist(), last])


def solver_path(
    schedule: NoiseSchedule, num_steps: int, last: float, spacing: str | None = None
) -> Path:
    """The path of the solvers, to the ratio `last`, which leaves the lowest timestep out.

    Where no spacing is asked for it is the model's, or even. Karras spacing runs over all trained
    levels instead, its timesteps rounded.
    """
    spacing = spacing or schedule.timestep_spacing or "linspace"
    trained = schedule.sigmas
    if schedule.solver.karras:
        ratios = _karras(trained[-1], trained[0], num_steps)
        return Path(timesteps_of(schedule, ratios).round(), [*ratios.tolist(), last])
    timesteps = spaced_timesteps(schedule, num_steps, spacing, keep_zero=False)
    return Path(timesteps, [*trained[timesteps.astype(np.int64)].tolist(), last])


def final_ratio(schedule: NoiseSchedule) -> float:
    """Where a walk ends whose configuration has a `final_sigmas_type`."""
    return 0.0 if schedule.final_sigmas_type == "zero" else float(schedule.sigmas[0])


def timesteps_of(schedule: NoiseSchedule, ratios: FloatArray) -> FloatArray:
    """Timesteps of noise levels, interpolated by the logarithm between the trained ones."""
    trained = np.log(schedule.sigmas)
    return _single(np.interp(np.log(ratios), trained, np.arange(len(trained))))


def _karras(highest: float, lowest: float, num_steps: int) -> FloatArray:
    """Levels of Karras et al. 2022, equation 5, falling."""
    ramp = np.linspace(0.0, 1.0, num_steps)
    high, low = highest ** (1 / KARRAS_RHO), lowest ** (1 / KARRAS_RHO)
    levels: FloatArray = (high + ramp * (low - high)) ** KARRAS_RHO
    # Rounding must not put an end beyond the level that the walk starts from or goes on to.
    levels[-1], levels[0] = lowest, highest
    return levels


def _single(timesteps: NDArray[np.floating]) -> FloatArray:
    """Rounds to single precision, which k-diffusion's samplers have always given to the model."""
    return timesteps.astype(np.float32).astype(np.float64)
