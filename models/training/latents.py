"""The corpus as latents: every scene is painted and encoded once.

`train.py` calls it between the two trainings. The invariant: row i is scene i.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from giffusion.models.training.compose import compose
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import coder
from giffusion.models.training.scenes import Scenes

_BATCH = 256


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
    for start in range(0, len(scenes), _BATCH):
        pictures = compose(pixels, scenes[start : start + _BATCH])
        with machine.autocast():
            encoded.append(encoder(pictures.contiguous(memory_format=torch.channels_last)).half())
    return torch.cat(encoded)
