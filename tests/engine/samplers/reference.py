"""Walks of diffusers' schedulers in double precision, and of our tables, on made-up models.

The scheduler classes are real; while one is made and driven, its module sees float64 where it
names float32, so that its betas, noise levels and steps are double.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from giffusion.engine.contract import STATE_ROWS
from giffusion.engine.sampler_names import KARRAS, TRAILING, split_sampler
from giffusion.engine.sampling import SamplerTable, sampler_table
from giffusion.engine.schedule import FloatArray, NoiseSchedule

CLASSES: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler,
    "ddpm": diffusers.DDPMScheduler,
    "deis": diffusers.DEISMultistepScheduler,
    "dpm": diffusers.DPMSolverSinglestepScheduler,
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
    "dpm_ads": diffusers.KDPM2AncestralDiscreteScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_ads": diffusers.EulerAncestralDiscreteScheduler,
    "klms": diffusers.LMSDiscreteScheduler,
    "lcm": diffusers.LCMScheduler,
    "pndms": diffusers.PNDMScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
PREDICTIONS = ("epsilon", "v_prediction")
SPACINGS = ("leading", "linspace", "trailing")
STRENGTHS = (1.0, 0.6, 0.3)
SHAPE = (1, 4, 2, 3)
MAX_ERROR = 1e-5

BASE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}

Model = Callable[[FloatArray, int], FloatArray]


@dataclasses.dataclass(frozen=True)
class Walk:
    """What one walk went through: the model's inputs, the latents after each step, timesteps."""

    inputs: list[FloatArray]
    latents: list[FloatArray]
    timesteps: list[float]


@dataclasses.dataclass
class Draws:
    """Stands for diffusers' `randn_tensor`: the noise that our walk uses at the same evaluation."""

    noises: FloatArray
    evaluation: int = 0

    def __call__(self, *_: object, **__: object) -> Any:
        return torch.from_numpy(self.noises[2 + self.evaluation])


class Double:
    """A module whose float32 is float64."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, "float64" if name == "float32" else name)


def config_of(**changes: object) -> dict[str, Any]:
    return {**BASE, **changes}


@contextmanager
def doubled(sampler: str, noises: FloatArray) -> Iterator[Draws]:
    """Lets a scheduler's module compute in double precision and draw the given noise."""
    module = sys.modules[CLASSES[split_sampler(sampler)[0]].__module__]
    draws = Draws(noises)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "np", Double(np))
        patch.setattr(module, "torch", Double(torch))
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", draws)
        yield draws


def scheduler_of(sampler: str, config: dict[str, Any], steps: int) -> Any:
    """Makes the scheduler that a name stands for; within `doubled`."""
    base, modifier = split_sampler(sampler)
    if modifier == KARRAS:
        config = {**config, "use_karras_sigmas": True}
    elif modifier == TRAILING:
        config = {**config, "timestep_spacing": "trailing"}
    scheduler = copy.deepcopy(made(base, json.dumps(config)))
    scheduler.set_timesteps(steps)
    return scheduler


@lru_cache(maxsize=8)
def made(base: str, config: str) -> Any:
    """Makes a scheduler once for many walks: KDPM2 takes its time to set a thousand timesteps."""
    cls = CLASSES[base]
    keys = cls._get_init_keys(cls)
    return cls(**{key: value for key, value in json.loads(config).items() if key in keys})


def walk_table(table: SamplerTable, model: Model, noises: FloatArray) -> Walk:
    """Applies a table as the denoise graph does; noises[0] and [1] are clean latents and noise."""
    state = np.zeros((STATE_ROWS, *SHAPE))
    state[0] = table.init_latents * noises[0] + table.init_noise * noises[1]
    walk = Walk([], [], table.timesteps.tolist())
    for i in range(len(table)):
        walk.inputs.append(table.scales[i] * state[0])
        operands = np.stack([*state, model(walk.inputs[-1], i), noises[2 + i]])
        state = np.tensordot(table.tables[i], operands, axes=1)
        walk.latents.append(state[0])
    return walk


def walk_reference(
    sampler: str,
    config: dict[str, Any],
    steps: int,
    strength: float,
    model: Model,
    noises: FloatArray,
    **options: object,
) -> Walk:
    """Drives diffusers' scheduler as its text-to-image and image-to-image pipelines do."""
    with doubled(sampler, noises) as draws:
        scheduler = scheduler_of(sampler, config, steps)
        start = (steps - min(int(steps * strength), steps)) * scheduler.order
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(start)
        timesteps = scheduler.timesteps[start:]
        clean, noise = (torch.from_numpy(n) for n in noises[:2])
        if strength == 1:
            latents = noise * scheduler.init_noise_sigma
        else:
            latents = scheduler.add_noise(clean, noise, timesteps[:1])
        return drive(scheduler, timesteps, latents, model, draws, **options)


def drive(
    scheduler: Any, timesteps: Any, latents: Any, model: Model, draws: Draws, **options: object
) -> Walk:
    """Walks from given latents over given timesteps; within `doubled`."""
    walk = Walk([], [], timesteps.double().tolist())
    for i, t in enumerate(timesteps):
        draws.evaluation = i
        walk.inputs.append(scheduler.scale_model_input(latents, t).numpy())
        output = torch.from_numpy(model(walk.inputs[-1], i))
        latents = scheduler.step(output, t, latents, **options).prev_sample
        walk.latents.append(latents.numpy())
    return walk


def models_for(evaluations: int) -> Iterator[Model]:
    """A model that ignores what it sees, and one that is linear in it."""
    outputs = np.random.default_rng(evaluations).standard_normal((evaluations, *SHAPE))
    yield lambda _, i: outputs[i]
    yield lambda x, i: 0.3 * x + outputs[i]


def relative(ours: FloatArray, theirs: FloatArray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_same(ours: Walk, theirs: Walk) -> None:
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=1e-6, atol=1e-3)
    for name in ("inputs", "latents"):
        pairs = zip(getattr(ours, name), getattr(theirs, name), strict=True)
        deviations = [relative(mine, reference) for mine, reference in pairs]
        assert all(deviation < MAX_ERROR for deviation in deviations), (name, deviations)


def assert_same_walk(
    sampler: str, config: dict[str, Any], steps: int, strength: float = 1.0, **options: float
) -> None:
    """Compares every step of our walk with diffusers' own."""
    table = sampler_table(sampler, NoiseSchedule.from_config(config), steps, strength, **options)
    noises = noises_for(table)
    for model in models_for(len(table)):
        ours = walk_table(table, model, noises)
        theirs = walk_reference(sampler, config, steps, strength, model, noises, **options)
        assert_same(ours, theirs)


def noises_for(table: SamplerTable) -> FloatArray:
    """Clean latents, their noise, and what each evaluation may add."""
    return np.random.default_rng(7).standard_normal((2 + len(table), *SHAPE))
