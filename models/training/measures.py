"""What the evaluation measures: numbers of pictures, pure.

`models/evaluate.py` calls it. Pictures are (n, 3, s, s) in [-1, 1] throughout. The invariant:
every measure is of single pictures or walks, so that a mean over any part of them is meaningful.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from giffusion.models.training.compose import compose
from giffusion.models.training.drafts import Draft, Layer, pack
from giffusion.models.training.palette import COLOURS, RGB, WHITE, plain

_APART = 0.12
"""How far a pixel is from the background, in [-1, 1], to count as part of the thing."""


def rank(logits: Tensor, accepted: Sequence[int]) -> int:
    """How many classes are likelier than the likeliest of the accepted ones.

    Args:
        logits: (classes,).
        accepted: one class or more.
    """
    return int((logits > logits[list(accepted)].max()).sum())


def halves(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The squares in which the left and the right of two things stand, (n, 3, s/2, s/2) each."""
    side = pictures.shape[-1]
    rows, width = slice(side // 4, side // 4 + side // 2), side // 2
    at = side // 64
    return pictures[:, :, rows, at : at + width], pictures[:, :, rows, width - at : side - at]


def corner_colour(pictures: Tensor) -> Tensor:
    """(n, 3) in [-1, 1]: the median of the pixels of the four corners."""
    side = max(pictures.shape[-1] // 16, 1)
    ends = (slice(0, side), slice(-side, None))
    corners = [pictures[:, :, row, column].flatten(2) for row in ends for column in ends]
    return torch.cat(corners, 2).median(2).values


def thing_colour(pictures: Tensor) -> Tensor:
    """(n, 3) in [-1, 1]: the mean of the pixels that are not of the background's colour."""
    ground = corner_colour(pictures)[:, :, None, None]
    apart = ((pictures - ground).abs().amax(1, keepdim=True) > _APART).float()
    return (pictures * apart).sum((2, 3)) / apart.sum((2, 3)).clamp(min=1)


def expected_colours(pixels: Tensor, picture: int) -> Tensor:
    """(len(COLOURS), 3): what `thing_colour` gives for a picture in every colour, on white."""
    drafts = [
        Draft("", (Layer(picture, scale=0.9, tint=colour),), plain(WHITE))
        for colour in COLOURS.values()
    ]
    return thing_colour(compose(pixels, pack(drafts)))


def nearest(colour: Tensor, others: Tensor) -> int:
    """Row of the colour (n, 3) that is nearest to one (3,)."""
    return int((others - colour).pow(2).sum(1).argmin())


def as_tensor(colours: Sequence[RGB]) -> Tensor:
    """Colours in [0, 1] as (n, 3) in [-1, 1]."""
    return torch.tensor(colours) * 2 - 1


def flash(frames: Tensor) -> float:
    """How much the greatest step between neighbouring frames exceeds the usual one.

    Args:
        frames: (n, 3, s, s) of a walk.

    Returns:
        The greatest mean absolute difference over the median one: 1 for an even walk.
    """
    steps = (frames[1:] - frames[:-1]).abs().mean((1, 2, 3))
    return float(steps.max() / steps.median().clamp(min=1e-4))


def psnr(pictures: Tensor, others: Tensor) -> Tensor:
    """(n,): peak signal-to-noise ratios in dB; the peak is 2, from -1 to 1."""
    error = (pictures - others).pow(2).mean((1, 2, 3)).clamp(min=1e-10)
    return 10 * torch.log10(4 / error)
