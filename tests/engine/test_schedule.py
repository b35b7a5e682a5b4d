"""The noise schedule read from a scheduler's configuration, and what it refuses."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler

from giffusion.engine.errors import ModelError
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
        }
    )
    assert schedule.prediction_type == "sample"
    assert schedule.timestep_spacing == "trailing"
    assert schedule.steps_offset == 1
    assert not schedule.set_alpha_to_one
    assert schedule.final_sigmas_type == "sigma_min"


def test_options_spelled_out_at_their_defaults_are_accepted() -> None:
    spelled_out = {
        "algorithm_type": "dpmsolver++",
        "clip_sample": False,
        "euler_at_final": False,
        "interpolation_type": "linear",
        "lambda_min_clipped": -math.inf,
        "lower_order_final": True,
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
        ("rescale_betas_zero_snr", True),
        ("use_karras_sigmas", True),
        ("use_exponential_sigmas", True),
        ("use_beta_sigmas", True),
        ("use_flow_sigmas", True),
        ("use_lu_lambdas", True),
        ("use_dynamic_shifting", True),
        ("variance_type", "learned"),
        ("variance_type", "learned_range"),
        ("algorithm_type", "sde-dpmsolver++"),
        ("solver_order", 3),
        ("solver_type", "heun"),
        ("lower_order_final", False),
        ("euler_at_final", True),
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
