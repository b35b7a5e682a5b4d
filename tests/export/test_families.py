"""Every family of models, small and with random weights: exported, and rendered as diffusers does.

The turbo models differ from others of their architecture in their scheduler's config alone, so
their graphs are not traced once more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from numpy.typing import NDArray

from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import Model, load_model
from giffusion.engine.noise import initial_noise
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline
from giffusion.export.manifests import sha256
from giffusion.export.model import export_model
from tests.export import families

TRACED = {"sd2-base": "sd2", "sd-turbo": "sd2", "sdxl-turbo": "sdxl"}
"""Families that have the graphs of another."""
SCHEDULER = "scheduler/scheduler_config.json"
PROMPTS = ["a red house", "a dog"]
SHAPE = (4, families.LATENT_SIDE, families.LATENT_SIDE)
OpenModel = Callable[[str], Model]
# Of diffusers' Euler schedulers, about NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """Exports a family's model, once."""
    home = tmp_path_factory.mktemp("families")

    @cache
    def opened(family: str) -> Model:
        folder = home / family
        if family in TRACED:
            shutil.copytree(opened(TRACED[family]).folder, folder)
            families.make(family).scheduler.save_pretrained(folder / "scheduler")
            manifest = json.loads((folder / MANIFEST).read_text())
            manifest["sources"][SCHEDULER] = sha256(folder / SCHEDULER)
            (folder / MANIFEST).write_text(json.dumps(manifest))
        else:
            families.save(family, folder)
            export_model(folder, dtypes=("fp32",), progress=lambda line: None)
        return load_model(folder)

    return opened


@pytest.fixture(scope="module")
def onnxruntime(open_cpu: Callable[[str, str], Runtime]) -> Runtime:
    return open_cpu("onnxruntime", "fp32")


class Frames:
    """Keeps the frames of a job."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []

    def write(self, index: int, frame: Frame) -> None:
        assert index == len(self.pictures)
        assert isinstance(frame, np.ndarray)
        self.pictures.append(frame)


def render(model: Model, runtime: Runtime, settings: RenderSettings, batch: int = 4) -> Frames:
    text = "\n".join(f"{frame}: {prompt} --seed {frame}" for frame, prompt in enumerate(PROMPTS))
    timeline, frames = Timeline.from_text(text, settings), Frames()
    with Engine(model, runtime, batch=batch) as engine:
        engine.submit("job", timeline, settings, frames)
        engine.run()
    return frames


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


def guided(sampler: str, **changes: Any) -> RenderSettings:
    return RenderSettings(**{"sampler": sampler, "steps": 4, "guidance": 4.0} | changes)


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
