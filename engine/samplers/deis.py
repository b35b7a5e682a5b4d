"""DEIS: exponential integration with a polynomial through the last predictions of the noise.

`registry.py` names it. Row 0 holds the latents, rows 1 and 2 the last eps, newest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.polynomial import Polynomial

from giffusion.engine.samplers.rows import (
    FEW_STEPS,
    LATENTS,
    UNIT,
    Evaluations,
    Level,
    denoised,
    noise_in,
    table,
)
from giffusion.engine.samplers.spacing import solver_path
from giffusion.engine.schedule import FloatArray, NoiseSchedule


def deis(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DEIS in log rho (Zhang and Chen 2022, arXiv:2204.13902, tAB-DEIS of appendix H).

    With rho = sigma / alpha, x / alpha changes by the integral of eps over rho; eps is taken to be
    a polynomial in log rho. The walk ends at the noise of timestep 0, where that of Karras spacing
    is already before its last step.

    Args:
        schedule: the model's noise schedule.
        num_steps: steps of the whole walk, N.
        start: step to start at, 0 … N - 1.

    Returns:
        N - start evaluations.

    Raises:
        SettingsError: the schedule has no timesteps for so many steps.
    """
    solver = schedule.solver
    path = solver_path(schedule, num_steps, float(schedule.sigmas[0]))
    ratios = path.ratios
    few = solver.lower_order_final is not False and num_steps < FEW_STEPS

    def step(i: int) -> FloatArray:
        level, after = Level.of_ratio(ratios[i]), Level.of_ratio(ratios[i + 1])
        order = min(solver.order, i - start + 1, num_steps - i if few else solver.order)
        eps = noise_in(denoised(schedule, level), level)
        noises = (eps, UNIT[1], UNIT[2])
        weights = _integrals(ratios[i - order + 1 : i + 1][::-1], ratios[i + 1])
        row = UNIT[LATENTS] / level.alpha + weights @ np.stack(noises[:order])
        return table(after.alpha * row, *noises[: solver.order - 1])

    return path.walk(start, step)


def _integrals(nodes: Sequence[float], end: float) -> FloatArray:
    """Integrals over rho from nodes[0] to `end` of the Lagrange polynomials in log rho.

    With u = log(rho / nodes[0]), the antiderivative of P(u) e^u is (P − P' + P'' − …) e^u.
    """
    logs = [math.log(node / nodes[0]) for node in nodes]

    def integral(j: int) -> float:
        others = [log for k, log in enumerate(logs) if k != j]
        scale = nodes[0] / math.prod(logs[j] - other for other in others)
        basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
        terms = [(-1) ** k * basis.deriv(k) for k in range(len(nodes))]
        whole = sum(terms, Polynomial([0.0]))
        upper = math.log(end / nodes[0])
        return scale * float(whole(upper) * math.exp(upper) - whole(0.0))

    return np.array([integral(j) for j in range(len(nodes))])
