"""The noise schedule that a model was trained with, as its `scheduler_config.json` states it.

`sampling.py` turns a schedule, a sampler and a number of steps into tables. A configuration that
asks for what no sampler here does is refused when it is read, so that no option is dropped
silently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError
from giffusion.engine.samplers.config import (
    Config,
    check_supported,
    choice,
    flag,
    fraction,
    maybe_flag,
    refusal,
    whole,
    written,
)
from giffusion.engine.samplers.options import SolverOptions

FloatArray: TypeAlias = NDArray[np.float64]

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("leading", "linspace", "trailing")
FINAL_SIGMAS_TYPES = ("sigma_min", "zero")
MAX_TRAIN_TIMESTEPS = 100_000
MAX_BETA = 0.999
ZERO_SNR_ALPHA = 2.0**-12
"""Stands for alpha = 0 where a sampler divides by it, as in diffusers: the root of 2^-24."""


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Noise levels of training, and the conventions that samplers keep with them.

    Hashable by its settings, so that tables can be cached by it.

    Args:
        betas: variance added at each training timestep, each in (0, 1).
        prediction_type: what the model returns, one of `PREDICTION_TYPES`.
        timestep_spacing: one of `TIMESTEP_SPACINGS`, or None for the sampler's own.
        steps_offset: timesteps that `leading` spacing is shifted by, 0 or more.
        set_alpha_to_one: whether the last step of DDIM and PNDM ends at no noise; otherwise at
            timestep 0. None is the sampler's default: DDIM does, PNDM does not.
        final_sigmas_type: where Euler, DPM-Solver and UniPC end: `zero`, or `sigma_min` of
            timestep 0.
        rescale_betas_zero_snr: whether the schedule is stretched until nothing of the signal is
            left at its last timestep (Lin et al. 2023, algorithm 1 of arXiv:2305.08891).
        solver: what the configuration chooses within the samplers.

    Attributes:
        alphas_cumprod: share of signal left in the variance at each training timestep,
            (num_train_timesteps,), read-only; the last is 0 where the schedule is rescaled.

    Raises:
        ModelError: a beta is outside of (0, 1), or a single one is to be rescaled.
    """

    betas: tuple[float, ...] = field(repr=False)
    prediction_type: str = "epsilon"
    timestep_spacing: str | None = None
    steps_offset: int = 0
    set_alpha_to_one: bool | None = None
    final_sigmas_type: str = "zero"
    rescale_betas_zero_snr: bool = False
    solver: SolverOptions = field(default_factory=SolverOptions)
    alphas_cumprod: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.betas or not all(0 < beta < 1 for beta in self.betas):
            raise ModelError(
                "the scheduler's betas do not describe a noise schedule: expected one or more"
                " numbers between 0 and 1; correct its scheduler_config.json"
            )
        alphas_cumprod = np.cumprod(1.0 - np.asarray(self.betas), dtype=np.float64)
        if self.rescale_betas_zero_snr:
            if len(self.betas) == 1:
                raise refusal("rescale_betas_zero_snr", "true with one timestep", "false")
            alphas_cumprod = _rescaled(alphas_cumprod)
        alphas_cumprod.setflags(write=False)
        object.__setattr__(self, "alphas_cumprod", alphas_cumprod)

    @property
    def num_train_timesteps(self) -> int:
        """Number of noise levels that the model was trained at."""
        return len(self.betas)

    @property
    def sigmas(self) -> FloatArray:
        """Noise to signal ratio √((1 − ᾱ) / ᾱ) at each training timestep, rising and finite."""
        alphas_cumprod = self.alphas_cumprod
        if self.rescale_betas_zero_snr:
            alphas_cumprod = np.append(alphas_cumprod[:-1], ZERO_SNR_ALPHA**2)
        return np.sqrt((1.0 - alphas_cumprod) / alphas_cumprod)

    @classmethod
    def from_config(cls, config: Config) -> NoiseSchedule:
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
        check_supported(config)
        spacing = config.get("timestep_spacing")
        return cls(
            betas=_betas(config),
            prediction_type=choice(config, "prediction_type", "epsilon", PREDICTION_TYPES),
            timestep_spacing=None
            if spacing is None
            else choice(config, "timestep_spacing", "", TIMESTEP_SPACINGS),
            steps_offset=whole(config, "steps_offset", 0, low=0),
            set_alpha_to_one=maybe_flag(config, "set_alpha_to_one"),
            final_sigmas_type=choice(config, "final_sigmas_type", "zero", FINAL_SIGMAS_TYPES),
            rescale_betas_zero_snr=flag(config, "rescale_betas_zero_snr", False),
            solver=SolverOptions.from_config(config),
        )


def _rescaled(alphas_cumprod: FloatArray) -> FloatArray:
    """Shifts the signal's amplitudes to end at 0, and scales them to begin where they did."""
    amplitudes = np.sqrt(alphas_cumprod)
    first, last = amplitudes[0], amplitudes[-1]
    rescaled: FloatArray = ((amplitudes - last) * (first / (first - last))) ** 2
    return rescaled


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


def _betas(config: Config) -> tuple[float, ...]:
    count = whole(config, "num_train_timesteps", 1000, low=1, high=MAX_TRAIN_TIMESTEPS)
    trained = config.get("trained_betas")
    if trained is not None:
        return _trained_betas(trained, count)
    formula = _BETAS[choice(config, "beta_schedule", "linear", tuple(_BETAS))]
    start = fraction(config, "beta_start", 0.0001)
    end = fraction(config, "beta_end", 0.02)
    return tuple(formula(start, end, count).tolist())


def _trained_betas(trained: object, count: int) -> tuple[float, ...]:
    if not isinstance(trained, list | tuple) or len(trained) != count:
        got = f"a list of {len(trained)}" if isinstance(trained, list | tuple) else written(trained)
        raise refusal("trained_betas", got, f"a list of num_train_timesteps, {count}, numbers")
    return tuple(fraction({"trained_betas": beta}, "trained_betas", 0.0) for beta in trained)
