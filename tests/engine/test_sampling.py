"""The table of a walk: its shape, its start, its cache and what it refuses.

`samplers/` compares its numbers with diffusers' own schedulers.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.sampler_names import BASE_SAMPLERS, MODIFIERS, SAMPLERS, split_sampler
from giffusion.engine.samplers.rows import NOISE
from giffusion.engine.sampling import sampler_table, start_step
from giffusion.engine.schedule import NoiseSchedule
from tests.pages import table_rows

NOISY = ("ddpm", "dpm_ads", "euler_ads", "lcm")
ROWS = {"deis": 3, "dpm": 4, "dpm++2m": 3, "dpm_ads": 2, "klms": 4, "pndms": 4, "unipc": 5}
"""Rows of the state that samplers use at their highest order, where it is more than the latents."""

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
    order=st.integers(1, 3),
    steps=st.integers(1, 1000),
    strength=st.floats(0.01, 1.0),
)
def test_tables_are_finite_and_timesteps_fall(
    sampler: str, spacing: str | None, order: int, steps: int, strength: float
) -> None:
    config = {**MINI, "timestep_spacing": spacing, "solver_order": order}
    assume(int(steps * strength) > 0)
    assume(steps <= 50 or sampler != "lcm")
    try:
        table = sampler_table(sampler, NoiseSchedule.from_config(config), steps, strength)
    except SettingsError as refused:
        assert steps >= 999
        assert "--steps" in str(refused)  # noqa: PT017
        return
    assert len(table) == num_evaluations(sampler, int(steps * strength))
    assert np.isfinite(table.tables).all()
    assert (table.timesteps >= 0).all()
    assert (table.timesteps <= 999).all()
    base, modifier = split_sampler(sampler)
    if modifier == "karras":
        # Levels lie closer than whole timesteps, and those of KDPM2 are rounded at every other.
        assert (np.diff(table.timesteps) <= (0.5 if base == "dpm_ads" else 0)).all()
    elif base in ("dpm_ads", "pndms"):
        assert (np.diff(table.timesteps) <= 0).all()
    else:
        assert (np.diff(table.timesteps) < 0).all()
    assert ((table.scales > 0) & (table.scales <= 1)).all()


def num_evaluations(sampler: str, remaining: int) -> int:
    base = split_sampler(sampler)[0]
    if base == "dpm_ads":
        return 2 * remaining - 1
    return remaining + 1 if base == "pndms" and remaining > 1 else remaining


@pytest.mark.parametrize("sampler", BASE_SAMPLERS)
def test_no_sampler_uses_more_rows_than_it_says(sampler: str) -> None:
    for order in (1, 2, 3):
        schedule = NoiseSchedule.from_config({**MINI, "solver_order": order})
        tables = sampler_table(sampler, schedule, 16).tables
        used = np.abs(tables).sum(axis=(0, 2)) > 0
        assert (~used[ROWS.get(sampler, 1) :]).all()
    assert used[: ROWS.get(sampler, 1)].all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_ancestral_steps_before_the_last_use_noise(sampler: str) -> None:
    base = split_sampler(sampler)[0]
    table = sampler_table(sampler, NoiseSchedule.from_config(MINI), 5)
    expected = [base in NOISY] * 4 + [False]
    if base == "dpm_ads":
        expected = [False, True] * 4 + [False]
    assert table.uses_noise.tolist()[-len(expected) :] == expected


def test_eta_lets_every_step_of_ddim_use_noise() -> None:
    schedule = NoiseSchedule.from_config({**MINI, "set_alpha_to_one": True})
    table = sampler_table("ddim", schedule, 5, eta=0.5)
    assert table.uses_noise.tolist() == [True] * 4 + [False]
    full = sampler_table("ddim", schedule, 5, eta=1.0)
    np.testing.assert_allclose(full.tables[:, 0, NOISE], 2 * table.tables[:, 0, NOISE], rtol=1e-12)


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
    assert sampler_table("ddim", one, 7) is not sampler_table("ddim", one, 7, eta=0.5)


def test_strengths_that_start_at_one_step_share_a_table() -> None:
    schedule = NoiseSchedule.from_config(MINI)
    assert sampler_table("euler", schedule, 7, 0.5) is sampler_table("euler", schedule, 7, 0.45)
    assert sampler_table("euler", schedule, 7, 0.5) is not sampler_table("euler", schedule, 7, 0.6)


def test_other_names_share_the_table_of_the_canonical_one() -> None:
    schedule = NoiseSchedule.from_config(MINI)
    assert sampler_table("PNDMScheduler", schedule, 7) is sampler_table("pndms", schedule, 7)


@given(steps=st.integers(1, 1000), strength=st.floats(0, 1, exclude_min=True))
def test_only_the_whole_strength_starts_at_the_first_step(steps: int, strength: float) -> None:
    assume(int(steps * strength) > 0)
    start = start_step(steps, strength)
    assert start == steps - int(steps * strength)
    assert (start == 0) == (strength == 1)
    assert start_step(steps, 1.0) == 0


def test_the_page_says_what_the_samplers_do() -> None:
    rows = [row for row in table_rows("samplers.md") if "Scheduler`" in row[1]]
    cells = {name.strip("`"): rest for name, *rest in rows}
    assert set(cells) == set(BASE_SAMPLERS)
    for base, (_, evaluations, noise, *modified) in cells.items():
        table = sampler_table(base, NoiseSchedule.from_config(MINI), 7)
        assert len(table) == {"N": 7, "N + 1": 8, "2N − 1": 13}[evaluations.split(",")[0]]
        assert table.uses_noise.any() == (noise == "yes")
        assert modified == ["yes" if base in bases else "" for bases in MODIFIERS.values()]


@pytest.mark.parametrize("base", MODIFIERS["trailing"])
def test_trailing_starts_at_the_last_timestep_whatever_the_models_spacing(base: str) -> None:
    schedule = NoiseSchedule.from_config(MINI)
    assert sampler_table(base, schedule, 1).timesteps[0] != 999
    for steps in (1, 4):
        assert sampler_table(f"{base}-trailing", schedule, steps).timesteps[0] == 999


@pytest.mark.parametrize(
    ("sampler", "steps", "strength", "message"),
    [
        ("eulr", 10, 1.0, "unknown sampler 'eulr': did you mean 'euler'"),
        ("euler", 0, 1.0, "steps 0 is out of range: expected 1 to 1000"),
        ("euler", 1001, 1.0, "steps 1001 is out of range: expected 1 to 1000"),
        ("ddim", 1000, 1.0, "1000 steps do not fit"),
        ("dpm++2m", 1000, 1.0, "1000 steps do not fit"),
        ("lcm", 51, 1.0, "steps 51 exceeds lcm's original_inference_steps, 50"),
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


@pytest.mark.parametrize(
    ("sampler", "changes", "message"),
    [
        ("pndms", {"skip_prk_steps": False}, "pndms with skip_prk_steps false"),
        ("pndms", {"prediction_type": "sample"}, "pndms does not go with a model that predicts"),
        ("ddpm", {"variance_type": "fixed_large_log"}, "ddpm with variance_type"),
        ("lcm", {"original_inference_steps": 1001}, "exceeds the schedule's 1000 timesteps"),
        ("unipc", {"lower_order_final": False}, "unipc of solver_order 2 with lower_order_final"),
        ("dpm++2m", {"algorithm_type": "dpmsolver"}, r"dpm\+\+2m with algorithm_type 'dpmsolver'"),
        ("dpm", {"algorithm_type": "dpmsolver"}, "dpm with algorithm_type 'dpmsolver'"),
        (
            "dpm",
            {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
            "not supported at solver_order 3",
        ),
    ],
)
def test_refuses_options_that_do_not_go_with_the_sampler(
    sampler: str, changes: dict[str, object], message: str
) -> None:
    schedule = NoiseSchedule.from_config({**MINI, **changes})
    with pytest.raises(SettingsError, match=message) as refused:
        sampler_table(sampler, schedule, 10)
    assert "expected" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(sampler_table("ddim", schedule, 10)) == 10


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_cannot_be_predicted_where_there_is_nothing_else(sampler: str) -> None:
    changes = {"prediction_type": "epsilon", "rescale_betas_zero_snr": True}
    schedule = NoiseSchedule.from_config({**MINI, **changes, "timestep_spacing": "trailing"})
    with pytest.raises(SettingsError, match="rescale_betas_zero_snr") as refused:
        sampler_table(sampler, schedule, 10)
    assert "\n" not in str(refused.value)
    assert np.isfinite(sampler_table(sampler, schedule, 10, 0.5).tables).all()


def test_plms_cannot_step_from_pure_noise() -> None:
    changes = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    schedule = NoiseSchedule.from_config({**MINI, **changes})
    with pytest.raises(SettingsError, match="pndms cannot step from the last timestep"):
        sampler_table("pndms", schedule, 10)
    assert np.isfinite(sampler_table("pndms", schedule, 10, 0.5).tables).all()


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if not s.startswith("ddim")])
def test_only_ddim_takes_eta(sampler: str) -> None:
    with pytest.raises(SettingsError, match=r"eta 0.5 does not go with .*only ddim takes it"):
        sampler_table(sampler, NoiseSchedule.from_config(MINI), 10, eta=0.5)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_is_a_share(eta: float) -> None:
    with pytest.raises(SettingsError, match="is out of range: expected 0 to 1"):
        sampler_table("ddim", NoiseSchedule.from_config(MINI), 10, eta=eta)
