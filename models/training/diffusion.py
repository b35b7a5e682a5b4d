"""The training of the U-Net and the text encoder, together and from nothing.

`train.py` runs it on the latents of the whole corpus. The invariant: every minute what would be
published is saved, and the training can go on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from giffusion.models.training.averages import MovingAverage
from giffusion.models.training.descent import descend
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser
from giffusion.models.training.schedule import (
    Budget,
    StepOptions,
    alphas_cumprod,
    spread_timesteps,
)


@dataclass(frozen=True, slots=True)
class DiffusionOptions(StepOptions):
    """How the U-Net and the text encoder are trained; a batch is of latents.

    Attributes:
        empty: share of captions that are replaced by the empty one, which guidance needs.
        decay: of the moving average.
        save_s: seconds between two saves.
    """

    batch: int = 384
    rate: float = 1e-3
    warmup: int = 300
    matrix_rate: float = 2.0
    weight_decay: float = 0.01
    empty: float = 0.12
    decay: float = 0.999
    save_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """What the stages on latents learn from, all on the training's device.

    Attributes:
        latents: (n, 4, h, w) float16, of every scene.
        token_ids: (n, 24) int16, its caption.
        empty_ids: (24,) int16, the empty caption.
    """

    latents: Tensor
    token_ids: Tensor
    empty_ids: Tensor

    def draw(self, count: int, empty: float) -> tuple[Tensor, Tensor]:
        """Draws scenes: latents (b, 4, h, w) float32 and token ids (b, 24) int64."""
        device = self.latents.device
        rows = torch.randint(len(self.latents), (count,), device=device)
        dropped = torch.rand(count, 1, device=device) < empty
        ids = torch.where(dropped, self.empty_ids, self.token_ids[rows])
        return self.latents[rows].float(), ids.long()


@dataclass(slots=True)
class DiffusionState:
    """All that a training needs to go on: see `checkpoints`."""

    model: Denoiser
    average: MovingAverage
    optimizer: torch.optim.Optimizer
    step: int = 0


def new_state(model: Denoiser, machine: Machine, options: DiffusionOptions) -> DiffusionState:
    """Returns the state before the first step."""
    average = MovingAverage(model, options.decay)
    return DiffusionState(model, average, machine.optimizer(model, options))


def train_diffusion(
    state: DiffusionState,
    corpus: Corpus,
    machine: Machine,
    budget: Budget,
    options: DiffusionOptions,
    save: Callable[[], None],
    until: float = 1.0,
) -> None:
    """Trains to the end of the budget or before; the average holds the result.

    Args:
        state: is trained in place.
        corpus: what from.
        machine: where.
        budget: how long.
        options: how.
        save: is called every `save_s` seconds.
        until: progress of the budget at which it ends.
    """
    unet = machine.compiled(state.model.unet)
    alphas = alphas_cumprod().to(machine.device)
    saved = budget.elapsed

    def new_loss() -> Tensor:
        latents, ids = corpus.draw(options.batch, options.empty)
        return velocity_loss(state.model, unet, latents, ids, alphas, machine)

    def stepped(step: int) -> None:
        nonlocal saved
        state.step = step
        if budget.elapsed - saved > options.save_s:
            saved = budget.elapsed
            save()

    descend(
        "diffusion",
        state.model,
        state.optimizer,
        new_loss,
        machine,
        budget,
        options,
        average=state.average,
        step=state.step,
        until=until,
        stepped=stepped,
    )


def velocity_loss(
    model: Denoiser,
    unet: Callable[..., tuple[Tensor]],
    latents: Tensor,
    ids: Tensor,
    alphas: Tensor,
    machine: Machine,
) -> Tensor:
    """Mean square error of the v-prediction at random noise levels.

    v = √ᾱ ε − √(1 − ᾱ) x (Salimans and Ho 2022), with equal weight at each timestep.

    Args:
        model: whose text encoder embeds.
        unet: the U-Net, as compiled.
        latents: (b, 4, h, w) of scenes.
        ids: (b, 24), their captions.
        alphas: (1000,), see `schedule`.
        machine: where it runs.
    """
    noisy, timesteps, velocity = noised(latents, alphas)
    with machine.autocast():
        states = model.embed(ids)
        predicted = unet(noisy, timesteps, states, return_dict=False)[0]
    return F.mse_loss(predicted.float(), velocity)


def noised(latents: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents at random noise levels, those timesteps (b,), and the velocities.

    Args:
        latents: (b, 4, h, w) of scenes.
        alphas: (1000,), see `schedule`.
    """
    timesteps = spread_timesteps(len(latents), len(alphas), latents.device)
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = (signal * latents + spread * noise).contiguous(memory_format=torch.channels_last)
    return noisy, timesteps, signal * noise - spread * latents
