"""Typed values out of a `scheduler_config.json`, and what of such a file is refused.

`schedule.py` and `options.py` read theirs with these. A key that is absent or null takes the given
default; a wrong value ends in one line that names the key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from giffusion.engine.errors import ModelError, nearest

Config = Mapping[str, object]

MAX_SHOWN = 40
"""Characters of a wrong value in a message."""

# Schedules of other kinds (flow matching, EDM) carry none of the keys that are read here, and would
# be taken for a plain linear schedule.
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

# Options that change the results, and the values under which the samplers here are right.
_ACCEPTED: Mapping[str, tuple[object, ...]] = {
    "clip_sample": (False,),
    "disable_corrector": ([],),
    "interpolation_type": ("linear",),
    "lambda_min_clipped": (-math.inf,),
    "predict_x0": (True,),
    "sigma_max": (None,),
    "sigma_min": (None,),
    "solver_p": (None,),
    "thresholding": (False,),
    "timestep_type": ("discrete",),
    "use_beta_sigmas": (False,),
    "use_dynamic_shifting": (False,),
    "use_exponential_sigmas": (False,),
    "use_flow_sigmas": (False,),
    "use_lu_lambdas": (False,),
}


def check_supported(config: Config) -> None:
    """Raises ModelError where a configuration asks for what no sampler here does."""
    choice(config, "_class_name", "DDIMScheduler", _CLASSES)
    for key, accepted in _ACCEPTED.items():
        value = config.get(key)
        if value is not None and value not in accepted:
            raise refusal(key, written(value), f"{written(accepted[0])}, the only one supported")


def choice(config: Config, key: str, default: str, known: tuple[str, ...]) -> str:
    """Reads one of a few names."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, str) or value not in known:
        raise ModelError(
            f"the scheduler's {key} {written(value)} is unknown: {nearest(str(value), known)}"
        )
    return value


def whole(config: Config, key: str, default: int, *, low: int, high: int | None = None) -> int:
    """Reads a whole number, `low` … `high`."""
    value = config.get(key)
    value = default if value is None else value
    if type(value) is not int or value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise refusal(key, written(value), f"a whole number {limits}")
    return value


def positive(config: Config, key: str, default: float) -> float:
    """Reads a finite number above 0."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise refusal(key, written(value), "a number above 0")
    return float(value)


def fraction(config: Config, key: str, default: float) -> float:
    """Reads a number between 0 and 1, without the ends."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise refusal(key, written(value), "a number between 0 and 1")
    return float(value)


def flag(config: Config, key: str, default: bool) -> bool:
    """Reads true or false."""
    value = maybe_flag(config, key)
    return default if value is None else value


def maybe_flag(config: Config, key: str) -> bool | None:
    """Reads true or false, or None where each sampler has a default of its own."""
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise refusal(key, written(value), "true or false")
    return value


def written(value: object) -> str:
    """Writes a value as it stands in the file, shortened."""
    text = json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def refusal(key: str, got: str, expected: str) -> ModelError:
    """Makes the error for a value that cannot be used."""
    return ModelError(
        f"the scheduler's {key} is {got}: expected {expected}; correct its scheduler_config.json"
        " or take another model"
    )
