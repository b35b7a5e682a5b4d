"""Whole renders beside diffusers' own pipeline, with the same weights, noise and prompts.

The reference is `StableDiffusionPipeline` in float32 on the bundled folder, its scheduler replaced
by the sampler's class. It gets our key frames' noise, our step noise, and for frames between key
frames its own embeddings, blended here. Every sampler goes through ONNX Runtime, a few through
OpenVINO too.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging
from numpy.typing import NDArray

from giffusion.engine.conditions.embedder import PromptEmbedder
from giffusion.engine.conditions.emphasis import plain_text
from giffusion.engine.conditions.noise import initial_noise, step_noise
from giffusion.engine.contract import GraphSpec
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes.base import Array, Graph, HostRuntime, Index, Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.keys import derive_seed
from giffusion.engine.timelines.timeline import Timeline
from tests.engine.frames import Frames
from tests.engine.samplers.reference import CLASSES

OPENVINO_SAMPLERS = ("ddim", "dpm++2m", "euler", "euler_ads")
OPTIONS = {"pndms": {"skip_prk_steps": True}}
EVALUATIONS = {"dpm_ads": 23, "pndms": 13}
"""Where they are not the number of steps."""
NEGATIVE = "a blue background"
KEYS = ("a dog on a green background", "a lion")
TEXT = f"0: {KEYS[0]}\n3: {KEYS[1]} --seed 11"
NUM_FRAMES = 4
LATENT_SHAPE = (4, 16, 16)

# Measured on one CPU: latents of all samplers and both runtimes within 5e-5, pictures within 0.001
# of 255 in fp32, and within 1.2 in bf16.
MAX_LATENT_ERROR = 1e-4
MAX_PICTURE_ERROR = 0.05
MAX_BF16_PICTURE_ERROR = 2.0

# torch's tensors predate NumPy 2's protocols, and diffusers hands them to NumPy's functions.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

OpenCpu = Callable[[str, str], Runtime]


def settings_of(sampler: str) -> RenderSettings:
    size = (8 * LATENT_SHAPE[2], 8 * LATENT_SHAPE[1])
    return RenderSettings(
        seed=3, steps=12, sampler=sampler, guidance=3.0, negative=NEGATIVE, size=size
    )


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Final latents (frames, 4, h, w) float32 and pictures (frames, H, W, 3) uint8."""

    latents: NDArray[np.float32]
    pictures: NDArray[np.uint8]


class StepNoise:
    """Stands for diffusers' `randn_tensor`: our noise of all frames at the evaluation."""

    def __init__(self) -> None:
        self.evaluation = 0

    def __call__(self, *_: object, **__: object) -> Any:
        step = self.evaluation
        drawn = [step_noise(3, frame, step, LATENT_SHAPE) for frame in range(NUM_FRAMES)]
        return torch.from_numpy(np.stack(drawn))

    def count(self, _pipeline: object, i: int, _t: object, tensors: Any) -> Any:
        """The pipeline's callback after an evaluation."""
        self.evaluation = i + 1
        return tensors


@pytest.fixture(scope="module")
def pipeline(mini: Model) -> Any:
    loaded: Any = StableDiffusionPipeline.from_pretrained(mini.folder, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    # The singlestep scheduler logs that it adapts itself to the number of steps.
    logging.set_verbosity_error()
    return loaded.to(torch.float32)


@pytest.fixture(scope="module")
def reference(pipeline: Any) -> Callable[[str], Rendered]:
    """Renders with diffusers, once for each sampler."""
    config = pipeline.scheduler.config

    with torch.no_grad():
        negative, *keys = (
            pipeline.encode_prompt(prompt, "cpu", 1, False)[0][0].numpy()
            for prompt in (NEGATIVE, *KEYS)
        )
    seeds = (derive_seed(3, 0), 11)
    noises = [initial_noise(seed, LATENT_SHAPE) for seed in seeds]

    @cache
    def render(sampler: str) -> Rendered:
        settings = settings_of(sampler)
        pipeline.scheduler = CLASSES[sampler].from_config(config, **OPTIONS.get(sampler, {}))
        noise = StepNoise()
        with pytest.MonkeyPatch.context() as patch:
            module = sys.modules[CLASSES[sampler].__module__]
            patch.setattr(module, "randn_tensor", noise, raising=False)
            latents = pipeline(
                prompt_embeds=blends(*keys),
                negative_prompt_embeds=blends(negative, negative),
                latents=blends(*noises),
                guidance_scale=settings.guidance,
                num_inference_steps=settings.steps,
                output_type="latent",
                callback_on_step_end=noise.count,
            ).images
        assert noise.evaluation == EVALUATIONS.get(sampler, settings.steps)
        with torch.no_grad():
            decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
        pictures = pipeline.image_processor.postprocess(decoded, output_type="pil")
        return Rendered(latents.numpy(), np.stack([np.asarray(picture) for picture in pictures]))

    return render


def blends(start: NDArray[np.float32], end: NDArray[np.float32]) -> Any:
    """The arcs' points at the four frames, in double precision."""
    a, b = start.astype(float).ravel(), end.astype(float).ravel()
    cosine = min(a @ b / np.sqrt((a @ a) * (b @ b)), 1.0)
    angle = max(np.arccos(cosine), 1e-6)
    weights = np.linspace(0, 1, NUM_FRAMES)[:, None]
    arc = (np.sin((1 - weights) * angle) * a + np.sin(weights * angle) * b) / np.sin(angle)
    return torch.from_numpy(arc.reshape(-1, *start.shape).astype(np.float32))


class RecordingRuntime(HostRuntime):
    """A runtime that notes the latents which are decoded."""

    num_lanes = 1

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.version, self.precision = runtime.name, runtime.version, runtime.precision
        self.decoded: list[Array] = []
        self._runtime = runtime

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> Graph:
        graph = self._runtime.load(path, spec, axes, feedback)
        return _RecordingGraph(graph, self.decoded) if spec.name == "decode" else graph


class _RecordingGraph:
    def __init__(self, graph: Graph, decoded: list[Array]) -> None:
        self.write, self.read, self.fetch = graph.write, graph.read, graph.fetch
        self.resize, self.close = graph.resize, graph.close
        self._graph, self._decoded = graph, decoded

    def run(self) -> None:
        self._decoded.append(self._graph.read("latents", 0))
        self._graph.run()

    def copy(
        self, name: str, index: Index, source: Graph, source_name: str, source_index: Index
    ) -> None:
        self._graph.copy(name, index, source, source_name, source_index)


def render(model: Model, runtime: Runtime, sampler: str) -> Rendered:
    """Renders with the engine; two frames share the batch, and slots are used again."""
    settings = settings_of(sampler)
    recording, frames = RecordingRuntime(runtime), Frames()
    with Engine(model, recording, size=settings.size, batch=4) as engine:
        job = engine.submit("job", Timeline(parse_prompts(TEXT), settings), settings, frames)
        engine.run()
    assert job.error is None
    # Frames of equally many steps are decoded in their order.
    return Rendered(np.stack(recording.decoded), np.stack(frames.pictures))


def latent_errors(result: Rendered, expected: Rendered) -> NDArray[np.float64]:
    """Largest error of each frame's latents, relative to their largest value."""
    axes = (1, 2, 3)
    difference = np.abs(result.latents.astype(float) - expected.latents).max(axes)
    relative: NDArray[np.float64] = difference / np.abs(expected.latents).max(axes)
    return relative


def picture_errors(result: Rendered, expected: Rendered) -> NDArray[np.float64]:
    """Mean absolute difference of each frame, of 255."""
    difference = np.abs(result.pictures.astype(float) - expected.pictures)
    means: NDArray[np.float64] = difference.mean((1, 2, 3))
    return means


def figures(name: str, values: Sequence[float] | NDArray[np.float64]) -> str:
    return f"{name}: " + ", ".join(f"{value:.3g}" for value in values)


@pytest.mark.parametrize(
    ("sampler", "runtime"),
    [
        *((sampler, "onnxruntime") for sampler in CLASSES),
        *((sampler, "openvino") for sampler in OPENVINO_SAMPLERS),
    ],
)
def test_a_render_is_what_diffusers_renders(
    mini: Model,
    open_cpu: OpenCpu,
    reference: Callable[[str], Rendered],
    runtime: str,
    sampler: str,
) -> None:
    expected = reference(sampler)
    result = render(mini, open_cpu(runtime, "fp32"), sampler)
    assert result.latents.shape == expected.latents.shape == (NUM_FRAMES, *LATENT_SHAPE)
    assert result.pictures.shape == expected.pictures.shape == (NUM_FRAMES, 128, 128, 3)
    latents, pictures = latent_errors(result, expected), picture_errors(result, expected)
    print(figures(f"{sampler} {runtime} fp32 latents", latents))
    print(figures(f"{sampler} {runtime} fp32 pictures", pictures))
    assert latents.max() <= MAX_LATENT_ERROR
    assert pictures.max() <= MAX_PICTURE_ERROR


def test_the_references_frames_differ(reference: Callable[[str], Rendered]) -> None:
    # DDPM and Euler ancestral are one and the same with leading spacing and equal noise.
    rendered = [reference(sampler) for sampler in CLASSES if sampler != "ddpm"]
    frames = np.stack([r.latents for r in rendered]).reshape(-1, *LATENT_SHAPE)
    for i, frame in enumerate(frames):
        for other in frames[:i]:
            assert np.abs(frame - other).max() > 20 * MAX_LATENT_ERROR * np.abs(frame).max()


@pytest.mark.parametrize("sampler", OPENVINO_SAMPLERS)
def test_bfloat16_stays_near(
    mini: Model, open_cpu: OpenCpu, reference: Callable[[str], Rendered], sampler: str
) -> None:
    expected = reference(sampler)
    result = render(mini, open_cpu("openvino", "bf16"), sampler)
    pictures = picture_errors(result, expected)
    print(figures(f"{sampler} openvino bf16 latents", latent_errors(result, expected)))
    print(figures(f"{sampler} openvino bf16 pictures", pictures))
    assert pictures.max() <= MAX_BF16_PICTURE_ERROR


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_prompt_embeddings_are_the_pipelines(
    mini: Model, open_cpu: OpenCpu, pipeline: Any, runtime: str
) -> None:
    embed = PromptEmbedder(mini, open_cpu(runtime, "fp32")).embed
    long = "a very long prompt about " + "many different animals and houses, " * 8
    for prompt in ("", "a dog", "A Corgi \\(on the moon\\), 100%!", "ein Löwe – ライオン 🦁", long):
        with torch.no_grad():
            expected = pipeline.encode_prompt(plain_text(prompt), "cpu", 1, False)[0][0].numpy()
        assert expected.std() > 0.1
        error = np.abs(embed(prompt) - expected).max()
        assert error <= 1e-5, f"{runtime}: {prompt[:20]!r} differs by {error}"
