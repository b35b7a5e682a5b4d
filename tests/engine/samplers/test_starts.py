"""Starts of PLMS and LMS within a walk, against their formula.

Diffusers' image-to-image pipeline enters PNDM's timesteps one too early, where they are doubled,
and has LMS weigh slopes that it does not have; both leave noise in the picture. A walk that starts
later is here what diffusers does when the walk begins there.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from giffusion.engine.sampling import SamplerTable, sampler_table
from giffusion.engine.schedule import FloatArray, NoiseSchedule
from tests.engine.samplers.reference import (
    PREDICTIONS,
    SPACINGS,
    assert_same,
    config_of,
    doubled,
    drive,
    models_for,
    noises_for,
    scheduler_of,
    walk_table,
)

# torch's tensors predate NumPy 2's copy keyword, and diffusers hands them to `np.array`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STARTS = [(2, 0.6), (4, 0.6), (10, 0.3), (12, 0.6), (20, 0.3)]


@pytest.mark.parametrize(("steps", "strength"), STARTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_plms_begins_anew_where_it_starts(
    steps: int, strength: float, prediction: str, spacing: str
) -> None:
    config = config_of(prediction_type=prediction, timestep_spacing=spacing)
    table = sampler_table("pndms", NoiseSchedule.from_config(config), steps, strength)
    noises = noises_for(table)
    clean, noise = (torch.from_numpy(each) for each in noises[:2])
    for model in models_for(len(table)):
        with doubled("pndms", noises) as draws:
            scheduler = scheduler_of("pndms", config, steps)
            # The last of its timesteps, without the one that it doubles at the whole walk's start.
            each = scheduler.timesteps.unique().flip(0)[-int(steps * strength) :]
            walked = torch.cat([each[:2], each[1:]])
            latents = scheduler.add_noise(clean, noise, walked[:1])
            theirs = drive(scheduler, walked, latents, model, draws)
        assert len(theirs.latents) == (len(each) + 1 if len(each) > 1 else 1)
        assert_same(walk_table(table, model, noises), theirs)


@pytest.mark.parametrize(("steps", "strength"), STARTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", ["klms", "klms-karras"])
def test_lms_begins_anew_where_it_starts(
    steps: int, strength: float, prediction: str, sampler: str
) -> None:
    config = config_of(prediction_type=prediction)
    table = sampler_table(sampler, NoiseSchedule.from_config(config), steps, strength)
    noises = noises_for(table)
    clean, noise = (torch.from_numpy(each) for each in noises[:2])
    for model in models_for(len(table)):
        with doubled(sampler, noises) as draws:
            scheduler = scheduler_of(sampler, config, steps)
            start = steps - int(steps * strength)
            scheduler.sigmas = scheduler.sigmas[start:]
            scheduler.timesteps = scheduler.timesteps[start:]
            latents = clean + noise * scheduler.sigmas[0]
            theirs = drive(scheduler, scheduler.timesteps, latents, model, draws)
        assert_same(walk_table(table, model, noises), theirs)


@pytest.mark.parametrize("sampler", ["klms", "pndms"])
def test_a_start_leaves_no_noise(sampler: str) -> None:
    """With a model that knows the noise; diffusers' own starts miss the picture even then."""
    config = config_of(prediction_type="epsilon", set_alpha_to_one=True, steps_offset=0)
    schedule = NoiseSchedule.from_config(config)
    for steps, strength in STARTS:
        table = sampler_table(sampler, schedule, steps, strength)
        noises = noises_for(table)
        assert_ends_on_the_picture(table, noises)


def assert_ends_on_the_picture(table: SamplerTable, noises: FloatArray) -> None:
    walk = walk_table(table, lambda *_: noises[1], noises)
    np.testing.assert_allclose(walk.latents[-1], noises[0], atol=1e-9)
