"""Pictures from the networks in training, with diffusers' own sampler.

The sheets of samples and the evaluation call it. The invariant: noise comes from the seed alone, on
the CPU, so that two models asked the same start alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import SCHEDULER, Denoiser, coder


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How pictures are made.

    Attributes:
        steps: of DPM-Solver++ 2M, or of DDIM.
        guidance: classifier-free guidance scale; at 1 only the captions are evaluated.
        seed: of the noise.
        ddim: whether DDIM walks, as a distilled model wants.
    """

    steps: int = 12
    guidance: float = 3.0
    seed: int = 0
    ddim: bool = False


def initial_noise(count: int, side: int, seed: int) -> Tensor:
    """Returns latents of nothing but noise, (count, 4, side, side) float32."""
    return torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample_latents(
    model: Denoiser,
    states: Tensor,
    empty_states: Tensor,
    noise: Tensor,
    machine: Machine,
    options: SamplingOptions,
) -> Tensor:
    """Denoises latents.

    Args:
        model: text encoder and U-Net.
        states: (b, 24, width), embedded captions.
        empty_states: (1, 24, width), the embedded empty caption.
        noise: (b, 4, h, w).
        machine: where it runs.
        options: how.

    Returns:
        (b, 4, h, w) float32.
    """
    scheduler = _scheduler(options)
    scheduler.set_timesteps(options.steps, device=machine.device)
    guided = options.guidance > 1
    if guided:
        states = torch.cat([empty_states.expand_as(states), states])
    latents = noise.to(machine.device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        rows = torch.cat([latents, latents]) if guided else latents
        with machine.autocast():
            velocity = model(rows, timestep.expand(len(rows)), states).float()
        if guided:
            without, along = velocity.chunk(2)
            velocity = without + options.guidance * (along - without)
        latents = scheduler.step(velocity, timestep, latents).prev_sample
    return torch.as_tensor(latents)


def _scheduler(options: SamplingOptions) -> Any:
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

    kind = DDIMScheduler if options.ddim else DPMSolverMultistepScheduler
    return kind.from_config(SCHEDULER)


@torch.no_grad()
def decode_pictures(autoencoder: nn.Module, latents: Tensor, machine: Machine) -> Tensor:
    """Latents to (b, s, s, 3) uint8 on the CPU."""
    with machine.autocast():
        decoded = torch.cat(
            [coder(autoencoder).decoder(part) for part in torch.split(latents, 32)]
        ).float()
    pixels = decoded.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).contiguous().cpu()
