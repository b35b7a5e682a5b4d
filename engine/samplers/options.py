"""What a model's configuration chooses within the samplers, beside its noise schedule.

`schedule.py` keeps one with every schedule, and each sampler reads the options that diffusers'
class of the same name has; the others do not concern it.
"""

from __future__ import annotations

from dataclasses import dataclass

from giffusion.engine.samplers.config import Config, choice, flag, maybe_flag, positive, whole

MAX_ORDER = 3
"""Higher orders have no formula in DPM-Solver and DEIS, and no row of the state in UniPC."""
ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver++")
# Other solvers' names stand for a solver's own default when a configuration changes hands.
_ALGORITHMS = (*ALGORITHMS, "deis")
_SOLVER_TYPES = ("bh1", "bh2", "heun", "logrho", "midpoint")
_VARIANCES = ("fixed_large", "fixed_large_log", "fixed_small", "fixed_small_log")


@dataclass(frozen=True, slots=True)
class SolverOptions:
    """Options of diffusers' scheduler classes under which a sampler is still a table.

    Args:
        order: order of DPM-Solver, DEIS and UniPC, 1 … 3.
        algorithm: DPM-Solver's, one of `ALGORITHMS`.
        heun: whether DPM-Solver's updates are of the type heun; otherwise midpoint.
        bh1: whether UniPC's B(h) is h; otherwise e^h − 1, diffusers' bh2.
        lower_order_final: whether a short walk ends at lower order; None is the sampler's default.
        euler_at_final: whether DPM-Solver++(2M) ends at first order in longer walks too.
        karras: whether noise levels are spaced as Karras et al. 2022 do.
        variance_type: variance of DDPM's noise.
        skip_prk_steps: whether PNDM leaves its Runge-Kutta steps out; None where it is not said.
        original_inference_steps: steps of the walk that an LCM was distilled from.
        timestep_scaling: LCM's factor of timesteps in its boundary conditions.
    """

    order: int = 2
    algorithm: str = "dpmsolver++"
    heun: bool = False
    bh1: bool = False
    lower_order_final: bool | None = None
    euler_at_final: bool = False
    karras: bool = False
    variance_type: str = "fixed_small"
    skip_prk_steps: bool | None = None
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0

    @classmethod
    def from_config(cls, config: Config) -> SolverOptions:
        """Reads the contents of a diffusers `scheduler_config.json`.

        Raises:
            ModelError: a value is not usable, or asks for what the samplers here do not do.
        """
        algorithm = choice(config, "algorithm_type", "dpmsolver++", _ALGORITHMS)
        solver_type = choice(config, "solver_type", "midpoint", _SOLVER_TYPES)
        return cls(
            order=whole(config, "solver_order", 2, low=1, high=MAX_ORDER),
            algorithm=algorithm if algorithm in ALGORITHMS else "dpmsolver++",
            heun=solver_type == "heun",
            bh1=solver_type == "bh1",
            lower_order_final=maybe_flag(config, "lower_order_final"),
            euler_at_final=flag(config, "euler_at_final", False),
            karras=flag(config, "use_karras_sigmas", False),
            variance_type=choice(config, "variance_type", "fixed_small", _VARIANCES),
            skip_prk_steps=maybe_flag(config, "skip_prk_steps"),
            original_inference_steps=whole(config, "original_inference_steps", 50, low=1),
            timestep_scaling=positive(config, "timestep_scaling", 10.0),
        )
