"""The corpus as latents: every scene is painted and encoded once.

`train.py` calls it between the two trainings. The invariant: row i is scene i.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from giffusion.models.training.compose import compose
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import coder
from giffusion.models.training.prepared import Prepared, resized
from giffusion.models.training.scenes import Scenes

_BATCH = 256

_EVERY_S = 15.0
"""Seconds between two lines about the encoding."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The scenes of a training, all on its device.

    Attributes:
        pictures: (n, s, s, 4) uint8 RGBA, on the CPU.
        scenes: m scenes of them.
        token_ids: (m, 24) int16, their captions.
        empty_ids: (24,) int16, the empty caption.
    """

    pictures: Tensor
    scenes: Scenes
    token_ids: Tensor
    empty_ids: Tensor

    @classmethod
    def of(cls, prepared: Prepared, count: int, device: torch.device) -> Gallery:
        """The first `count` scenes of a corpus, or all."""
        count = min(count, len(prepared.scenes))
        scenes, ids = prepared.scenes[:count].to(device), prepared.token_ids[:count].to(device)
        return cls(prepared.pixels, scenes, ids, prepared.empty_ids.to(device))

    def pixels(self, side: int) -> Tensor:
        """(n, side, side, 4) uint8 on the scenes' device."""
        return resized(self.pictures, side).to(self.scenes.picture.device)


def draw_pictures(pixels: Tensor, scenes: Scenes, count: int) -> Tensor:
    """Paints scenes at random, (count, 3, s, s) in [-1, 1], channels last."""
    rows = torch.randint(len(scenes), (count,), device=pixels.device)
    return compose(pixels, scenes[rows]).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode_scenes(model: nn.Module, pixels: Tensor, scenes: Scenes, machine: Machine) -> Tensor:
    """Encodes scenes.

    Args:
        model: a trained `AutoencoderTiny`.
        pixels: (n, s, s, 4) uint8 pictures, on the machine's device.
        scenes: m scenes there.
        machine: where it runs.

    Returns:
        (m, 4, s / 8, s / 8) float16.
    """
    encoder, encoded = coder(model).encoder, []
    told = time.monotonic()
    for start in range(0, len(scenes), _BATCH):
        pictures = compose(pixels, scenes[start : start + _BATCH])
        with machine.autocast():
            encoded.append(encoder(pictures.contiguous(memory_format=torch.channels_last)).half())
        if time.monotonic() - told > _EVERY_S:
            told = time.monotonic()
            machine.log(f"latents: {start + len(pictures)} of {len(scenes)} scenes")
    return torch.cat(encoded)
