"""Sheets of samples: what a model draws for fixed captions, and walks between them.

`train.py` writes them at the end of a training. The invariant: the captions never change, so that
the sheets of two trainings can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import Denoiser
from giffusion.models.training.sampling import (
    SamplingOptions,
    decode_pictures,
    initial_noise,
    sample_latents,
)

Tokenize = Callable[[Sequence[str]], Tensor]
"""Captions to token ids, (n, 24) int64."""

CAPTIONS = (
    *("a picture of a corgi", "a picture of a lion", "a cat", "an elephant", "a red apple"),
    *("a slice of pizza", "a red house", "a blue house", "a house on a green background"),
    *("a lightning storm", "a sunny day", "a thunderstorm", "a rocket", "a bicycle", "a guitar"),
    *("a tree", "a flower", "a green car", "a ship", "a cat and a dog", "an apple and a banana"),
    *("a penguin on a blue background", "a puppy", "a butterfly", "a hamburger", "a snowman"),
    *("a purple umbrella", "a castle", "a clock", "an owl on a black background"),
    *("a yellow balloon", "a fish"),
)
"""What every sheet shows, 32 captions."""

WALKS = (
    ("a picture of a corgi", "a picture of a lion"),
    ("A red house", "a blue house"),
    ("a lightning storm", "a sunny day"),
    ("a cat", "a rocket"),
)
_WALK_FRAMES = 12
_COLUMNS = 8


def write_sheets(
    folder: Path,
    stem: str,
    model: Denoiser,
    autoencoder: nn.Module,
    tokenize: Tokenize,
    machine: Machine,
    options: SamplingOptions,
) -> None:
    """Writes `<stem>.png`, two seeds of each caption, and `<stem>-walks.png`.

    Args:
        folder: where to.
        stem: of the files' names.
        model: text encoder and U-Net.
        autoencoder: what decodes.
        tokenize: of the corpus.
        machine: where it runs.
        options: how pictures are made.
    """
    states = model.embed(tokenize(CAPTIONS).to(machine.device))
    empty = model.embed(tokenize([""]).to(machine.device))
    side = model.latent_side

    def draw(states: Tensor, noise: Tensor) -> Tensor:
        latents = sample_latents(model, states, empty, noise, machine, options)
        return decode_pictures(autoencoder, latents, machine)

    with torch.no_grad():
        seeds = [initial_noise(len(CAPTIONS), side, options.seed + i) for i in range(2)]
        write_grid(
            folder / f"{stem}.png", torch.cat([draw(states, noise) for noise in seeds]), _COLUMNS
        )
        walks = [draw(*_walk(model, tokenize(walk).to(machine.device), side)) for walk in WALKS]
        write_grid(folder / f"{stem}-walks.png", torch.cat(walks), _WALK_FRAMES)


def _walk(model: Denoiser, ids: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Embeddings and noise between two captions, as a render of key frames blends them."""
    first, last = model.embed(ids)
    share = torch.linspace(0, 1, _WALK_FRAMES, device=ids.device)[:, None]
    states = torch.lerp(first[None], last[None], share[:, :, None])
    begin, end = initial_noise(2, side, 7)
    turn = share.cpu()[:, :, None, None] * (torch.pi / 2)
    return states, begin * torch.cos(turn) + end * torch.sin(turn)


def write_grid(path: Path, pictures: Tensor, columns: int, side: int = 128) -> None:
    """Writes pictures in rows of some columns, at a side of `side` pixels.

    Args:
        path: a PNG file.
        pictures: (n, s, s, 3) uint8, n a multiple of columns.
        columns: pictures a row.
        side: pixels of each.
    """
    size = int(pictures.shape[1])
    rows = len(pictures) // columns
    tiled = pictures[: rows * columns].reshape(rows, columns, size, size, 3).transpose(1, 2)
    image = Image.fromarray(tiled.reshape(rows * size, columns * size, 3).numpy())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.resize((columns * side, rows * side), Image.Resampling.BOX).save(path)


def turbo_options(options: SamplingOptions) -> SamplingOptions:
    """How the same captions are drawn by a distilled model: four steps, without guidance."""
    return replace(options, steps=4, guidance=1.0, ddim=True)
