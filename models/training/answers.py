"""A model's answers: pictures for captions and walks, made by diffusers from a model folder.

`models/evaluate.py` calls it, so that what is measured is what the folder holds. The invariant:
the noise of picture i comes from the seed and i, on the CPU, whatever the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How pictures are made: by DPM-Solver++ 2M, or by DDIM as a distilled model wants."""

    steps: int = 12
    guidance: float = 3.0
    seed: int = 1000
    ddim: bool = False
    batch: int = 16


def open_model(folder: Path, device: torch.device) -> Any:
    """The `StableDiffusionPipeline` of a folder, in float32."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(str(folder), low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, torch.float32)


@torch.no_grad()
def embed(pipeline: Any, captions: Sequence[str]) -> Tensor:
    """(n, 24, width): embedded captions."""
    tokens = pipeline.tokenizer(
        list(captions),
        padding="max_length",
        max_length=pipeline.text_encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    ).input_ids.to(pipeline.device)
    states: Tensor = pipeline.text_encoder(tokens)[0]
    return states


def answer(pipeline: Any, captions: Sequence[str], sampling: Sampling) -> Tensor:
    """(n, 3, s, s) in [-1, 1] on the CPU: a picture for every caption, each of its own noise."""
    noise = torch.stack([_noise(pipeline, sampling.seed + i) for i in range(len(captions))])
    return _denoise(pipeline, embed(pipeline, captions), noise, sampling)


def walk(pipeline: Any, first: str, last: str, frames: int, sampling: Sampling) -> Tensor:
    """(frames, 3, s, s): from one caption to another by equal steps of their embeddings."""
    ends = embed(pipeline, [first, last])
    ways = torch.linspace(0, 1, frames, device=ends.device)[:, None, None]
    noise = _noise(pipeline, sampling.seed).expand(frames, -1, -1, -1)
    return _denoise(pipeline, torch.lerp(ends[:1], ends[1:], ways), noise, sampling)


@torch.no_grad()
def reconstruct(pipeline: Any, pictures: Tensor) -> Tensor:
    """(n, 3, s, s) in [-1, 1], on the CPU: such pictures through the autoencoder and back."""
    parts = []
    for part in torch.split(pictures, 16):
        code = pipeline.vae.encode(part.to(pipeline.device))
        latents = code.latents if hasattr(code, "latents") else code.latent_dist.mode()
        parts.append(pipeline.vae.decode(latents).sample.clamp(-1, 1).float().cpu())
    return torch.cat(parts)


def _noise(pipeline: Any, seed: int) -> Tensor:
    side = pipeline.unet.config.sample_size
    return torch.randn(4, side, side, generator=torch.Generator().manual_seed(seed))


def _denoise(pipeline: Any, states: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kind = DDIMScheduler if sampling.ddim else DPMSolverMultistepScheduler
    empty = embed(pipeline, [""])
    pictures = []
    batches = zip(
        torch.split(states, sampling.batch), torch.split(noise, sampling.batch), strict=True
    )
    for part, start in batches:
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
        with torch.autocast(pipeline.device.type, torch.bfloat16):
            decoded = pipeline(
                prompt_embeds=part,
                negative_prompt_embeds=empty.expand_as(part),
                latents=start.to(pipeline.device),
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance,
                output_type="pt",
            ).images
        pictures.append(decoded.float().cpu() * 2 - 1)
    return torch.cat(pictures)
