"""Every family of models, small and with random weights: exported, and rendered as diffusers does.

The turbo models differ from others of their architecture in their scheduler's config alone, so
their graphs are not traced once more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray

from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from tests.engine.frames import Frames
from tests.export import families
from tests.export.renders import PROMPTS, OpenModel, guided, render

SHAPE = (4, families.LATENT_SIDE, families.LATENT_SIDE)
# Of diffusers' Euler schedulers, about NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def render_by_diffusers(pipeline: Any, settings: RenderSettings) -> NDArray[np.float32]:
    noise = np.stack([initial_noise(seed, SHAPE) for seed in range(len(PROMPTS))])
    options: dict[str, Any] = {}
    if settings.negative:
        options["negative_prompt"] = [settings.negative] * len(PROMPTS)
    pictures: NDArray[np.float32] = pipeline(
        PROMPTS,
        guidance_scale=settings.guidance,
        num_inference_steps=settings.steps,
        latents=torch.from_numpy(noise),
        output_type="np",
        **options,
    ).images
    return pictures


def assert_same(frames: Frames, expected: NDArray[np.float32]) -> None:
    difference = np.abs(np.stack(frames.pictures) / 255 - expected).max() * 255
    assert expected.std() > 0.005
    # Rounding to bytes, and at most a level where the two sums round apart.
    assert difference <= 0.52, f"largest difference {difference} of 255"


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("sd1", guided("ddim", negative="the moon")),
        ("sd1-tiny", guided("ddim")),
        ("sd2", guided("ddim", negative="the moon")),
        ("sd2-base", guided("ddim")),
        ("sd-turbo", guided("euler", guidance=0.0, steps=2)),
        ("sdxl", guided("euler")),
        ("sdxl", guided("euler", negative="the moon")),
        ("sdxl-turbo", guided("euler_ads", guidance=0.0, steps=1)),
    ],
)
def test_a_family_renders_what_diffusers_renders(
    exported: OpenModel, onnxruntime: Runtime, family: str, settings: RenderSettings
) -> None:
    frames = render(exported(family), onnxruntime, settings)
    assert_same(frames, render_by_diffusers(families.make(family), settings))


def test_lcm_takes_its_guidance_as_diffusers_does(
    exported: OpenModel, onnxruntime: Runtime
) -> None:
    settings = guided("lcm", steps=1, guidance=8.5)
    frames = render(exported("lcm"), onnxruntime, settings)
    assert_same(frames, render_by_diffusers(families.make("lcm"), settings))
    other = render(exported("lcm"), onnxruntime, guided("lcm", steps=1, guidance=2))
    assert not np.array_equal(frames.pictures, other.pictures)
    parts = families.make("lcm").components
    parts = {name: part for name, part in parts.items() if name != "scheduler"}
    scheduler = DDIMScheduler(
        **families.BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(**parts, scheduler=scheduler, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    settings = guided("ddim", guidance=6)
    frames = render(exported("lcm"), onnxruntime, settings, batch=2)
    assert_same(frames, render_by_diffusers(pipeline, settings))
