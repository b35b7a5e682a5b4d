"""The noise schedule read from a scheduler's configuration, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler

from giffusion.engine.errors import ModelError
from giffusion.engine.samplers.options import SolverOptions
from giffusion.engine.schedule import MAX_TRAIN_TIMESTEPS, NoiseSchedule

STABLE_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
TRAINED = np.linspace(0.001, 0.3, 40).tolist()


@pytest.mark.parametrize(
    "config",
    [
        {},
        STABLE_DIFFUSION,
        {"beta_schedule": "linear", "num_train_timesteps": 250},
        {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 100},
        {"trained_betas": TRAINED, "num_train_timesteps": 40},
    ],
)
def test_betas_are_those_of_diffusers(config: dict[str, Any]) -> None:
    schedule = NoiseSchedule.from_config(config)
    theirs = DDIMScheduler(**config)
    # Theirs are made in single precision; the last of a cosine schedule is 1 - 0.999.
    np.testing.assert_allclose(schedule.betas, theirs.betas.numpy(), rtol=2e-5)
    np.testing.assert_allclose(
        schedule.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=1e-4, atol=1e-9
    )
    assert schedule.alphas_cumprod.dtype == np.float64
    assert schedule.num_train_timesteps == theirs.config.num_train_timesteps


def test_alphas_cumprod_is_the_product_of_what_each_step_keeps() -> None:
    schedule = NoiseSchedule(betas=(0.1, 0.2, 0.5))
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.72, 0.36], rtol=1e-15)
    np.testing.assert_allclose(schedule.sigmas**2, [0.1 / 0.9, 0.28 / 0.72, 0.64 / 0.36])


def test_absent_and_null_keys_take_the_defaults() -> None:
    schedule = NoiseSchedule.from_config({})
    assert schedule == NoiseSchedule(betas=schedule.betas)
    assert (schedule.betas[0], schedule.betas[-1]) == (0.0001, 0.02)
    nulls = {
        "trained_betas": None,
        "timestep_spacing": None,
        "clip_sample": None,
        "sigma_min": None,
    }
    assert NoiseSchedule.from_config(nulls) == schedule


def test_every_setting_is_read() -> None:
    schedule = NoiseSchedule.from_config(
        {
            "_class_name": "EulerDiscreteScheduler",
            "prediction_type": "sample",
            "timestep_spacing": "trailing",
            "steps_offset": 1,
            "set_alpha_to_one": False,
            "final_sigmas_type": "sigma_min",
            "skip_prk_steps": True,
            "rescale_betas_zero_snr": True,
            "solver_order": 3,
            "algorithm_type": "sde-dpmsolver++",
            "solver_type": "heun",
            "lower_order_final": False,
            "euler_at_final": True,
            "use_karras_sigmas": True,
            "variance_type": "fixed_large",
            "original_inference_steps": 40,
            "timestep_scaling": 9,
        }
    )
    assert schedule.prediction_type == "sample"
    assert schedule.timestep_spacing == "trailing"
    assert schedule.steps_offset == 1
    assert schedule.set_alpha_to_one is False
    assert schedule.final_sigmas_type == "sigma_min"
    assert schedule.rescale_betas_zero_snr
    assert schedule.solver == SolverOptions(
        order=3,
        algorithm="sde-dpmsolver++",
        heun=True,
        bh1=False,
        lower_order_final=False,
        euler_at_final=True,
        karras=True,
        variance_type="fixed_large",
        skip_prk_steps=True,
        original_inference_steps=40,
        timestep_scaling=9.0,
    )


@pytest.mark.parametrize("name", ["deis", "dpmsolver++"])
@pytest.mark.parametrize("solver_type", ["midpoint", "logrho", "bh2"])
def test_other_solvers_names_stand_for_each_ones_default(name: str, solver_type: str) -> None:
    changed_hands = {"algorithm_type": name, "solver_type": solver_type}
    assert NoiseSchedule.from_config(changed_hands).solver == SolverOptions()
    assert NoiseSchedule.from_config({"solver_type": "bh1"}).solver == SolverOptions(bh1=True)


@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_a_rescaled_schedule_is_that_of_diffusers(schedule: str) -> None:
    config = {**STABLE_DIFFUSION, "beta_schedule": schedule, "rescale_betas_zero_snr": True}
    ours, theirs = NoiseSchedule.from_config(config), DDIMScheduler(**config)
    np.testing.assert_allclose(
        ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=5e-3, atol=1e-9
    )
    assert ours.alphas_cumprod[-1] == 0
    plain = NoiseSchedule.from_config({**config, "rescale_betas_zero_snr": False})
    assert ours.alphas_cumprod[0] == pytest.approx(plain.alphas_cumprod[0], rel=1e-12)
    # Samplers that divide by alpha take diffusers' stand-in for 0.
    assert np.isfinite(ours.sigmas).all()
    assert ours.sigmas[-1] == pytest.approx(2.0**12, rel=1e-6)


def test_a_single_timestep_cannot_be_rescaled() -> None:
    with pytest.raises(ModelError, match="rescale_betas_zero_snr"):
        NoiseSchedule(betas=(0.5,), rescale_betas_zero_snr=True)


def test_options_spelled_out_at_their_defaults_are_accepted() -> None:
    spelled_out = {
        "algorithm_type": "dpmsolver++",
        "clip_sample": False,
        "euler_at_final": False,
        "interpolation_type": "linear",
        "lambda_min_clipped": -math.inf,
        "disable_corrector": [],
        "predict_x0": True,
        "solver_p": None,
        "solver_order": 2,
        "solver_type": "midpoint",
        "thresholding": False,
        "timestep_type": "discrete",
        "use_karras_sigmas": False,
        "variance_type": "fixed_small",
    }
    assert NoiseSchedule.from_config(spelled_out) == NoiseSchedule.from_config({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("thresholding", True),
        ("clip_sample", True),
        ("rescale_betas_zero_snr", 1),
        ("use_karras_sigmas", "yes"),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
        ("use_flow_sigmas", True),
        ("use_lu_lambdas", True),
        ("use_dynamic_shifting", True),
        ("variance_type", "learned"),
        ("variance_type", "learned_range"),
        ("algorithm_type", "sde-dpmsolver"),
        ("solver_order", 4),
        ("solver_order", 0),
        ("solver_type", "bh3"),
        ("lower_order_final", 0),
        ("euler_at_final", "no"),
        ("predict_x0", False),
        ("disable_corrector", [0]),
        ("solver_p", {}),
        ("sigma_min", 0.1),
        ("sigma_max", 700.0),
        ("skip_prk_steps", 1),
        ("original_inference_steps", 0),
        ("timestep_scaling", 0),
        ("timestep_scaling", math.inf),
        ("lambda_min_clipped", -5.1),
        ("interpolation_type", "log_linear"),
        ("timestep_type", "continuous"),
        ("beta_schedule", "sigmoid"),
        ("beta_schedule", ["linear"]),
        ("prediction_type", "flow_prediction"),
        ("timestep_spacing", "karras"),
        ("final_sigmas_type", "one"),
        ("_class_name", "FlowMatchEulerDiscreteScheduler"),
        ("steps_offset", -1),
        ("steps_offset", 0.5),
        ("set_alpha_to_one", 1),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", True),
        ("num_train_timesteps", MAX_TRAIN_TIMESTEPS + 1),
        ("beta_start", 0),
        ("beta_end", math.nan),
        ("beta_end", "0.02"),
        ("trained_betas", [0.1, 0.2]),
        ("trained_betas", "linear"),
        ("trained_betas", [0.1] * 999 + [1.0]),
    ],
)
def test_refuses_in_one_line_that_names_the_key(key: str, value: object) -> None:
    with pytest.raises(ModelError) as refused:
        NoiseSchedule.from_config({key: value})
    message = str(refused.value)
    assert key in message
    assert "expected" in message or "known" in message
    assert "\n" not in message
    assert len(message) < 1000


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ModelError, match="did you mean 'v_prediction'"):
        NoiseSchedule.from_config({"prediction_type": "v-prediction"})


@pytest.mark.parametrize("betas", [(), (0.1, 0.0), (1.0,), (0.1, math.nan)])
def test_betas_outside_of_their_range_are_refused(betas: tuple[float, ...]) -> None:
    with pytest.raises(ModelError, match="betas"):
        NoiseSchedule(betas=betas)


def test_is_a_value() -> None:
    one, other = (NoiseSchedule.from_config(STABLE_DIFFUSION) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != dataclasses.replace(one, prediction_type="v_prediction")
    with pytest.raises(ValueError, match="read-only"):
        one.alphas_cumprod[0] = 0.5
