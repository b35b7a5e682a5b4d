"""Teaches a trained model to hear through phrasings that its corpus has none of.

The U-Net learned what the text encoder says of some dozens of sentences; a word it never saw, such
as `imagine`, sends it astray, and `and a blue background` reads like a second thing. Here encoder
and cross-attention learn to make of a rephrasing what they made of the caption, in minutes.
`train.py` runs it after the diffusion. The invariant: what is wanted is what the model did before.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from giffusion.models.training.descent import descend
from giffusion.models.training.diffusion import noised
from giffusion.models.training.lessons import LessonBatch, batches
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser, cross_attention
from giffusion.models.training.prepared import Prepared
from giffusion.models.training.schedule import Budget, StepOptions, alphas_cumprod


@dataclass(frozen=True, slots=True)
class ListeningOptions(StepOptions):
    """How the model is taught; a batch is of rephrasings.

    Attributes:
        seed: of the rephrasings.
        pictures: for how many of a batch the U-Net answers too, whose cross-attention then learns;
            0 for none, and the text encoder learns alone: a CPU sees few pictures in minutes.
        weight: of the U-Net's answers in the loss, over that of the encoder's states.
        workers: processes that make lessons; 0 for none besides this one.
    """

    batch: int = 256
    rate: float = 5e-4
    warmup: int = 100
    matrix_rate: float = 2.0
    weight_decay: float = 0.01
    seed: int = 20_261_126
    pictures: int = 256
    weight: float = 20.0
    workers: int = 0


def rephrased(
    prepared: Prepared, latents: Tensor | None, options: ListeningOptions
) -> Iterator[LessonBatch]:
    """Yields lessons without end, of the scenes that there are latents of, or of all."""
    token_ids = prepared.token_ids if latents is None else prepared.token_ids[: len(latents)]
    return batches(prepared.tokenizer, token_ids, options.seed, options.batch, options.workers)


def teach(
    model: Denoiser,
    lessons: Iterator[LessonBatch],
    latents: Tensor | None,
    machine: Machine,
    budget: Budget,
    options: ListeningOptions,
) -> Denoiser:
    """Trains a model in place.

    Args:
        model: a trained one on the machine's device.
        lessons: batches of `options.batch`, without end.
        latents: (n, 4, h, w) of the scenes that they are of, or None where `options.pictures` is 0.
        machine: where.
        budget: how long.
        options: how.

    Returns:
        The model as it was before.
    """
    assert (latents is None) == (options.pictures == 0)
    known = deepcopy(model).eval().requires_grad_(False)
    learning = nn.ModuleList([model.text_encoder])
    if latents is not None:
        learning.extend(cross_attention(model.unet))
    model.requires_grad_(False)
    learning.requires_grad_(True)
    optimizer = machine.optimizer(learning, options)
    alphas = alphas_cumprod().to(machine.device)

    def new_loss() -> Tensor:
        batch = next(lessons).to(machine.device)
        states, heard = listened(model, known, batch, machine)
        loss = hearing_loss(heard, states, batch)
        if latents is not None:
            some = slice(options.pictures)
            scenes = latents[batch.scenes[some]].float()
            pair = (states[some], heard[some])
            loss = loss + options.weight * seeing_loss(model, known, *pair, scenes, alphas, machine)
        return loss

    descend("listening", learning, optimizer, new_loss, machine, budget, options)
    model.requires_grad_(True)
    return known


def listened(
    model: Denoiser, known: Denoiser, lessons: LessonBatch, machine: Machine
) -> tuple[Tensor, Tensor]:
    """What a model that is not trained says of meanings, and one that is of their rephrasings.

    Returns:
        Both (b, LENGTH, width).
    """
    with machine.autocast():
        with torch.no_grad():
            states = known.embed(lessons.meant)
        return states, model.embed(lessons.said)


def hearing_loss(heard: Tensor, states: Tensor, lessons: LessonBatch) -> Tensor:
    """Mean square of what is said of rephrasings less what is said of what they stand for.

    Args:
        heard: (b, LENGTH, width), of the rephrasings.
        states: the same of their meanings.
        lessons: b of them.
    """
    places = lessons.stands_for[..., None].expand_as(states)
    return F.mse_loss(heard.float(), states.float().gather(1, places))


def seeing_loss(
    model: Denoiser,
    known: Denoiser,
    states: Tensor,
    heard: Tensor,
    latents: Tensor,
    alphas: Tensor,
    machine: Machine,
) -> Tensor:
    """Mean square of v-predictions for rephrasings less those of another model for their meanings.

    Args:
        model: whose U-Net is trained.
        known: whose U-Net is not.
        states: (b, LENGTH, width), what `known` says of the meanings.
        heard: the same of `model` and the rephrasings.
        latents: (b, 4, h, w), their scenes.
        alphas: (1000,), see `schedule`.
        machine: where it runs.
    """
    noisy, timesteps, _ = noised(latents, alphas)
    with machine.autocast():
        with torch.no_grad():
            wanted = known(noisy, timesteps, states).float()
        seen = model(noisy, timesteps, heard).float()
    return F.mse_loss(seen, wanted)
