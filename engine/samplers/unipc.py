"""UniPC: a predictor, and a corrector that uses the evaluation which the predictor made.

`registry.py` names it. The corrector of a step is folded into the next table, so that a step
costs one evaluation. Row 0 holds the predicted latents, row 1 the corrected ones of the step
before, rows 2 … 4 the last predictions of x0, newest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from giffusion.engine.errors import SettingsError
from giffusion.engine.samplers.rows import (
    LATENTS,
    UNIT,
    Evaluations,
    Level,
    denoised,
    table,
)
from giffusion.engine.samplers.spacing import final_ratio, solver_path
from giffusion.engine.schedule import FloatArray, NoiseSchedule

CORRECTED = UNIT[1]
HISTORY = UNIT[2:5]


def unipc(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """UniPC on x0 (Zhao et al. 2023, arXiv:2302.04867, algorithms 5 and 6).

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.

    Returns:
        N - start evaluations.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps, or its configuration's
            options do not go together.
    """
    solver = schedule.solver
    _check(schedule)
    path = solver_path(schedule, num_steps, final_ratio(schedule))
    ratios, lower = path.ratios, solver.lower_order_final is not False

    def order(i: int) -> int:
        return min(solver.order, i - start + 1, num_steps - i if lower else solver.order)

    def interval(i: int) -> _Interval:
        return _Interval(ratios[i - order(i) + 1 : i + 1][::-1], ratios[i + 1], solver.bh1)

    def step(i: int) -> FloatArray:
        x0 = denoised(schedule, Level.of_ratio(ratios[i]))
        latents = UNIT[LATENTS]
        if i > start:
            latents = _corrected(interval(i - 1), CORRECTED, HISTORY[: order(i - 1)], x0)
        predictions = (x0, *HISTORY)
        after = _predicted(interval(i), latents, predictions[: order(i)])
        return table(after, latents, *predictions[: solver.order])

    return path.walk(start, step)


@dataclass(frozen=True, slots=True)
class _Interval:
    """A step: the ratios that its predictions were made at, newest first, and where it ends."""

    nodes: Sequence[float]
    end: float
    bh1: bool

    @property
    def h(self) -> float:
        return math.log(self.nodes[0] / self.end) if self.end > 0 else math.inf

    @property
    def places(self) -> list[float]:
        """r: where the earlier predictions lie in lambda; 0 is the step's start and 1 its end."""
        return [math.log(self.nodes[0] / node) / self.h for node in self.nodes[1:]]

    @property
    def scale(self) -> float:
        """alpha' B(h) of the derivatives."""
        return Level.of_ratio(self.end).alpha * (-self.h if self.bh1 else math.expm1(-self.h))

    def first_order(self, latents: FloatArray, x0: FloatArray) -> FloatArray:
        level, after = Level.of_ratio(self.nodes[0]), Level.of_ratio(self.end)
        return after.sigma / level.sigma * latents - after.alpha * math.expm1(-self.h) * x0

    def moments(self, count: int) -> FloatArray:
        """The right-hand side b of equation 10 for x0, with h negative."""
        hh, moments, factorial = -self.h, [], 1.0
        phi = math.expm1(hh) / hh - 1
        big = hh if self.bh1 else math.expm1(hh)
        for k in range(1, count + 1):
            moments.append(phi * factorial / big)
            factorial *= k + 1
            phi = phi / hh - 1 / factorial
        return np.array(moments)


def _predicted(
    interval: _Interval, latents: FloatArray, predictions: Sequence[FloatArray]
) -> FloatArray:
    """UniP: latents at the end of a step from x0 at its start and before, newest first."""
    row = interval.first_order(latents, predictions[0])
    if len(predictions) == 1 or interval.h == 0:
        return row
    return row + _bend(interval, predictions, interval.places)


def _corrected(
    interval: _Interval, latents: FloatArray, predictions: Sequence[FloatArray], x0: FloatArray
) -> FloatArray:
    """UniC: the same with x0 at its end too."""
    row = interval.first_order(latents, predictions[0])
    return row + _bend(interval, (*predictions, x0), [*interval.places, 1.0])


def _bend(
    interval: _Interval, predictions: Sequence[FloatArray], places: Sequence[float]
) -> FloatArray:
    """What x0 at further places changes of the first-order step."""
    first, *others = predictions
    slopes = np.stack([(m - first) / r for m, r in zip(others, places, strict=True)])
    weights = np.array([0.5])
    if len(slopes) > 1:
        weights = _solve(places, interval.moments(len(places)))
    return -interval.scale * (weights @ slopes)


def _solve(places: Sequence[float], moments: FloatArray) -> FloatArray:
    """Weights that make the derivatives right to their number."""
    powers = np.vander(np.asarray(places), increasing=True).T
    return np.asarray(np.linalg.solve(powers, moments), np.float64)


def _check(schedule: NoiseSchedule) -> None:
    solver = schedule.solver
    if solver.lower_order_final is False and solver.order > 1 and final_ratio(schedule) == 0:
        raise SettingsError(
            f"unipc of solver_order {solver.order} with lower_order_final false cannot end at no"
            " noise: expected lower_order_final true or final_sigmas_type 'sigma_min'; correct"
            " the model's scheduler_config.json or take another --sampler"
        )
