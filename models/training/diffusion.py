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
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser
from giffusion.models.training.schedule import (
    Budget,
    alphas_cumprod,
    learning_rate,
    spread_timesteps,
)


@dataclass(frozen=True, slots=True)
class DiffusionOptions:
    """How the U-Net and the text encoder are trained.

    Attributes:
        batch: latents a step.
        rate: the highest learning rate.
        matrix_rate: that of matrices and kernels over it, see `muon`; 0 for AdamW alone.
        weight_decay: of both.
        warmup: steps until the learning rate is at its highest.
        empty: share of captions that are replaced by the empty one, which guidance needs.
        decay: of the moving average.
        save_s: seconds between two saves.
    """

    batch: int = 384
    rate: float = 1e-3
    matrix_rate: float = 2.0
    weight_decay: float = 0.01
    warmup: int = 300
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
    optimizer = machine.optimizer(model, options.rate, options.weight_decay, options.matrix_rate)
    return DiffusionState(model, MovingAverage(model, options.decay), optimizer)


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
    report = machine.report("diffusion", budget, options.batch)
    progress, saved = budget.progress(state.step), budget.elapsed
    while progress < until:
        rate = learning_rate(options.rate, state.step, progress, options.warmup)
        machine.set_rate(state.optimizer, rate)
        latents, ids = corpus.draw(options.batch, options.empty)
        loss = velocity_loss(state.model, unet, latents, ids, alphas, machine)
        loss.backward()  # type: ignore[no-untyped-call]
        machine.update(state.optimizer, state.model)
        state.average.update(state.step)
        state.step += 1
        progress = budget.progress(state.step)
        report.step(state.step, loss)
        if budget.elapsed - saved > options.save_s:
            saved = budget.elapsed
            save()


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
    timesteps = spread_timesteps(len(latents), len(alphas), latents.device)
    signal = alphas[timesteps].sqrt()[:, None, None, None]
    spread = (1 - alphas[timesteps]).sqrt()[:, None, None, None]
    noise = torch.randn_like(latents)
    noisy = signal * latents + spread * noise
    velocity = signal * noise - spread * latents
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    with machine.autocast():
        states = model.embed(ids)
        predicted = unet(noisy, timesteps, states, return_dict=False)[0]
    return F.mse_loss(predicted.float(), velocity)
