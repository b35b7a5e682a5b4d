"""The noise schedule that a model was trained with, as its `scheduler_config.json` states it.

`sampling.py` turns a schedule, a sampler and a number of steps into tables. A `NoiseSchedule` holds
only what every sampler here follows: a configuration that asks for anything else is refused when it
is read, so that no option is dropped silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError, nearest

FloatArray: TypeAlias = NDArray[np.float64]

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
FINAL_SIGMAS_TYPES = ("sigma_min", "zero")
MAX_TRAIN_TIMESTEPS = 100_000
MAX_BETA = 0.999

# Schedules of other kinds (flow matching, EDM) carry none of the keys below, and would be read as
# a plain linear schedule.
_CLASSES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)

# Options that change the results, and the values under which the samplers here are right. The names
# of other solvers' types stand for DPM-Solver's defaults when a configuration changes hands.
_ACCEPTED: Mapping[str, tuple[object, ...]] = {
    "algorithm_type": ("dpmsolver++", "deis"),
    "clip_sample": (False,),
    "euler_at_final": (False,),
    "interpolation_type": ("linear",),
    "lambda_min_clipped": (-math.inf,),
    "lower_order_final": (True,),
    "rescale_betas_zero_snr": (False,),
    "solver_order": (2,),
    "solver_type": ("midpoint", "bh1", "bh2", "logrho"),
    "thresholding": (False,),
    "timestep_type": ("discrete",),
    "use_beta_sigmas": (False,),
    "use_dynamic_shifting": (False,),
    "use_exponential_sigmas": (False,),
    "use_flow_sigmas": (False,),
    "use_karras_sigmas": (False,),
    "use_lu_lambdas": (False,),
    "variance_type": ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Noise levels of training, and the conventions that samplers keep with them.

    Hashable by its settings, so that tables can be cached by it.

    Args:
        betas: variance added at each training timestep, each in (0, 1).
        prediction_type: what the model returns, one of `PREDICTION_TYPES`.
        timestep_spacing: one of `TIMESTEP_SPACINGS`, or None for the sampler's own.
        steps_offset: timesteps that `leading` spacing is shifted by, 0 or more.
        set_alpha_to_one: whether DDIM's last step ends at no noise; otherwise at timestep 0.
        final_sigmas_type: where Euler and DPM-Solver end: `zero`, or `sigma_min` of timestep 0.

    Attributes:
        alphas_cumprod: share of signal left in the variance at each training timestep,
            (num_train_timesteps,), read-only.

    Raises:
        ModelError: a beta is outside of (0, 1).
    """

    betas: tuple[float, ...] = field(repr=False)
    prediction_type: str = "epsilon"
    timestep_spacing: str | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    final_sigmas_type: str = "zero"
    alphas_cumprod: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise ModelError(
                "the scheduler's betas do not describe a noise schedule: expected one or more"
                " numbers between 0 and 1; correct its scheduler_config.json"
            )
        alphas_cumprod = np.cumprod(1.0 - np.asarray(self.betas, np.float64))
        alphas_cumprod.setflags(write=False)
        object.__setattr__(self, "alphas_cumprod", alphas_cumprod)

    @property
    def num_train_timesteps(self) -> int:
        """Number of noise levels that the model was trained at."""
        return len(self.betas)

    @property
    def sigmas(self) -> FloatArray:
        """Noise to signal ratio √((1 − ᾱ) / ᾱ) at each training timestep, rising."""
        return np.sqrt((1.0 - self.alphas_cumprod) / self.alphas_cumprod)

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> NoiseSchedule:
        """Reads the contents of a diffusers `scheduler_config.json`.

        A key that is absent or null takes the default of diffusers' scheduler classes;
        `clip_sample` is off and `timestep_spacing` is left to the sampler.

        Args:
            config: the file as a dict; keys that no sampler here reads are ignored.

        Returns:
            The schedule.

        Raises:
            ModelError: a value is not usable, or asks for what the samplers here do not do.
        """
        _check_supported(config)
        spacing = config.get("timestep_spacing")
        return cls(
            betas=_betas(config),
            prediction_type=_choice(config, "prediction_type", "epsilon", PREDICTION_TYPES),
            timestep_spacing=None
            if spacing is None
            else _choice(config, "timestep_spacing", "", TIMESTEP_SPACINGS),
            steps_offset=_whole(config, "steps_offset", 0, low=0),
            set_alpha_to_one=_flag(config, "set_alpha_to_one", True),
            final_sigmas_type=_choice(config, "final_sigmas_type", "zero", FINAL_SIGMAS_TYPES),
        )


def _linear(start: float, end: float, count: int) -> FloatArray:
    """Betas of DDPM (Ho et al. 2020, section 4)."""
    return np.linspace(start, end, count)


def _scaled_linear(start: float, end: float, count: int) -> FloatArray:
    """Betas of latent diffusion (Rombach et al. 2022): their square roots are evenly spaced."""
    roots = _linear(math.sqrt(start), math.sqrt(end), count)
    return roots * roots


def _squaredcos(start: float, end: float, count: int) -> FloatArray:
    """Betas of the cosine schedule, ᾱ(t) = cos²((t + 0.008) / 1.008 · π/2), capped.

    Nichol and Dhariwal 2021, equation 17; it has no range.
    """
    times = np.arange(count + 1) / count
    alphas_cumprod = np.cos((times + 0.008) / 1.008 * (math.pi / 2)) ** 2
    betas: FloatArray = np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)
    return betas


_BETAS: Mapping[str, Callable[[float, float, int], FloatArray]] = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _squaredcos,
}


def _betas(config: Mapping[str, object]) -> tuple[float, ...]:
    count = _whole(config, "num_train_timesteps", 1000, low=1, high=MAX_TRAIN_TIMESTEPS)
    trained = config.get("trained_betas")
    if trained is not None:
        return _trained_betas(trained, count)
    formula = _BETAS[_choice(config, "beta_schedule", "linear", tuple(_BETAS))]
    start = _fraction(config, "beta_start", 0.0001)
    end = _fraction(config, "beta_end", 0.02)
    return tuple(formula(start, end, count).tolist())


def _trained_betas(trained: object, count: int) -> tuple[float, ...]:
    if not isinstance(trained, list | tuple) or len(trained) != count:
        got = f"{len(trained)} of them" if isinstance(trained, list | tuple) else repr(trained)
        raise _refusal("trained_betas", got, f"a list of num_train_timesteps, {count}, numbers")
    return tuple(_fraction({"trained_betas": beta}, "trained_betas", 0.0) for beta in trained)


def _check_supported(config: Mapping[str, object]) -> None:
    _choice(config, "_class_name", "DDIMScheduler", _CLASSES)
    for key, accepted in _ACCEPTED.items():
        value = config.get(key)
        if value is not None and value not in accepted:
            raise _refusal(key, repr(value), f"{accepted[0]!r}, the only one supported")


def _choice(config: Mapping[str, object], key: str, default: str, known: tuple[str, ...]) -> str:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, str) or value not in known:
        raise ModelError(
            f"the scheduler's {key} {value!r} is unknown: {nearest(str(value), known)}"
        )
    return value


def _whole(
    config: Mapping[str, object], key: str, default: int, *, low: int, high: int | None = None
) -> int:
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise _refusal(key, repr(value), f"a whole number {limits}")
    return value


def _fraction(config: Mapping[str, object], key: str, default: float) -> float:
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise _refusal(key, repr(value), "a number between 0 and 1")
    return float(value)


def _flag(config: Mapping[str, object], key: str, default: bool) -> bool:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise _refusal(key, repr(value), "true or false")
    return value


def _refusal(key: str, got: str, expected: str) -> ModelError:
    return ModelError(
        f"the scheduler's {key} is {got}: expected {expected}; correct its scheduler_config.json"
        " or take another model"
    )
