"""Scenes to pictures, a batch at a time, on whatever device the pixels are.

The training calls `compose` while it encodes the corpus, the evaluation while it trains its
classifier. The invariant: the same scenes give the same pictures; nothing here is random.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from giffusion.models.training.scenes import Scenes

_LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in brightness, ITU-R BT.601."""

_PAPER = 0.7
"""How far the brightest parts of a tinted picture go from the tint to white."""

_KEPT = 0.12
"""Share of its own colours that a tinted picture keeps."""

_SMALL = 0.7
"""Scale below which a layer is drawn from its half-size picture, so that it does not alias."""


def compose(pixels: Tensor, scenes: Scenes) -> Tensor:
    """Paints scenes.

    Args:
        pixels: (n, s, s, 4) uint8 RGBA pictures that `scenes.picture` numbers.
        scenes: b scenes on the device of the pixels.

    Returns:
        (b, 3, s, s) float32 RGB in [-1, 1].
    """
    size = pixels.shape[1]
    canvas = _background(scenes, size)
    for layer in range(scenes.picture.shape[1]):
        painted = _layer(pixels, scenes, layer)
        canvas = canvas * (1 - painted[:, 3:]) + painted[:, :3]
    return canvas.clamp(0, 1) * 2 - 1


def _background(scenes: Scenes, size: int) -> Tensor:
    """(b, 3, s, s) in [0, 1]: two colours that blend about the horizon."""
    ground, horizon = scenes.ground.float(), scenes.horizon.float()
    y = (torch.arange(size, device=ground.device) + 0.5) * (2 / size) - 1
    below = ((y[None] - horizon[:, :1]) / horizon[:, 1:].clamp(min=1e-3) + 0.5).clamp(0, 1)
    below = below[:, None, :, None]
    colour = torch.lerp(ground[:, 0, :, None, None], ground[:, 1, :, None, None], below)
    return colour.expand(-1, -1, -1, size)


def _layer(pixels: Tensor, scenes: Scenes, layer: int) -> Tensor:
    """(b, 4, s, s): one layer in place, its colours already multiplied by its opacity."""
    picture = scenes.picture[:, layer].long()
    source = pixels[picture.clamp(min=0)].permute(0, 3, 1, 2).float() / 255
    rgb, alpha = source[:, :3], source[:, 3:]
    shades = _tint(rgb, alpha, scenes.tint[:, layer].float())
    rgb = torch.where(scenes.tinted[:, layer, None, None, None], shades, rgb)
    alpha = alpha * (picture >= 0)[:, None, None, None]
    return _place(torch.cat([rgb * alpha, alpha], 1), scenes, layer)


def _tint(rgb: Tensor, alpha: Tensor, tint: Tensor) -> Tensor:
    """The same pictures in shades of a colour each: their mean brightness becomes the colour.

    Darker parts go from the colour to black, brighter ones towards white, so that form and
    highlights stay.
    """
    luma = (rgb * torch.tensor(_LUMA, device=rgb.device)[None, :, None, None]).sum(1, True)
    mean = (luma * alpha).sum((2, 3), True) / alpha.sum((2, 3), True).clamp(min=1)
    dark = luma / mean.clamp(min=0.05)
    bright = ((luma - mean) / (1 - mean).clamp(min=0.05)).clamp(0, 1) * _PAPER
    colour = tint[:, :, None, None]
    shades = torch.where(dark < 1, colour * dark, colour + (1 - colour) * bright)
    return torch.lerp(shades, rgb, _KEPT)


def _place(source: Tensor, scenes: Scenes, layer: int) -> Tensor:
    """Moves, scales, turns and mirrors premultiplied RGBA pictures."""
    x, y, scale, angle = scenes.place[:, layer].float().unbind(1)
    scale = scale.clamp(min=1e-3)
    mirror = torch.where(scenes.flip[:, layer], -1.0, 1.0)
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    across = torch.stack([cos, sin, -(cos * x + sin * y)], 1) * mirror[:, None]
    down = torch.stack([-sin, cos, sin * x - cos * y], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(source.shape), align_corners=False)
    full = F.grid_sample(source, grid, align_corners=False)
    half = F.grid_sample(F.avg_pool2d(source, 2), grid, align_corners=False)
    return torch.where((scale < _SMALL)[:, None, None, None], half, full)
