"""What a contestant of the GPU table does, and what all of a row have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.networks import Networks
from benchmarks.gpu.rows import Row
from benchmarks.workload import count_frames, key_frames
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.conditions.conditioning import Condition, Conditioner
from giffusion.engine.conditions.embedder import PromptEmbedder
from giffusion.engine.contract import LATENT_CHANNELS
from giffusion.engine.encode import Writer, open_writer
from giffusion.engine.model import latent_size
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.export.torch_runtime.runtime import TorchRuntime

FIGURES = {
    "denoise": "denoise graph or UNet alone, rows/s",
    "decode": "decode graph or VAE alone, frames/s",
    "device": "latents to frames on the device, frames/s",
    "file": "latents to a closed, counted mp4, frames/s",
}
GRAPH_FIGURES = ("denoise", "decode")


class Contestant(Protocol):
    """One way to render a row, at one batch."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def frames(self) -> int:
        """Frames that its batch holds."""

    @property
    def figures(self) -> Sequence[str]:
        """Which of `FIGURES` it can be measured by."""

    @property
    def on_device(self) -> bool:
        """Whether a writer may take its frames in device memory."""

    def denoise_rate(self, window_s: float) -> float:
        """Runs the denoising network for about a time; returns rows a second."""

    def decode_rate(self, window_s: float) -> float:
        """Runs the decoder for about a time; returns frames a second."""

    def to_device(self, num_frames: int) -> None:
        """Renders the first frames into device memory and waits for them."""

    def render(self, sink: FrameSink, num_frames: int) -> None:
        """Renders the first frames in order, as the sink takes them."""

    def close(self) -> None:
        """Frees what is its own."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all contestants of a row render.

    Args:
        row: the row.
        networks: its networks.
        folder: where files are written; the contestants' own.
        settings: how it is rendered.
        timeline: the frames.
        conditions: their noise and prompt embeddings.
    """

    row: Row
    networks: Networks
    folder: Path
    settings: RenderSettings
    timeline: Timeline
    conditions: list[Condition]


def make_job(row: Row, networks: Networks, folder: Path) -> Job:
    """Plans a row's frames and encodes their prompts."""
    settings = RenderSettings(
        steps=row.steps, guidance=row.guidance, sampler=row.sampler, size=row.size
    )
    timeline = Timeline(parse_prompts(key_frames(row.max_frames)), settings)
    latent_shape = (LATENT_CHANNELS, *latent_size(row.size))
    if row.text is None:
        conditioner = Conditioner(settings, _random_embed(row), latent_shape)
        conditions = [conditioner.condition(plan) for plan in timeline]
        return Job(row, networks, folder, settings, timeline, conditions)
    (folder / "prompts").mkdir()
    model = networks.model(folder / "prompts")
    runtime = TorchRuntime(networks.precision, load_stage=networks.load_stage)
    embedder = PromptEmbedder(model, runtime)
    conditioner = Conditioner(settings, embedder.embed, latent_shape)
    conditions = [conditioner.condition(plan) for plan in timeline]
    embedder.close()
    return Job(row, networks, folder, settings, timeline, conditions)


def open_file(job: Job, num_frames: int, *, on_device: bool) -> Writer:
    """Opens the file that a contestant's frames go to; one that is there is replaced."""
    return open_writer(
        job.folder / "benchmark.mp4",
        size=job.row.size,
        fps=job.settings.fps,
        num_frames=num_frames,
        metadata="{}",
        on_device=on_device,
        force=True,
    )


def write_file(job: Job, contestant: Contestant, num_frames: int) -> None:
    """Renders to a finished file."""
    with open_file(job, num_frames, on_device=contestant.on_device) as writer:
        contestant.render(writer, num_frames)


def check_file(job: Job, contestant: Contestant, num_frames: int) -> None:
    """Counts the frames of the finished file.

    Raises:
        RuntimeError: it has others than were rendered.
    """
    if (found := count_frames(job.folder / "benchmark.mp4")) != num_frames:
        raise RuntimeError(f"{contestant.name} wrote {found} frames: expected {num_frames}")


def rate(run: Callable[[], object], wait: Callable[[], object], window_s: float) -> float:
    """Returns runs a second, queued one behind the other for about a time, 2 or more."""
    run()
    wait()
    began = time.perf_counter()
    run()
    wait()
    count = max(2, math.ceil(window_s / (time.perf_counter() - began)))
    began = time.perf_counter()
    for _ in range(count):
        run()
    wait()
    return count / (time.perf_counter() - began)


def _random_embed(row: Row) -> Callable[[str], NDArray[np.float32]]:
    shape = (row.architecture.num_tokens, row.architecture.prompt_dim)

    def embed(prompt: str) -> NDArray[np.float32]:
        seed = list(prompt.encode())
        return np.random.default_rng(seed).standard_normal(shape, np.float32)

    return embed
