"""The denoise batch: what is staged for each slot and row, and what free slots keep."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline
from diffusers.models.embeddings import get_timestep_embedding
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.batching.batch import (
    DenoiseBatch,
    guidance_embed,
    sampler_steps,
    sinusoid,
    size_ids,
)
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.scheduler import Move, Slot
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.conditions.noise import initial_noise, step_noise
from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.errors import SettingsError
from giffusion.engine.model import load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.sampler_names import SAMPLERS
from giffusion.engine.sampling import sampler_table
from giffusion.models import find_model
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedRuntime

MODEL = load_model(find_model("mini"))
LATENT = (4, 8, 4)
IDENTITY = np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32)


def open_batch(num_rows: int = 6) -> DenoiseBatch:
    return DenoiseBatch(MODEL, FakeRuntime(), size=(32, 64), num_rows=num_rows)


def condition(seed: int, mix: list[float]) -> Condition:
    embeds = initial_noise(seed + 1000, (len(mix), 24, 192))
    return Condition(initial_noise(seed, LATENT), embeds, np.array(mix, np.float32))


def slot(index: int, rows: tuple[int, ...], num_steps: int, *, frame: int = 0) -> Slot:
    return Slot(index, rows, FrameTask("job", frame, len(rows), num_steps))


def walk(batch: DenoiseBatch, active: list[Slot]) -> NDArray[np.float32]:
    """Runs one tick and returns all states."""
    batch.stage(active)
    batch.graph.run()
    for each in active:
        each.step += 1
    return batch.graph.read("state")


def test_shapes_follow_the_size_and_the_rows() -> None:
    batch = open_batch(3)
    assert batch.latent_shape == LATENT
    assert batch.graph.read("state").shape == (3, STATE_ROWS, *LATENT)
    assert batch.graph.read("mix").shape == (3, 3)


def test_a_frame_is_loaded_into_its_slot_and_rows() -> None:
    batch, steps = open_batch(), sampler_steps(MODEL, "euler", 4)
    start = condition(5, [-3, 2, 2])
    batch.load(slot(2, (1, 3, 4), 4), start, steps, seed=9)
    batch.stage([])
    state = batch.graph.read("state")
    np.testing.assert_array_equal(state[2, 0], np.float32(steps.init_noise) * start.noise)
    assert steps.init_noise != 1
    assert not state[2, 1:].any()
    assert not np.delete(state, 2, axis=0).any()
    np.testing.assert_array_equal(batch.graph.read("cond")[[1, 3, 4]], start.prompt_embeds)
    np.testing.assert_array_equal(batch.graph.read("row_slot")[[1, 3, 4]], [2, 2, 2])
    mix = np.zeros((6, 6), np.float32)
    mix[2, [1, 3, 4]] = [-3, 2, 2]
    np.testing.assert_array_equal(batch.graph.read("mix"), mix)


def test_a_slot_that_is_filled_again_keeps_nothing_of_the_frame_before() -> None:
    used, fresh = open_batch(), open_batch()
    before = slot(1, (0, 2, 5), 3, frame=8)
    used.load(before, condition(1, [-1, 1, 1]), sampler_steps(MODEL, "euler_ads", 3), seed=1)
    for _ in range(3):
        walk(used, [before])
    used.free(before)
    states = []
    for batch in (used, fresh):
        after = slot(1, (2, 3), 4)
        batch.load(after, condition(2, [-4, 5]), sampler_steps(MODEL, "dpm++2m", 4), seed=2)
        states.append([walk(batch, [after])[1] for _ in range(4)])
    np.testing.assert_array_equal(states[0], states[1])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_active_slots_own_step_is_staged(sampler: str) -> None:
    batch = open_batch()
    first = slot(0, (0,), 3, frame=70)
    second = slot(4, (2, 3), 5, frame=71)
    plans = {0: sampler_steps(MODEL, sampler, 3), 4: sampler_steps(MODEL, sampler, 5)}
    seeds = {0: 11, 4: 12}
    batch.load(first, condition(1, [1]), plans[0], seeds[0])
    walk(batch, [first])
    batch.load(second, condition(2, [-1, 2]), plans[4], seeds[4])
    for _ in range(2):
        batch.stage([first, second])
        read = batch.graph.read
        for each in (first, second):
            steps, index = plans[each.index], each.index
            np.testing.assert_array_equal(read("table", index), steps.tables[each.step])
            assert read("scale", index) == steps.scales[each.step]
            np.testing.assert_array_equal(read("time_proj", index), steps.time_proj[each.step])
            if steps.uses_noise[each.step]:
                noise = step_noise(seeds[index], each.task.frame, each.step, LATENT)
                np.testing.assert_array_equal(read("noise", index), noise)
        for free in (1, 2, 3, 5):
            np.testing.assert_array_equal(read("table", free), IDENTITY)
        first.step += 1
        second.step += 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_walk_is_the_tables_applied_to_state_output_and_noise(sampler: str) -> None:
    """In float64, with the fake model's output taken from a run of its own."""
    table = sampler_table(sampler, MODEL.schedule, 4)
    batch, probe = open_batch(), open_batch()
    start = condition(3, [-2, 3])
    mine = slot(3, (0, 5), 4, frame=17)
    batch.load(mine, start, sampler_steps(MODEL, sampler, 4), seed=21)
    output_only = np.zeros((STATE_ROWS, TABLE_COLUMNS), np.float32)
    output_only[0, STATE_ROWS] = 1
    state = np.zeros((STATE_ROWS, *LATENT))
    state[0] = table.init_noise * start.noise
    for step in range(4):
        probe.load(mine, start, sampler_steps(MODEL, sampler, 4), seed=21)
        probe.stage([mine])
        probe.graph.write("state", state.astype(np.float32), 3)
        probe.graph.write("table", output_only, 3)
        probe.graph.run()
        output = probe.graph.read("state", (3, 0))
        noise = step_noise(21, 17, step, LATENT)
        state = np.einsum("ij,j...->i...", table.tables[step], [*state, output, noise])
        got = walk(batch, [mine])[3]
        np.testing.assert_allclose(got, state, rtol=0, atol=1e-4 * np.abs(state).max())


def test_free_slots_and_others_keep_their_state_bit_for_bit() -> None:
    batch, steps = open_batch(), sampler_steps(MODEL, "dpm++2m", 8)
    paused, running = slot(1, (1, 2), 8), slot(2, (3, 4), 8)
    batch.load(paused, condition(1, [-4, 5]), steps, seed=1)
    batch.load(running, condition(2, [-4, 5]), steps, seed=2)
    for _ in range(3):
        before = walk(batch, [paused, running])
    assert before[1].any()
    batch.free(paused)
    for _ in range(4):
        after = walk(batch, [running])
        assert np.delete(after, 2, axis=0).tobytes() == np.delete(before, 2, axis=0).tobytes()
    assert not np.array_equal(after[2], before[2])
    np.testing.assert_array_equal(batch.graph.read("table", 1), IDENTITY)
    assert not batch.graph.read("mix", 1).any()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_steps_are_the_samplers_table(sampler: str, strength: float) -> None:
    steps = sampler_steps(MODEL, sampler, 10, strength)
    table = sampler_table(sampler, MODEL.schedule, 10, strength)
    assert steps is sampler_steps(MODEL, sampler, 10, strength)
    assert len(steps.scales) == len(steps.tables) == len(table)
    np.testing.assert_array_equal(steps.tables, table.tables.astype(np.float32))
    np.testing.assert_array_equal(steps.scales, table.scales.astype(np.float32))
    arrays = (steps.tables, steps.scales, steps.time_proj)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert steps.uses_noise == tuple(table.uses_noise.tolist())
    assert (steps.init_latents, steps.init_noise) == (table.init_latents, table.init_noise)
    assert (steps.init_latents == 0) == (strength == 1)
    # The bundled UNet's sinusoid begins with the cosines.
    frequencies = 10000.0 ** (-np.arange(32) / 32)
    angles = table.timesteps[:, None] * frequencies
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(steps.time_proj, expected, atol=1e-6)


def test_steps_that_a_sampler_cannot_take_are_refused() -> None:
    with pytest.raises(SettingsError, match="steps 1001 is out of range"):
        sampler_steps(MODEL, "ddim", 1001)


@given(
    timesteps=st.lists(st.floats(0, 999), min_size=1, max_size=5),
    half=st.integers(2, 32),
    flip=st.booleans(),
    shift=st.sampled_from([0.0, 1.0]),
)
def test_the_sinusoid_is_the_formula_in_full_precision(
    timesteps: list[float], half: int, flip: bool, shift: float
) -> None:
    got = sinusoid(np.array(timesteps), 2 * half, flip_sin_to_cos=flip, freq_shift=shift)
    assert got.dtype == np.float32
    for row, t in zip(got, timesteps, strict=True):
        angles = [t * 10000 ** (-i / (half - shift)) for i in range(half)]
        waves = [math.cos, math.sin] if flip else [math.sin, math.cos]
        expected = [wave(angle) for wave in waves for angle in angles]
        np.testing.assert_allclose(row, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("dim", [64, 320])
def test_the_sinusoid_is_that_of_diffusers(dim: int, shift: float, flip: bool) -> None:
    timesteps = np.array([0, 1, 1.5, 42.25, 261.125, 500, 999])
    expected = get_timestep_embedding(
        torch.tensor(timesteps), dim, flip_sin_to_cos=flip, downscale_freq_shift=shift
    )
    got = sinusoid(timesteps, dim, flip_sin_to_cos=flip, freq_shift=shift)
    # Theirs has float32 angles: rounded at 999, they are off by up to 6e-5.
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=2e-4)


OTHER = replace(MODEL, manifest=replace(MODEL.manifest, pooled_dim=7, guidance_dim=16))
"""A model that takes what SDXL and LCM take besides."""


def other_batch(num_rows: int = 6, runtime: Runtime | None = None) -> DenoiseBatch:
    runtime = runtime or FakeRuntime()
    return DenoiseBatch(OTHER, runtime, size=(32, 64), num_rows=num_rows)


def other_condition(seed: int, mix: list[float], guidance: float) -> Condition:
    pooled = initial_noise(seed + 2000, (len(mix), 7))
    return replace(condition(seed, mix), pooled=pooled, guidance=guidance)


def test_size_ids_are_of_a_picture_that_was_not_cropped() -> None:
    assert size_ids((1024, 768)).tolist() == [768, 1024, 0, 0, 768, 1024]
    batch = other_batch(3)
    ids = batch.graph.read("size_ids")
    assert ids.dtype == np.float32
    np.testing.assert_array_equal(ids, [[64, 32, 0, 0, 64, 32]] * 3)


def test_what_frames_bring_besides_is_loaded_into_their_rows_and_slot() -> None:
    batch, steps = other_batch(), sampler_steps(MODEL, "lcm", 4)
    first, second = other_condition(1, [-3, 4], 4.0), other_condition(2, [1], 1.5)
    batch.load(slot(2, (1, 3), 4), first, steps, seed=9)
    batch.load(slot(0, (4,), 4), second, steps, seed=9)
    pooled, embeds = batch.graph.read("pooled"), batch.graph.read("guidance_embed")
    np.testing.assert_array_equal(pooled[[1, 3]], first.pooled)
    np.testing.assert_array_equal(pooled[[4]], second.pooled)
    assert not pooled[[0, 2, 5]].any()
    np.testing.assert_array_equal(embeds[2], guidance_embed(4.0, 16))
    np.testing.assert_array_equal(embeds[0], guidance_embed(1.5, 16))
    assert not embeds[[1, 3, 4, 5]].any()


def test_what_frames_bring_moves_with_them() -> None:
    runtime = SimulatedRuntime(batches=(3, 6))
    batch, steps = other_batch(runtime=runtime), sampler_steps(MODEL, "euler_ads", 4)
    start = other_condition(1, [-3, 4], 4.0)
    before = slot(5, (1, 4), 4, frame=3)
    batch.load(before, start, steps, seed=9)
    walk(batch, [before])
    names = ("state", "guidance_embed", "cond", "pooled")
    state, embed, cond, pooled = (batch.graph.read(name) for name in names)
    after = Slot(0, (1, 2), before.task, before.step)
    batch.resize(3, [Move(after, 5, (1, 4))])
    np.testing.assert_array_equal(batch.graph.read("state", 0), state[5])
    np.testing.assert_array_equal(batch.graph.read("guidance_embed", 0), embed[5])
    for name, rows in (("cond", cond), ("pooled", pooled)):
        np.testing.assert_array_equal(batch.graph.read(name)[[1, 2]], rows[[1, 4]])
    np.testing.assert_array_equal(batch.graph.read("size_ids"), [size_ids((32, 64))] * 3)
    # From there on it is the frame that it would have been.
    still = other_batch()
    other = slot(5, (1, 4), 4, frame=3)
    still.load(other, start, steps, seed=9)
    for _ in range(4):
        expected = walk(still, [other])[5]
    for _ in range(3):
        got = walk(batch, [after])[0]
    np.testing.assert_array_equal(got, expected)
    runtime.close()


@pytest.mark.parametrize("dim", [16, 256, 512])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 1.5, 7.5, 8.0, 14.25])
def test_the_guidances_sinusoid_is_that_of_diffusers(guidance: float, dim: int) -> None:
    theirs = LatentConsistencyModelPipeline.get_guidance_scale_embedding
    expected = theirs(None, torch.tensor([guidance - 1], dtype=torch.float64), dim, torch.float64)
    got = guidance_embed(guidance, dim)
    assert got.dtype == np.float32
    # Theirs has float32 frequencies.
    angle = 1000 * max(1, abs(guidance - 1))
    np.testing.assert_allclose(got, expected[0].numpy(), rtol=0, atol=4e-7 * angle)
