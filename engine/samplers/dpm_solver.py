"""DPM-Solver, DPM-Solver++ and its SDE variant: multistep and singlestep, orders 1 … 3.

Lu et al. 2022, arXiv:2206.00927 and arXiv:2211.01095; `deis.py` and `unipc.py` are their
relatives. With lambda = log(alpha / sigma), a step of h in lambda multiplies the latents and adds
derivatives D of the solved quantity: x0, or eps in the first DPM-Solver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from giffusion.engine.errors import SettingsError
from giffusion.engine.samplers.rows import (
    FEW_STEPS,
    LATENTS,
    NOISE,
    UNIT,
    Evaluations,
    Level,
    denoised,
    noise_in,
    table,
)
from giffusion.engine.samplers.spacing import Path, final_ratio, solver_path
from giffusion.engine.schedule import FloatArray, NoiseSchedule

NOTHING = 0.0 * UNIT[LATENTS]


@dataclass(frozen=True, slots=True)
class Step:
    """Weights of a step from one level to another.

    Attributes:
        latents: of the latents that the step starts from.
        value: of the solved quantity.
        midpoint: of its first derivative, in the midpoint's approximation.
        slope: of its first derivative, exactly.
        curve: of its second derivative.
        noise: of fresh noise.
    """

    latents: float
    value: float
    midpoint: float
    slope: float
    curve: float
    noise: float


def dpmpp_2m(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DPM-Solver++(2M), or what the configuration's order and algorithm make of it.

    Row 0 holds the latents, rows 1 and 2 the last solved quantities, newest first. The order is
    lower where history is missing, where the walk ends at no noise, and at the end of a short walk.

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
    check_algorithm("dpm++2m", schedule)
    solver = schedule.solver
    path = solver_path(schedule, num_steps, final_ratio(schedule))
    few = solver.lower_order_final is not False and num_steps < FEW_STEPS
    first_at_end = few or solver.euler_at_final or path.ratios[-1] == 0

    def order(i: int) -> int:
        left = num_steps - i
        limit = 1 if left == 1 and first_at_end else 2 if left == 2 and few else 3
        return min(solver.order, i - start + 1, limit)

    def step(i: int) -> FloatArray:
        value = solved(schedule, path, i)
        values = (value, UNIT[1], UNIT[2])[: order(i)]
        kept = (value, UNIT[1])[: solver.order - 1]
        return table(_multistep(schedule, path, i, values), *kept)

    return path.walk(start, step)


def dpm_singlestep(schedule: NoiseSchedule, num_steps: int, start: int) -> Evaluations:
    """DPM-Solver's singlestep solvers, evenly spaced whatever the model's; arguments as `dpmpp_2m`.

    A block of as many evaluations as its order steps from one anchor: row 1, the latents of
    its first evaluation. Rows 2 and 3 hold the solved quantities since then, newest first.
    """
    check_algorithm("dpm", schedule)
    path = solver_path(schedule, num_steps, final_ratio(schedule), "linspace")
    orders = _block_orders(schedule, num_steps)

    def step(i: int) -> FloatArray:
        order = min(orders[i], i - start + 1)
        value = solved(schedule, path, i)
        anchor = UNIT[LATENTS] if order == 1 else UNIT[1]
        values = (value, UNIT[2], UNIT[3])[:order]
        kept = (value, UNIT[2])[: schedule.solver.order - 1]
        return table(_singlestep(schedule, path, i, values, anchor), anchor, *kept)

    return path.walk(start, step)


def check_algorithm(sampler: str, schedule: NoiseSchedule) -> None:
    """Raises SettingsError where the options of a configuration do not go together."""
    solver = schedule.solver
    if solver.algorithm == "dpmsolver" and schedule.final_sigmas_type == "zero":
        raise SettingsError(
            f"{sampler} with algorithm_type 'dpmsolver' cannot end at no noise: expected"
            " final_sigmas_type 'sigma_min' or algorithm_type 'dpmsolver++'; correct the model's"
            " scheduler_config.json or take another --sampler"
        )
    if solver.algorithm == "sde-dpmsolver++" and solver.order == 3:
        raise SettingsError(
            f"{sampler} with algorithm_type 'sde-dpmsolver++' is not supported at solver_order 3:"
            " expected 1 or 2; correct the model's scheduler_config.json or take another --sampler"
        )


def solved(schedule: NoiseSchedule, path: Path, i: int) -> FloatArray:
    """The quantity that the algorithm solves for as weights (7,), at step i."""
    level = Level.of_ratio(path.ratios[i])
    x0 = denoised(schedule, level)
    return noise_in(x0, level) if schedule.solver.algorithm == "dpmsolver" else x0


def step_between(schedule: NoiseSchedule, ratio: float, ratio_after: float) -> Step:
    """Weights of a step between two ratios of noise to signal; to 0 only `value` is exact."""
    level, after = Level.of_ratio(ratio), Level.of_ratio(ratio_after)
    h = math.log(ratio / ratio_after) if ratio_after > 0 else math.inf
    algorithm = schedule.solver.algorithm
    if algorithm == "dpmsolver":
        return _step(after.alpha / level.alpha, after.sigma, -h, 0.0)
    shrunk = after.sigma / level.sigma
    if algorithm == "dpmsolver++":
        return _step(shrunk, after.alpha, h, 0.0)
    noise = after.sigma * math.sqrt(-math.expm1(-2 * h))
    return _step(shrunk * math.exp(-h), after.alpha, 2 * h, noise)


def _step(latents: float, scale: float, h: float, noise: float) -> Step:
    if h == 0:
        return Step(latents, 0.0, 0.0, 0.0, 0.0, noise)
    phi = math.expm1(-h)
    slope, curve = phi / h + 1, 0.5 - (phi + h) / h**2
    return Step(latents, -scale * phi, -scale * phi / 2, scale * slope, scale * curve, noise)


def _multistep(
    schedule: NoiseSchedule, path: Path, i: int, values: tuple[FloatArray, ...]
) -> FloatArray:
    """Latents after step i from the solved quantities at it and before it, newest first."""
    ratios = path.ratios
    step = step_between(schedule, ratios[i], ratios[i + 1])
    row = step.latents * UNIT[LATENTS] + step.value * values[0] + step.noise * UNIT[NOISE]
    if len(values) == 1 or step.value == 0:
        return row
    h, h0 = (math.log(ratios[j] / ratios[j + 1]) for j in (i, i - 1))
    near = (values[0] - values[1]) * (h / h0)
    if len(values) == 2:
        return row + (step.slope if schedule.solver.heun else step.midpoint) * near
    h1 = math.log(ratios[i - 2] / ratios[i - 1])
    far = (values[1] - values[2]) * (h / h1)
    slope = near + (h0 / (h0 + h1)) * (near - far)
    return row + step.slope * slope + step.curve * (h / (h0 + h1)) * (near - far)


def _singlestep(
    schedule: NoiseSchedule,
    path: Path,
    i: int,
    values: tuple[FloatArray, ...],
    anchor: FloatArray,
) -> FloatArray:
    """Latents after step i from those of the anchor and the quantities since, newest first."""
    ratios, heun = path.ratios, schedule.solver.heun
    origin = ratios[i + 1 - len(values)]
    step = step_between(schedule, origin, ratios[i + 1])
    row = step.latents * anchor + step.value * values[-1] + step.noise * UNIT[NOISE]
    if len(values) == 1:
        return row
    h, h0 = math.log(origin / ratios[i + 1]), math.log(origin / ratios[i])
    far = (values[0] - values[-1]) * (h / h0)
    if len(values) == 2:
        return row + (step.slope if heun else step.midpoint) * far
    if not heun:
        return row + step.slope * far
    h1 = math.log(origin / ratios[i - 1])
    near = (values[1] - values[2]) * (h / h1)
    slope = (h0 * near - h1 * far) / (h0 - h1)
    return row + step.slope * slope + step.curve * 2 * h / (h0 - h1) * (far - near)


def _block_orders(schedule: NoiseSchedule, num_steps: int) -> list[int]:
    """Order of every step; what is left of the last block is taken at lower orders."""
    order, zero = schedule.solver.order, schedule.final_sigmas_type == "zero"
    block = list(range(1, order + 1))
    blocks, left = divmod(num_steps, order)
    if left == 0 and not zero and not schedule.solver.lower_order_final:
        return block * blocks
    if left == 0 and order > 1:
        blocks, left = blocks - 1, order
        orders = block * blocks + ([1, 1] if order == 2 else [1, 2, 1])
    else:
        orders = block * blocks + block[:left]
    return [*orders[:-1], 1] if zero else orders
