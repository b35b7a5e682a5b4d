"""diffusers as a contestant of the GPU table: eager, or compiled as its documentation says.

Its own pipelines and schedulers with the row's weights, in half precision and channels-last. What
the engine computes on the way is given ready-made: embeddings and noise of every frame; and NV12
is made of its pictures by the engine's own conversion on the device, the fastest there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.contest import FIGURES, Job, rate
from benchmarks.gpu.machine import synchronize
from benchmarks.gpu.networks import SCHEDULER
from benchmarks.levels import to_bytes
from giffusion.engine.batching.jobs import FrameSink
from giffusion.export.stages import DTYPES

SCHEDULERS: dict[str, Any] = {
    "euler": diffusers.EulerDiscreteScheduler,
    "dpm++2m": diffusers.DPMSolverMultistepScheduler,
}
COMPILE_MODE = "max-autotune"
MAX_DECODE = 8
"""Pictures that are decoded at once; more of 1024x1024 take memory and no less time."""


class Pipeline:
    """A diffusers pipeline of the row's networks and all frames' inputs on the device.

    Args:
        job: what to render.
        compiled: UNet and decoder are compiled, at their first call of each batch.
    """

    def __init__(self, job: Job, *, compiled: bool) -> None:
        self.job = job
        networks = job.networks
        unet = networks.unet().to(memory_format=torch.channels_last)
        self.vae = networks.vae().to(memory_format=torch.channels_last)
        scheduler = SCHEDULERS[job.row.sampler].from_config(SCHEDULER)
        self.pipeline = _pipeline(job, unet, self.vae, scheduler)
        self.pipeline.set_progress_bar_config(disable=True)
        self.decode: Any = self.vae.decode
        if compiled:
            options: Any = {"mode": COMPILE_MODE, "fullgraph": True, "dynamic": False}
            self.pipeline.unet = torch.compile(unet, **options)
            self.decode = torch.compile(self.vae.decode, **options)
        self.inputs = _inputs(job)


class Peer:
    """A pipeline at one batch.

    Args:
        pipeline: shared by the batches of a column.
        column: the column's name.
        frames: frames a call.
    """

    on_device = False
    figures = tuple(FIGURES)

    def __init__(self, pipeline: Pipeline, column: str, frames: int) -> None:
        self.name = f"{column}, batch {frames}"
        self.frames = frames
        self._pipeline = pipeline
        self._job = pipeline.job
        self._num_decoded = min(frames, MAX_DECODE)

    def denoise_rate(self, window_s: float) -> float:
        pipeline = self._pipeline.pipeline
        with torch.inference_mode(), _fast_kernels():
            pipeline.scheduler.set_timesteps(self._job.row.steps, device=pipeline.device)
            unet = pipeline.unet
            sample, rest = self._unet_arguments()
            timestep = pipeline.scheduler.timesteps[0]
            runs = rate(lambda: unet(sample, timestep, **rest), synchronize, window_s)
        return runs * self.frames * self._job.row.rows_per_frame

    def decode_rate(self, window_s: float) -> float:
        decode = self._pipeline.decode
        with torch.inference_mode(), _fast_kernels():
            latents = self._unscaled(self._batch(0)["latents"])[: self._num_decoded]
            runs = rate(lambda: decode(latents, return_dict=False), synchronize, window_s)
        return runs * len(latents)

    def to_device(self, num_frames: int) -> None:
        for _ in self._levels(num_frames):
            pass
        synchronize()

    def render(self, sink: FrameSink, num_frames: int) -> None:
        index = 0
        for levels in self._levels(num_frames):
            for picture in to_bytes(levels, sink.pixel_format)[: num_frames - index]:
                sink.write(index, picture)
                index += 1

    def close(self) -> None:
        """Does nothing: the pipeline goes with its last batch."""

    @torch.inference_mode()
    def _levels(self, num_frames: int) -> Iterator[Tensor]:
        """Yields pictures as whole numbers 0 … 255, (images, 3, H, W), on the device.

        Batches are always whole, and what is too many is left out by `render`: another shape would
        be compiled anew.
        """
        settings = self._job.settings
        with _fast_kernels():
            for start in range(0, num_frames, self.frames):
                latents = self._pipeline.pipeline(
                    **self._batch(start),
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance,
                    output_type="latent",
                    return_dict=False,
                )[0]
                for part in torch.split(self._unscaled(latents), self._num_decoded):
                    (picture,) = self._pipeline.decode(part, return_dict=False)
                    yield ((picture.float() / 2 + 0.5).clamp(0, 1) * 255).round()

    def _unscaled(self, latents: Tensor) -> Tensor:
        vae = self._pipeline.vae
        unscaled: Tensor = (latents / vae.config.scaling_factor).to(vae.dtype)
        return unscaled

    def _batch(self, start: int) -> dict[str, Tensor]:
        """Returns the inputs of a whole batch; the last frame stands for those that are missing."""
        inputs = self._pipeline.inputs
        last = len(inputs["latents"]) - 1
        frames = [min(start + place, last) for place in range(self.frames)]
        return {name: values[frames] for name, values in inputs.items()}

    def _unet_arguments(self) -> tuple[Tensor, dict[str, Any]]:
        """Returns what the pipeline calls the UNet with: the same, or it would compile again."""
        row, inputs = self._job.row, self._batch(0)
        names = ("negative_prompt_embeds", "prompt_embeds")[2 - row.rows_per_frame :]
        return inputs["latents"].repeat(row.rows_per_frame, 1, 1, 1), {
            "encoder_hidden_states": torch.cat([inputs[name] for name in names]),
            "timestep_cond": None,
            "cross_attention_kwargs": None,
            "added_cond_kwargs": _micro(self._job, inputs),
            "return_dict": False,
        }


@contextmanager
def _fast_kernels() -> Iterator[None]:
    """Lets cuDNN try kernels, as a user of diffusers may, and as the engine may not."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before


def _pipeline(job: Job, unet: Any, vae: Any, scheduler: Any) -> Any:
    if job.row.architecture.pooled_dim is not None:
        return diffusers.StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=scheduler,
            add_watermarker=False,
        )
    return diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _inputs(job: Job) -> dict[str, Tensor]:
    networks, pooled_dim = job.networks, job.row.architecture.pooled_dim

    def on_device(values: list[Any]) -> Tensor:
        array = np.stack(values)
        return torch.from_numpy(array).to(networks.device, DTYPES[networks.precision])

    embeds = [condition.prompt_embeds for condition in job.conditions]
    inputs = {
        "latents": on_device([condition.noise for condition in job.conditions]),
        "prompt_embeds": on_device([rows[-1] for rows in embeds]),
    }
    if job.row.rows_per_frame == 2:
        inputs["negative_prompt_embeds"] = on_device([rows[0] for rows in embeds])
    if pooled_dim is not None:
        zeros = [np.zeros(pooled_dim, np.float32)] * len(embeds)
        inputs["pooled_prompt_embeds"] = on_device(zeros)
        inputs["negative_pooled_prompt_embeds"] = on_device(zeros)
    return inputs


def _micro(job: Job, inputs: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Returns what SDXL's UNet takes besides, for all rows."""
    if "pooled_prompt_embeds" not in inputs:
        return None
    pooled = inputs["pooled_prompt_embeds"].repeat(job.row.rows_per_frame, 1)
    width, height = job.row.size
    ids = torch.tensor([height, width, 0, 0, height, width], device=pooled.device)
    return {"text_embeds": pooled, "time_ids": ids.to(pooled.dtype).repeat(len(pooled), 1)}
