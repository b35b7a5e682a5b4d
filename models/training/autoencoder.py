"""The autoencoder's training: pictures to latents of unit variance, and back.

`train.py` runs it first. The invariant: what leaves here encodes to latents whose channels have
mean 0 and variance 1 over the corpus, so that the model's scaling factor is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from giffusion.models.training.averages import MovingAverage
from giffusion.models.training.descent import descend
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Coder, coder
from giffusion.models.training.schedule import Budget, StepOptions

Draw = Callable[[int], Tensor]
"""Draws so many pictures of the corpus, (b, 3, s, s) in [-1, 1]."""

_POOLS = (4, 8)
"""Sides of the areas whose mean colours are compared as well: shading, where L1 sees edges."""


@dataclass(frozen=True, slots=True)
class AutoencoderOptions(StepOptions):
    """How the autoencoder is trained; a batch is of pictures, a multiple of four.

    Attributes:
        noise: largest standard deviation of the noise on latents. The U-Net's latents are never
            exact, so that the decoder must not depend on their last digits.
        decay: of the moving average.
    """

    batch: int = 16
    rate: float = 1.5e-3
    warmup: int = 100
    noise: float = 0.12
    decay: float = 0.998


def train_autoencoder(
    model: nn.Module, draw: Draw, machine: Machine, budget: Budget, options: AutoencoderOptions
) -> None:
    """Trains an `AutoencoderTiny` in place, and scales its latents.

    Args:
        model: on the machine's device.
        draw: the corpus.
        machine: where it runs, and who is told of it.
        budget: how long it trains.
        options: how.
    """

    def loss(pictures: Tensor) -> Tensor:
        return _loss(coder(model), pictures, options.noise)

    _train(model, draw, loss, machine, budget, options)
    scale_latents(model, draw, machine)


def train_decoder(
    model: nn.Module, draw: Draw, machine: Machine, budget: Budget, options: AutoencoderOptions
) -> None:
    """Trains the decoder of an `AutoencoderTiny` in place; what encodes stays as it is.

    A decoder that was trained on small pictures learns the detail of larger ones.

    Args:
        model: trained, on the machine's device, with latents of variance 1.
        draw: the corpus.
        machine: where it runs, and who is told of it.
        budget: how long it trains.
        options: how.
    """

    def loss(pictures: Tensor) -> Tensor:
        with torch.no_grad():
            latents = coder(model).encoder(pictures).float()
        decoded = coder(model).decoder(_noisy(latents, options.noise))
        return reconstruction_loss(decoded.float(), pictures)

    _train(coder(model).decoder, draw, loss, machine, budget, options)


def _train(
    network: nn.Module,
    draw: Draw,
    loss_of: Callable[[Tensor], Tensor],
    machine: Machine,
    budget: Budget,
    options: AutoencoderOptions,
) -> None:
    """Trains a network by its losses on new pictures, and leaves it its averaged weights."""
    average = MovingAverage(network, options.decay)
    optimizer = machine.optimizer(network, options)

    def new_loss() -> Tensor:
        pictures = draw(options.batch)
        with machine.autocast():
            return loss_of(pictures)

    descend("autoencoder", network, optimizer, new_loss, machine, budget, options, average=average)
    average.copy_to(network)


def _loss(model: Coder, pictures: Tensor, noise: float) -> Tensor:
    latents = model.encoder(pictures).float()
    mean, std = latents.mean((0, 2, 3), True), latents.std((0, 2, 3), keepdim=True)
    latents = (latents - mean) / (std + 1e-4)
    # Latents at half their size must decode to pictures at half theirs: without it the encoder
    # hides detail in patterns that the U-Net cannot learn (Kouzelis et al. 2025, EQ-VAE).
    latents = torch.cat([latents, mosaic(latents)])
    pictures = torch.cat([pictures, mosaic(pictures)])
    return reconstruction_loss(model.decoder(_noisy(latents, noise)).float(), pictures)


def _noisy(latents: Tensor, noise: float) -> Tensor:
    """Latents with noise of a deviation between 0 and `noise` each, channels last."""
    level = noise * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    latents = latents + level * torch.randn_like(latents)
    return latents.contiguous(memory_format=torch.channels_last)


def mosaic(images: Tensor) -> Tensor:
    """Four images at half their size make one: (b, c, h, w) to (b / 4, c, h, w).

    So the half-size pictures are decoded in one batch with the others.
    """
    small = F.avg_pool2d(images, 2)
    top, bottom = small.chunk(2)
    return torch.cat([torch.cat(top.chunk(2), 3), torch.cat(bottom.chunk(2), 3)], 2)


def reconstruction_loss(decoded: Tensor, pictures: Tensor) -> Tensor:
    """L1 of colours, of their differences to the right and below, and of mean colours of areas."""
    error = decoded - pictures
    loss = error.abs().mean()
    loss = loss + error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    for side in _POOLS:
        loss = loss + F.avg_pool2d(error, side).abs().mean()
    return loss


@torch.no_grad()
def scale_latents(model: nn.Module, draw: Draw, machine: Machine, pictures: int = 512) -> None:
    """Folds mean and deviation of the latents into the encoder's last convolution.

    Args:
        model: whose decoder expects latents of mean 0 and variance 1.
        draw: the corpus.
        machine: where it runs.
        pictures: how many are measured at least.
    """
    size, encoder = 32, coder(model).encoder
    with machine.autocast():
        latents = torch.cat([encoder(draw(size)).float() for _ in range(max(1, pictures // size))])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last = list(encoder.modules())[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.div_(std[:, None, None, None])
    last.bias.sub_(mean).div_(std)


@torch.no_grad()
def reconstruction_psnr(model: nn.Module, pictures: Tensor, machine: Machine) -> float:
    """Peak signal to noise ratio of pictures that went through the latents, in dB."""
    with machine.autocast():
        decoded = coder(model).decoder(coder(model).encoder(pictures)).float().clamp(-1, 1)
    error = (decoded - pictures).div(2).square().mean()
    return float(-10 * torch.log10(error))
