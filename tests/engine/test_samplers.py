"""Every sampler beside diffusers' own scheduler, and beside a model that knows the picture.

The reference keeps single precision: its noise levels are replaced by double ones, made here from
the betas, before a walk; its Euler and DPM-Solver steps still round the latents to single.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from diffusers.schedulers import scheduling_euler_ancestral_discrete as ancestral
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine import samplers
from giffusion.engine.contract import STATE_ROWS
from giffusion.engine.sampling import SamplerTable, sampler_table
from giffusion.engine.schedule import FloatArray, NoiseSchedule

REFERENCES: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "dpm++2m": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "euler_ads": EulerAncestralDiscreteScheduler,
}
PREDICTIONS = ("epsilon", "v_prediction")
SPACINGS = ("leading", "linspace", "trailing")
STEPS = (1, 2, 3, 4, 12, 20, 50)
STRENGTHS = (1.0, 0.6, 0.3)
SHAPE = (1, 4, 2, 3)

BASE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
}

# torch's tensors predate NumPy 2's copy keyword, and diffusers hands them to `np.array`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Model = Callable[[FloatArray, int], FloatArray]


@dataclasses.dataclass(frozen=True)
class Walk:
    """What one walk went through: the model's inputs, the latents after each step, timesteps."""

    inputs: list[FloatArray]
    latents: list[FloatArray]
    timesteps: list[float]


def config_of(**changes: object) -> dict[str, Any]:
    return {**BASE, **changes}


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
    sampler: str, config: dict[str, Any], steps: int, strength: float, model: Model, noises: Any
) -> Walk:
    """Drives diffusers' scheduler as its text-to-image and image-to-image pipelines do."""
    scheduler = double_precision(sampler, config, steps)
    start = steps - min(int(steps * strength), steps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(start)
    timesteps = scheduler.timesteps[start:]
    clean, noise = (torch.from_numpy(n) for n in noises[:2])
    if strength == 1:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = scheduler.add_noise(clean, noise, timesteps[:1])
    walk = Walk([], [], timesteps.double().tolist())
    for i, t in enumerate(timesteps):
        walk.inputs.append(scheduler.scale_model_input(latents, t).numpy())
        output = torch.from_numpy(model(walk.inputs[-1], i))
        latents = step_reference(scheduler, output, t, latents, torch.from_numpy(noises[2 + i]))
        walk.latents.append(latents.numpy())
    return walk


def step_reference(scheduler: Any, output: Any, t: Any, latents: Any, noise: Any) -> Any:
    if not isinstance(scheduler, EulerAncestralDiscreteScheduler):
        return scheduler.step(output, t, latents).prev_sample
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ancestral, "randn_tensor", lambda *_, **__: noise)
        return scheduler.step(output, t, latents).prev_sample


def double_precision(sampler: str, config: dict[str, Any], steps: int) -> Any:
    """The reference with its noise levels in double precision."""
    cls = REFERENCES[sampler]
    known = {k: v for k, v in config.items() if k in cls._get_init_keys(cls)}
    scheduler = cls.from_config(known)
    scheduler.set_timesteps(steps)
    alphas = np.cumprod(1 - double_betas(config))
    if sampler == "ddim":
        scheduler.alphas_cumprod = torch.from_numpy(alphas)
        last = 1.0 if scheduler.config.set_alpha_to_one else alphas[0]
        scheduler.final_alpha_cumprod = torch.tensor(last, dtype=torch.float64)
        return scheduler
    trained = np.sqrt(1 / alphas - 1)
    sigmas = np.interp(scheduler.timesteps.double().numpy(), np.arange(len(trained)), trained)
    last = trained[0] if scheduler.config.get("final_sigmas_type") == "sigma_min" else 0.0
    assert scheduler.sigmas.numpy() == pytest.approx([*sigmas, last], rel=1e-3)
    scheduler.sigmas = torch.from_numpy(np.append(sigmas, last))
    return scheduler


def double_betas(config: dict[str, Any]) -> Any:
    if config["trained_betas"] is not None:
        return np.array(config["trained_betas"])
    start, end, count = (config[k] for k in ("beta_start", "beta_end", "num_train_timesteps"))
    if config["beta_schedule"] == "linear":
        return start + (end - start) * np.arange(count) / (count - 1)
    return (start**0.5 + (end**0.5 - start**0.5) * np.arange(count) / (count - 1)) ** 2


def models_for(steps: int) -> Iterator[Model]:
    """A model that ignores what it sees, and one that is linear in it."""
    outputs = np.random.default_rng(steps).standard_normal((steps, *SHAPE))
    yield lambda _, i: outputs[i]
    yield lambda x, i: 0.3 * x + outputs[i]


def relative(ours: FloatArray, theirs: FloatArray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def assert_same_walk(sampler: str, config: dict[str, Any], steps: int, strength: float) -> None:
    table = sampler_table(sampler, NoiseSchedule.from_config(config), steps, strength)
    noises = np.random.default_rng(7).standard_normal((2 + steps, *SHAPE))
    for model in models_for(steps):
        ours = walk_table(table, model, noises)
        theirs = walk_reference(sampler, config, steps, strength, model, noises)
        assert ours.timesteps == theirs.timesteps
        for name in ("inputs", "latents"):
            pairs = zip(getattr(ours, name), getattr(theirs, name), strict=True)
            deviations = [relative(mine, reference) for mine, reference in pairs]
            assert max(deviations) < 1e-5, (name, deviations)


@pytest.mark.parametrize("sampler", REFERENCES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
def test_every_step_agrees_with_diffusers(
    sampler: str, prediction: str, spacing: str, steps: int
) -> None:
    config = config_of(prediction_type=prediction, timestep_spacing=spacing)
    for strength in STRENGTHS:
        if int(steps * strength) > 0:
            assert_same_walk(sampler, config, steps, strength)


@pytest.mark.parametrize("sampler", REFERENCES)
@pytest.mark.parametrize(
    "changes",
    [
        {"set_alpha_to_one": True, "steps_offset": 0},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "timestep_spacing": "linspace"},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"trained_betas": np.linspace(0.001, 0.2, 60).tolist(), "num_train_timesteps": 60},
        {"num_train_timesteps": 77, "timestep_spacing": "trailing"},
    ],
)
def test_every_other_setting_agrees_with_diffusers(sampler: str, changes: dict[str, Any]) -> None:
    for steps in (1, 6, 14, 15, 23):
        assert_same_walk(sampler, config_of(**changes), steps, 1.0)


@pytest.mark.parametrize("sampler", ["ddim", "dpm++2m", "euler"])
@pytest.mark.parametrize("steps", [1, 5, 16])
def test_sample_prediction_agrees_with_diffusers(sampler: str, steps: int) -> None:
    assert_same_walk(sampler, config_of(prediction_type="sample"), steps, 1.0)


@pytest.mark.parametrize("sampler", REFERENCES)
def test_without_a_spacing_each_sampler_keeps_its_own(sampler: str) -> None:
    config = config_of()
    del config["timestep_spacing"]
    for strength in STRENGTHS:
        assert_same_walk(sampler, config, 10, strength)


@pytest.mark.parametrize("sampler", REFERENCES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_start_from_noise_has_the_samplers_own_scale(sampler: str, spacing: str) -> None:
    config = config_of(timestep_spacing=spacing)
    table = sampler_table(sampler, NoiseSchedule.from_config(config), 10)
    assert table.init_latents == 0
    assert table.init_noise == pytest.approx(
        float(double_precision(sampler, config, 10).init_noise_sigma), rel=1e-12
    )


@pytest.mark.parametrize("sampler", REFERENCES)
def test_a_trailing_timestep_below_zero_is_left_out(sampler: str) -> None:
    schedule = NoiseSchedule.from_config(config_of(timestep_spacing="trailing"))
    table = sampler_table(sampler, schedule, 61)
    assert len(table) == 61
    assert (
        len(double_precision(sampler, config_of(timestep_spacing="trailing"), 61).timesteps) == 62
    )
    assert table.timesteps[-1] > 0


@given(
    sampler=st.sampled_from(sorted(REFERENCES)),
    spacing=st.sampled_from(SPACINGS),
    prediction=st.sampled_from([*PREDICTIONS, "sample"]),
    steps=st.integers(1, 60),
    strength=st.floats(0.01, 1.0),
)
def test_a_model_that_knows_the_picture_ends_on_it(
    sampler: str, spacing: str, prediction: str, steps: int, strength: float
) -> None:
    config = config_of(
        timestep_spacing=spacing, prediction_type=prediction, set_alpha_to_one=True, steps_offset=0
    )
    schedule = NoiseSchedule.from_config(config)
    assume(int(steps * strength) > 0)
    table = sampler_table(sampler, schedule, steps, strength)
    # DDIM ends by its stride, which rounding of trailing timesteps can leave at timestep 0.
    assume(sampler != "ddim" or table.timesteps[-1] < 1000 // steps)
    rng = np.random.default_rng(steps)
    noises = rng.standard_normal((2 + steps, *SHAPE))
    trained = np.arange(schedule.num_train_timesteps)
    sigmas = np.interp(table.timesteps, trained, schedule.sigmas)

    def model(seen: FloatArray, i: int) -> FloatArray:
        alpha = 1 / np.sqrt(sigmas[i] ** 2 + 1)
        eps = (seen - alpha * noises[0]) / (sigmas[i] * alpha)
        outputs: dict[str, FloatArray] = {
            "epsilon": eps,
            "sample": noises[0],
            "v_prediction": alpha * (eps - sigmas[i] * noises[0]),
        }
        return outputs[prediction]

    np.testing.assert_allclose(walk_table(table, model, noises).latents[-1], noises[0], atol=1e-6)


def test_every_sampler_has_a_reference() -> None:
    assert sorted(samplers.SAMPLERS) == sorted(REFERENCES)
