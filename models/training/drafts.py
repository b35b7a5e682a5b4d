"""Drafts: single scenes as plain values, and a list of them as the tensors of `Scenes`.

`corpus` draws them one at a time and `pack` puts them together. The invariant: a draft has one or
two layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from giffusion.models.training.palette import RGB, WHITE, Ground
from giffusion.models.training.scenes import NOTHING, Scenes


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture in a scene; `tint` in place of its own colours unless None."""

    picture: int
    x: float = 0.0
    y: float = 0.0
    scale: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    tint: RGB | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """One scene with its caption, before it is put among the others."""

    caption: str
    layers: tuple[Layer, ...]
    ground: Ground


def pack(drafts: Sequence[Draft]) -> Scenes:
    """Drafts as tensors; those of one layer have `NOTHING` for a second."""
    both = [(*draft.layers, Layer(NOTHING))[:2] for draft in drafts]
    place = [[(one.x, one.y, one.scale, one.rotation) for one in pair] for pair in both]
    return Scenes(
        picture=torch.tensor([[one.picture for one in pair] for pair in both], dtype=torch.int16),
        place=torch.tensor(place, dtype=torch.float16),
        flip=torch.tensor([[one.flip for one in pair] for pair in both]),
        tinted=torch.tensor([[one.tint is not None for one in pair] for pair in both]),
        tint=torch.tensor(
            [[one.tint or WHITE for one in pair] for pair in both], dtype=torch.float16
        ),
        ground=torch.tensor(
            [(draft.ground.top, draft.ground.bottom) for draft in drafts], dtype=torch.float16
        ),
        horizon=torch.tensor(
            [(draft.ground.horizon, draft.ground.blend) for draft in drafts], dtype=torch.float16
        ),
    )
