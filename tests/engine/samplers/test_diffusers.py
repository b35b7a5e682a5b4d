"""Every sampler beside diffusers' own scheduler class, in double precision, at every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from diffusers.utils import logging

from giffusion.engine.sampler_names import BASE_SAMPLERS, MODIFIERS, SAMPLERS, split_sampler
from giffusion.engine.samplers.registry import SAMPLERS as REGISTRY
from giffusion.engine.sampling import sampler_table
from giffusion.engine.schedule import NoiseSchedule
from tests.engine.samplers.reference import (
    CLASSES,
    PREDICTIONS,
    SPACINGS,
    STRENGTHS,
    assert_same_walk,
    config_of,
    doubled,
    noises_for,
    scheduler_of,
)

# torch's tensors predate NumPy 2's protocols, and diffusers hands them to NumPy's functions.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

STEPS = (1, 2, 3, 4, 12, 20)
# Diffusers' img2img starts of these leave residual noise: `test_starts.py` has the formula.
NO_STARTS = ("klms", "pndms")
MULTISTEP = ("deis", "dpm", "dpm++2m", "unipc")
# Diffusers ends DEIS where its Karras spacing ends already, so that one step is none.
NO_SINGLE_STEP = ("deis-karras",)
NO_SAMPLE_PREDICTION = ("dpm_ads", "euler_ads", "pndms")
ZERO_SNR = ("ddim", "ddpm", "dpm++2m", "euler", "euler_ads", "lcm", "unipc")

SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
EPSILON = {"prediction_type": "epsilon"}


@pytest.fixture(autouse=True)
def quiet() -> None:
    """The singlestep scheduler logs that it adapts itself to every number of steps."""
    logging.set_verbosity_error()


def strengths_of(sampler: str) -> tuple[float, ...]:
    return STRENGTHS[:1] if split_sampler(sampler)[0] in NO_STARTS else STRENGTHS


def assert_same_walks(sampler: str, config: dict[str, Any], steps: tuple[int, ...]) -> None:
    for num_steps in steps:
        for strength in strengths_of(sampler):
            if int(num_steps * strength) > 0:
                assert_same_walk(sampler, config, num_steps, strength)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_step_agrees(sampler: str, prediction: str, spacing: str) -> None:
    config = config_of(prediction_type=prediction, timestep_spacing=spacing)
    assert_same_walks(sampler, config, STEPS[1:] if sampler in NO_SINGLE_STEP else STEPS)


@pytest.mark.parametrize("sampler", BASE_SAMPLERS)
def test_a_long_walk_agrees(sampler: str) -> None:
    assert_same_walk(sampler, config_of(), 50)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sampler", [*MULTISTEP, *(f"{base}-karras" for base in MULTISTEP)])
def test_every_order_agrees(sampler: str, order: int) -> None:
    for prediction in (*PREDICTIONS, "sample"):
        config = config_of(prediction_type=prediction, solver_order=order)
        assert_same_walks(sampler, config, (2, 3, 4, 5, 6, 14, 15, 16))


@pytest.mark.parametrize("sampler", [s for s in BASE_SAMPLERS if s not in NO_SAMPLE_PREDICTION])
def test_sample_prediction_agrees(sampler: str) -> None:
    assert_same_walks(sampler, config_of(prediction_type="sample"), (1, 5, 16))


@pytest.mark.parametrize("sampler", BASE_SAMPLERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"set_alpha_to_one": True, "steps_offset": 0},
        SIGMA_MIN,
        {**SIGMA_MIN, "timestep_spacing": "linspace"},
        {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
        {"trained_betas": np.linspace(0.001, 0.2, 60).tolist(), "num_train_timesteps": 60},
        {"num_train_timesteps": 77, "timestep_spacing": "trailing"},
    ],
)
def test_every_other_setting_agrees(sampler: str, changes: dict[str, Any]) -> None:
    for steps in (1, 6, 14, 15, 23):
        assert_same_walk(sampler, config_of(**changes), steps)


@pytest.mark.parametrize("sampler", BASE_SAMPLERS)
def test_without_a_spacing_or_an_end_each_sampler_keeps_its_own(sampler: str) -> None:
    config = config_of()
    for key in ("timestep_spacing", "set_alpha_to_one"):
        del config[key]
    assert_same_walks(sampler, config, (10,))


@pytest.mark.parametrize("sampler", MODIFIERS["karras"])
def test_a_models_karras_sigmas_are_honoured(sampler: str) -> None:
    config = config_of(use_karras_sigmas=True)
    assert_same_walks(sampler, config, (2, 7, 20))
    schedule, plain = NoiseSchedule.from_config(config), NoiseSchedule.from_config(config_of())
    named = sampler_table(f"{sampler}-karras", plain, 7)
    np.testing.assert_array_equal(sampler_table(sampler, schedule, 7).tables, named.tables)


@pytest.mark.parametrize("sampler", ["dpm++2m", "dpm", "unipc", "euler"])
def test_karras_sigmas_that_end_at_the_lowest_level_agree(sampler: str) -> None:
    for order in (1, 2, 3):
        config = config_of(**SIGMA_MIN, steps_offset=0, solver_order=order)
        assert_same_walks(f"{sampler}-karras", config, (2, 3, 6, 16))


@pytest.mark.parametrize("sampler", ["dpm++2m", "dpm"])
@pytest.mark.parametrize("end", ["zero", "sigma_min"])
@pytest.mark.parametrize(
    ("changes", "orders"),
    [
        ({"solver_type": "heun"}, (1, 2, 3)),
        ({"lower_order_final": False}, (1, 2, 3)),
        ({"lower_order_final": True}, (1, 2, 3)),
        ({"euler_at_final": True}, (1, 2, 3)),
        ({"algorithm_type": "sde-dpmsolver++"}, (1, 2)),
        ({"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}, (1, 2)),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_variants_of_dpm_solver_agree(
    sampler: str, end: str, changes: dict[str, Any], orders: tuple[int, ...]
) -> None:
    for order in orders:
        config = config_of(**EPSILON, **changes, final_sigmas_type=end, solver_order=order)
        assert_same_walks(sampler, config, (2, 3, 4, 14, 15, 16, 17))


@pytest.mark.parametrize("sampler", ["dpm++2m", "dpm"])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.filterwarnings("ignore:.*dpmsolver:FutureWarning")
def test_the_first_dpm_solver_agrees(sampler: str, solver_type: str) -> None:
    changes = {"algorithm_type": "dpmsolver", "solver_type": solver_type}
    for order in (1, 2, 3):
        for prediction in (*PREDICTIONS, "sample"):
            config = config_of(
                **SIGMA_MIN, **changes, prediction_type=prediction, solver_order=order
            )
            assert_same_walks(sampler, config, (2, 3, 4, 14, 15, 16, 17))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
@pytest.mark.parametrize("lower", [False, True])
def test_variants_of_unipc_agree(order: int, solver_type: str, lower: bool) -> None:
    """Ending above no noise, where diffusers' bh1 has numbers."""
    changes = {"solver_type": solver_type, "solver_order": order, "lower_order_final": lower}
    assert_same_walks("unipc", config_of(**EPSILON, **SIGMA_MIN, **changes), (2, 3, 6, 15, 16))


@pytest.mark.parametrize("lower", [False, True])
def test_variants_of_deis_agree(lower: bool) -> None:
    for order in (1, 2, 3):
        config = config_of(**EPSILON, solver_order=order, lower_order_final=lower)
        assert_same_walks("deis", config, (2, 3, 6, 14, 15))


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("prediction", [*PREDICTIONS, "sample"])
@pytest.mark.parametrize("to_one", [False, True])
def test_eta_agrees(eta: float, prediction: str, to_one: bool) -> None:
    for spacing in SPACINGS:
        config = config_of(
            prediction_type=prediction, timestep_spacing=spacing, set_alpha_to_one=to_one
        )
        for steps in (1, 6, 20):
            for strength in (1.0, 0.6):
                if int(steps * strength) > 0:
                    assert_same_walk("ddim", config, steps, strength, eta=eta)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
@pytest.mark.parametrize("offset", [0, 1])
def test_ddpms_variances_agree(variance: str, offset: int) -> None:
    assert_same_walks("ddpm", config_of(variance_type=variance, steps_offset=offset), (1, 6, 20))


@pytest.mark.parametrize(
    "changes",
    [
        {"original_inference_steps": 20, "timestep_scaling": 3.0},
        {"original_inference_steps": 77, "prediction_type": "epsilon"},
    ],
)
def test_the_distilled_walk_of_lcm_agrees(changes: dict[str, Any]) -> None:
    assert_same_walks("lcm", config_of(**changes), (1, 3, 4, 8, 20))


@pytest.mark.parametrize(
    "sampler", [*ZERO_SNR, "ddim-trailing", "euler-karras", "dpm++2m-karras", "unipc-karras"]
)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_schedules_that_end_in_pure_noise_agree(sampler: str, spacing: str) -> None:
    assert_same_walks(
        sampler, config_of(rescale_betas_zero_snr=True, timestep_spacing=spacing), (1, 2, 5, 16)
    )


def test_eta_from_pure_noise_agrees() -> None:
    config = config_of(rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert_same_walk("ddim", config, 5, eta=0.5)


@pytest.mark.parametrize("sampler", BASE_SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_start_from_noise_has_the_samplers_own_scale(sampler: str, spacing: str) -> None:
    config = config_of(timestep_spacing=spacing)
    table = sampler_table(sampler, NoiseSchedule.from_config(config), 10)
    assert table.init_latents == 0
    with doubled(sampler, noises_for(table)):
        expected = float(scheduler_of(sampler, config, 10).init_noise_sigma)
    assert table.init_noise == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "deis", "dpm++2m", "euler", "klms", "unipc"])
def test_a_trailing_timestep_below_zero_is_left_out(sampler: str) -> None:
    config = config_of(timestep_spacing="trailing")
    table = sampler_table(sampler, NoiseSchedule.from_config(config), 61)
    with doubled(sampler, noises_for(table)):
        assert scheduler_of(sampler, config, 61).timesteps[-1] == -1
    assert len(table) == 61
    assert table.timesteps[-1] > 0


def test_every_sampler_has_a_reference() -> None:
    assert sorted(REGISTRY) == sorted(BASE_SAMPLERS) == sorted(CLASSES)
