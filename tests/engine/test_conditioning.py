"""Conditions of frames: exact at key frames, blended between them, weighted as planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine import conditioning
from giffusion.engine.conditioning import CACHED_KEY_FRAMES, Conditioner
from giffusion.engine.interpolation import lerp, slerp
from giffusion.engine.noise import initial_noise
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline

LATENT = (4, 3, 2)
SETTINGS = RenderSettings(guidance=4.0, negative="grey")


class Embedder:
    """Embeds a text as noise of its own, the same array each time, as the engine's cache does."""

    def __init__(self) -> None:
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, text: str) -> NDArray[np.float32]:
        return self.known.setdefault(text, initial_noise(sum(text.encode()), (5, 6)))


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
