"""The table of a walk: its shape, its start, its cache and what it refuses.

`test_samplers.py` compares its numbers with diffusers' own schedulers.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine import samplers, settings
from giffusion.engine.errors import SettingsError
from giffusion.engine.sampling import sampler_table
from giffusion.engine.schedule import NoiseSchedule

SAMPLERS = sorted(samplers.SAMPLERS)

# The scheduler's configuration of the model that ships with the project.
MINI = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.42.1",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "thresholding": False,
    "timestep_spacing": "leading",
    "trained_betas": None,
}


def test_the_bundled_models_timesteps_and_history() -> None:
    table = sampler_table("dpm++2m", NoiseSchedule.from_config(MINI), 4)
    assert table.timesteps.tolist() == [801, 601, 401, 201]
    assert table.scales.tolist() == [1, 1, 1, 1]
    # The previous x0 is used by the second-order steps: neither by the first nor by the last.
    assert (table.tables[:, 0, 1] != 0).tolist() == [False, True, True, False]
    assert (table.tables[:, 2:] == 0).all()
    started_later = sampler_table("dpm++2m", NoiseSchedule.from_config(MINI), 4, 0.5)
    assert started_later.timesteps.tolist() == [401, 201]
    assert (started_later.tables[:, 0, 1] == 0).all()


@given(
    sampler=st.sampled_from(SAMPLERS),
    spacing=st.sampled_from(["leading", "linspace", "trailing", None]),
    steps=st.integers(1, 1000),
    strength=st.floats(0.01, 1.0),
)
def test_tables_are_finite_and_timesteps_fall(
    sampler: str, spacing: str | None, steps: int, strength: float
) -> None:
    schedule = NoiseSchedule.from_config({**MINI, "timestep_spacing": spacing})
    assume(int(steps * strength) > 0)
    try:
        table = sampler_table(sampler, schedule, steps, strength)
    except SettingsError as refused:
        assert steps >= 999
        assert "--steps" in str(refused)  # noqa: PT017
        return
    assert len(table) == int(steps * strength)
    assert np.isfinite(table.tables).all()
    assert (table.timesteps >= 0).all()
    assert (table.timesteps <= 999).all()
    assert (np.diff(table.timesteps) < 0).all()
    assert ((table.scales > 0) & (table.scales <= 1)).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_ancestral_steps_before_the_last_use_noise(sampler: str) -> None:
    table = sampler_table(sampler, NoiseSchedule.from_config(MINI), 5)
    expected = [sampler == "euler_ads"] * 4 + [False]
    assert table.uses_noise.tolist() == expected


def test_the_settings_know_the_same_samplers() -> None:
    assert sorted(settings.SAMPLERS) == SAMPLERS


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_arrays_are_read_only(sampler: str) -> None:
    table = sampler_table(sampler, NoiseSchedule.from_config(MINI), 3)
    for array in (table.tables, table.scales, table.timesteps, table.uses_noise):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_equal_arguments_share_a_table() -> None:
    one, other = (NoiseSchedule.from_config(MINI) for _ in range(2))
    assert sampler_table("euler", one, 7, 0.5) is sampler_table("euler", other, 7, 0.5)
    assert sampler_table("euler", one, 7, 0.5) is not sampler_table("euler", one, 8, 0.5)


@pytest.mark.parametrize(
    ("sampler", "steps", "strength", "message"),
    [
        ("eulr", 10, 1.0, "unknown sampler 'eulr': did you mean 'euler'"),
        ("euler", 0, 1.0, "steps 0 is out of range: expected 1 to 1000"),
        ("euler", 1001, 1.0, "steps 1001 is out of range: expected 1 to 1000"),
        ("ddim", 1000, 1.0, "1000 steps do not fit"),
        ("dpm++2m", 1000, 1.0, "1000 steps do not fit"),
        ("ddim", 10, 0.0, "strength 0.0 is out of range"),
        ("ddim", 10, 1.1, "strength 1.1 is out of range"),
        ("ddim", 10, float("nan"), "strength nan is out of range"),
        ("ddim", 3, 0.3, "strength 0.3 of 3 steps leaves no step"),
    ],
)
def test_refuses_in_one_line(sampler: str, steps: int, strength: float, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as refused:
        sampler_table(sampler, NoiseSchedule.from_config(MINI), steps, strength)
    assert "\n" not in str(refused.value)
