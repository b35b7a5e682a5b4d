"""diffusers as a contestant, at the best settings that it has on a CPU.

The same checkpoint, sampler, embeddings and noise as the engine's; what the engine computes from
the key frames on the way is given to the peer ready-made, and NV12 where the encoder takes that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from numpy.typing import NDArray

from benchmarks.levels import to_bytes
from benchmarks.workload import Workload
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.conditions.conditioning import Condition, Conditioner
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import latent_size
from giffusion.engine.runtimes.base import num_cores

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OPTIONS = ("channels_last", "plain_attention", "sliced_decode")
"""What a user can switch on without a compiler; each is kept where it was faster."""


class Diffusers:
    """A `StableDiffusionPipeline` that renders the workload's frames batch by batch.

    Args:
        work: what to render.
        precision: `fp32` or `bf16`.

    Attributes:
        batch: frames a call.
        options: those of `OPTIONS` that are on.
    """

    def __init__(self, work: Workload, precision: str) -> None:
        self.precision = precision
        self.batch = 8
        self.options: tuple[str, ...] = ()
        self.pipeline = load_pipeline(work, DTYPES[precision])
        self._work = work
        self._inputs: dict[str, torch.Tensor] = {}

    @property
    def name(self) -> str:
        """How tables call it."""
        options = "".join(f" {option}" for option in self.options)
        return f"diffusers {self.precision} batch {self.batch}{options}"

    def prepare(self, conditions: Sequence[Condition]) -> None:
        """Takes the conditions of all frames, the negative prompt's row first."""
        embeds = np.stack([condition.prompt_embeds for condition in conditions])
        noise = np.stack([condition.noise for condition in conditions])
        dtype = DTYPES[self.precision]
        self._inputs = {
            "negative_prompt_embeds": torch.from_numpy(embeds[:, 0]).to(dtype),
            "prompt_embeds": torch.from_numpy(embeds[:, 1]).to(dtype),
            "latents": torch.from_numpy(noise).to(dtype),
        }

    def configure(self, options: Sequence[str]) -> None:
        """Switches options on, and all others off."""
        self.options = tuple(options)
        unet, vae = self.pipeline.unet, self.pipeline.vae
        layout = torch.channels_last if "channels_last" in options else torch.contiguous_format
        unet.to(memory_format=layout)
        vae.to(memory_format=layout)
        plain = "plain_attention" in options
        unet.set_attn_processor(AttnProcessor() if plain else AttnProcessor2_0())
        vae.enable_slicing() if "sliced_decode" in options else vae.disable_slicing()

    def denoise_rate(self, window_s: float) -> float:
        names = ("negative_prompt_embeds", "prompt_embeds")
        count = min(self.batch, self._work.num_frames)
        embeds = torch.cat([self._inputs[name][:count] for name in names])
        latents = self._inputs["latents"][:count].repeat(2, 1, 1, 1)
        num_runs, unet = 0, self.pipeline.unet
        with torch.inference_mode():
            unet(latents, 500, embeds, return_dict=False)
            began = time.perf_counter()
            while (elapsed_s := time.perf_counter() - began) < window_s or num_runs < 2:
                unet(latents, 500, embeds, return_dict=False)
                num_runs += 1
        return num_runs * len(latents) / elapsed_s

    def render(self, sink: FrameSink, frames: range | None = None) -> None:
        stop = self._work.num_frames if frames is None else frames.stop
        for start in range(0, stop, self.batch):
            pictures = self._pictures(
                slice(start, min(start + self.batch, stop)), sink.pixel_format
            )
            for index, picture in enumerate(pictures, start):
                sink.write(index, picture)

    def _pictures(self, frames: slice, pixel_format: PixelFormat) -> NDArray[np.uint8]:
        settings = self._work.settings
        with torch.inference_mode():
            pictures = self.pipeline(
                **{name: values[frames] for name, values in self._inputs.items()},
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance,
                output_type="pt",
            ).images
            return to_bytes((pictures.float() * 255).round(), pixel_format)


def load_pipeline(work: Workload, dtype: torch.dtype) -> Any:
    """Opens the model's folder as a pipeline with the sampler of the workload, DPM-Solver++(2M)."""
    if work.settings.sampler != "dpm++2m":
        raise ValueError(f"sampler {work.settings.sampler} has no peer here: expected dpm++2m")
    torch.set_num_threads(num_cores())
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        work.model.folder, local_files_only=True
    ).to(dtype)
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(
        pipeline.scheduler.config
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def conditions(work: Workload, pipeline: Any) -> list[Condition]:
    """Returns every frame's noise and embeddings, with texts encoded by a pipeline in fp32."""

    def embed(prompt: str) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeds, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        return np.asarray(embeds[0].float().numpy())

    height, width = latent_size(work.size)
    channels = pipeline.unet.config.in_channels
    conditioner = Conditioner(work.settings, embed, (channels, height, width))
    return [conditioner.condition(plan) for plan in work.timeline]
