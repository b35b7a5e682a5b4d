"""Conditions of frames: exact at key frames, blended between them, weighted as planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.conditions import conditioning
from giffusion.engine.conditions.conditioning import CACHED_KEY_FRAMES, Conditioner
from giffusion.engine.conditions.interpolation import lerp, slerp
from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.keys import derive_seed
from giffusion.engine.timelines.timeline import Timeline

LATENT = (4, 3, 2)
SETTINGS = RenderSettings(guidance=4.0, negative="grey")


class Embedder:
    """Embeds a text as noise of its own, the same array each time, as the engine's cache does."""

    def __init__(self, shape: tuple[int, ...] = (5, 6)) -> None:
        self.known: dict[str, NDArray[np.float32]] = {}
        self._shape = shape

    def __call__(self, text: str) -> NDArray[np.float32]:
        return self.known.setdefault(text, initial_noise(sum(text.encode()), self._shape))


def open_job(
    text: str, settings: RenderSettings = SETTINGS
) -> tuple[Timeline, Conditioner, Embedder]:
    embed = Embedder()
    timeline = Timeline(parse_prompts(text), settings)
    return timeline, Conditioner(settings, embed, LATENT), embed


def test_a_key_frame_has_its_own_noise_and_embeddings() -> None:
    timeline, conditioner, embed = open_job("0: a dog --seed 7\n10: a lion --seed 8")
    for frame, seed, prompt in [(0, 7, "a dog"), (10, 8, "a lion")]:
        condition = conditioner.condition(timeline[frame])
        np.testing.assert_array_equal(condition.noise, initial_noise(seed, LATENT))
        np.testing.assert_array_equal(condition.prompt_embeds, [embed("grey"), embed(prompt)])
        np.testing.assert_array_equal(condition.mix, np.array([-3, 4], np.float32))


def test_frames_between_are_blended_as_the_settings_say() -> None:
    names = {"slerp": slerp, "lerp": lerp}
    for latents, embeddings in [("slerp", "lerp"), ("lerp", "slerp")]:
        settings = replace(SETTINGS, latents=latents, embeddings=embeddings)
        timeline, conditioner, embed = open_job("0: a dog\n10: a lion", settings)
        plan = timeline[4]
        condition = conditioner.condition(plan)
        start, end = (initial_noise(seed, LATENT) for seed in plan.seeds)
        np.testing.assert_array_equal(condition.noise, names[latents](start, end, 0.4))
        blend = names[embeddings](embed("a dog"), embed("a lion"), 0.4)
        np.testing.assert_array_equal(condition.prompt_embeds, [embed("grey"), blend])


@pytest.mark.parametrize("guidance", [0.0, 1.0, 7.5])
def test_rows_and_weights_are_the_plans(guidance: float) -> None:
    settings = replace(SETTINGS, guidance=guidance)
    timeline, conditioner, _ = open_job("0: a::2 | b\n6: c | d::0.5 | e\n12: f", settings)
    for plan in timeline:
        condition = conditioner.condition(plan)
        assert condition.noise.shape == LATENT
        assert condition.prompt_embeds.shape == (len(plan.rows), 5, 6)
        arrays = (condition.noise, condition.prompt_embeds, condition.mix)
        assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
        np.testing.assert_allclose(condition.mix, [row.weight for row in plan.rows], rtol=1e-7)
        assert condition.mix.sum() == pytest.approx(1, abs=1e-5)


def test_without_guidance_the_negative_prompt_is_never_embedded() -> None:
    timeline, conditioner, embed = open_job("0: a\n6: b", replace(SETTINGS, guidance=1.0))
    for plan in timeline:
        assert conditioner.condition(plan).mix.tolist() == [1]
    assert embed.known.keys() == {"a", "b"}


def test_a_condition_depends_on_its_plan_alone() -> None:
    timeline, conditioner, _ = open_job("0: a | x\n7: b\n9: c | x::0.3\n30: d")
    forwards = [conditioner.condition(plan) for plan in timeline]
    for plan in reversed(list(timeline)):
        _, alone, _ = open_job("0: unused")
        for other in (conditioner.condition(plan), alone.condition(plan)):
            expected = forwards[plan.frame]
            np.testing.assert_array_equal(other.noise, expected.noise)
            np.testing.assert_array_equal(other.prompt_embeds, expected.prompt_embeds)
            np.testing.assert_array_equal(other.mix, expected.mix)


def test_a_schedule_of_seeds_is_the_noise_of_each_frame() -> None:
    settings = replace(SETTINGS, seed="0:(3), 4:(5), 8:(5)", interpolation="sine")
    timeline, conditioner, _ = open_job("0: a dog\n6: a lion\n8: a cat", settings)
    for frame, seed in [(0, 3), (2, 4), (4, 5), (5, 5), (8, 5)]:
        noise = conditioner.condition(timeline[frame]).noise
        np.testing.assert_array_equal(noise, initial_noise(seed, LATENT))
    for frame, below in [(1, 3), (3, 4)]:
        ends = initial_noise(below, LATENT), initial_noise(below + 1, LATENT)
        noise = conditioner.condition(timeline[frame]).noise
        np.testing.assert_array_equal(noise, slerp(*ends, 0.5))


def test_a_quarter_between_two_seeds() -> None:
    settings = replace(SETTINGS, seed="7.25", latents="lerp")
    timeline, conditioner, _ = open_job("0: a dog", settings)
    expected = 0.75 * initial_noise(7, LATENT) + 0.25 * initial_noise(8, LATENT)
    np.testing.assert_allclose(conditioner.condition(timeline[0]).noise, expected, atol=1e-6)


def test_noise_is_scaled_as_planned() -> None:
    settings = replace(SETTINGS, noise="0:(1), 4:(0), 8:(2)")
    timeline, conditioner, _ = open_job("0: a dog\n9: a lion", settings)
    _, unscaled, _ = open_job("0: a dog\n9: a lion")
    for frame, factor in [(0, 1), (1, 0.75), (4, 0), (6, 1), (7, 1.5), (9, 2)]:
        noise = conditioner.condition(timeline[frame]).noise
        expected = unscaled.condition(replace(timeline[frame], noise=1.0)).noise
        np.testing.assert_allclose(noise, factor * expected, rtol=1e-6)
        assert noise.dtype == np.float32
    # The noise that other frames share is not changed.
    np.testing.assert_array_equal(
        conditioner.condition(timeline[0]).noise, unscaled.condition(timeline[0]).noise
    )


@pytest.mark.parametrize("interpolation", ["linear", "sine", "ease", "curve"])
def test_key_frames_are_exact_whatever_leads_there(interpolation: str) -> None:
    arguments = "sin(t)**2" if interpolation == "curve" else ""
    settings = replace(SETTINGS, interpolation=interpolation, interpolation_args=arguments)
    timeline, conditioner, embed = open_job("0: a --hold 0.5\n7: b --ease in\n9: c", settings)
    for frame, prompt in [(0, "a"), (7, "b"), (9, "c")]:
        condition = conditioner.condition(timeline[frame])
        noise = initial_noise(derive_seed(0, frame), LATENT)
        np.testing.assert_array_equal(condition.noise, noise)
        np.testing.assert_array_equal(condition.prompt_embeds, [embed("grey"), embed(prompt)])


def test_fixed_latent_is_one_noise_bit_for_bit() -> None:
    timeline, conditioner, _ = open_job("0: a\n5: b\n7: c", replace(SETTINGS, fixed_latent=True))
    noises = {conditioner.condition(plan).noise.tobytes() for plan in timeline}
    assert noises == {initial_noise(derive_seed(0, 0), LATENT).tobytes()}


def test_frames_below_full_strength_start_from_their_picture() -> None:
    asked = []

    def init_latents(frame: int) -> NDArray[np.float32]:
        asked.append(frame)
        return np.full(LATENT, frame, np.float32)

    settings = replace(SETTINGS, image="dog.png", strength="0:(0.5), 2:(1), 4:(0.25)")
    timeline = Timeline(parse_prompts("0: a\n4: b"), settings)
    conditioner = Conditioner(settings, Embedder(), LATENT, init_latents)
    starts = [conditioner.condition(plan).init_latents for plan in timeline]
    assert asked == [0, 1, 3, 4]
    assert starts[2] is None
    for frame in asked:
        np.testing.assert_array_equal(starts[frame], np.full(LATENT, frame))


def test_a_key_frames_noise_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counted(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        drawn.append(seed)
        return initial_noise(seed, shape)

    monkeypatch.setattr(conditioning, "initial_noise", counted)
    num_keys = 3 * CACHED_KEY_FRAMES
    timeline, conditioner, _ = open_job("\n".join(f"{8 * i}: a" for i in range(num_keys)))
    for plan in timeline:
        conditioner.condition(plan)
    assert len(drawn) == len({*drawn}) == num_keys


def pooling(settings: RenderSettings, *, zero_negative: bool) -> tuple[Conditioner, Embedder]:
    """A conditioner of a model that pools, and what it pools with."""
    pool = Embedder((7,))
    embed = Embedder()
    made = Conditioner(settings, embed, LATENT, pool=pool, zero_negative=zero_negative)
    return made, pool


def test_pooled_embeddings_are_blended_as_the_others_are() -> None:
    timeline, conditioner, _ = open_job("0: a dog | x\n10: a lion | x")
    assert conditioner.condition(timeline[0]).pooled is None
    conditioner, pool = pooling(SETTINGS, zero_negative=False)
    plan = timeline[4]
    pooled = conditioner.condition(plan).pooled
    blend = slerp if SETTINGS.embeddings == "slerp" else lerp
    expected = [pool("grey"), blend(pool("a dog"), pool("a lion"), 0.4), pool("x")]
    assert pooled is not None
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled, expected)


@pytest.mark.parametrize("zero_negative", [True, False])
def test_only_an_empty_negative_prompt_is_zeros(zero_negative: bool) -> None:
    """A prompt that fades in or out does so from the empty prompt, which is encoded."""
    settings = replace(SETTINGS, negative="", embeddings="lerp")
    timeline = Timeline(parse_prompts("0: a --neg fog\n4: a | b"), settings)
    conditioner, pool = pooling(settings, zero_negative=zero_negative)
    plan = timeline[1]
    assert [(row.prompt.start, row.prompt.end) for row in plan.rows] == [
        ("fog", ""),
        ("a", "a"),
        ("", "b"),
    ]
    condition = conditioner.condition(plan)
    assert condition.pooled is not None
    for rows, embed in ((condition.prompt_embeds, Embedder()), (condition.pooled, pool)):
        empty = embed("")
        end = np.zeros_like(empty) if zero_negative else empty
        np.testing.assert_array_equal(rows[0], lerp(embed("fog"), end, 0.25))
        np.testing.assert_array_equal(rows[1], embed("a"))
        np.testing.assert_array_equal(rows[2], lerp(empty, embed("b"), 0.25))
    condition = conditioner.condition(timeline[4])
    assert condition.prompt_embeds[0].any() != zero_negative


def test_the_guidance_of_a_frame_is_its_plans() -> None:
    settings = replace(SETTINGS, guidance="0:(2), 4:(10)")
    timeline, conditioner, _ = open_job("0: a\n4: b", settings)
    found = [conditioner.condition(plan).guidance for plan in timeline]
    assert found == [2, 4, 6, 8, 10]
