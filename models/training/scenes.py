"""Scenes: what stands where in each training picture, as tensors that go to a GPU at once.

`corpus` draws them, `compose` paints them, the training indexes them. The invariant: every field
has one row a scene, so that `scenes[rows]` is a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

NOTHING = -1
"""Picture number of a layer that is empty."""


@dataclass(frozen=True, slots=True)
class Scenes:
    """A number of scenes, each of two layers over a background of two colours.

    Attributes:
        picture: (n, 2) int16, the picture of each layer, `NOTHING` for none; the second layer is
            painted over the first.
        place: (n, 2, 4) float16, centre x and y in [-1, 1], scale (1 fills the frame), rotation in
            radians, clockwise as seen.
        flip: (n, 2) bool, mirrored left to right.
        tinted: (n, 2) bool, painted in shades of `tint`.
        tint: (n, 2, 3) float16, RGB in [0, 1].
        ground: (n, 2, 3) float16, RGB in [0, 1] of the background's top and bottom.
        horizon: (n, 2) float16, where y the two meet in [-1, 1], and over which height they blend.
    """

    picture: Tensor
    place: Tensor
    flip: Tensor
    tinted: Tensor
    tint: Tensor
    ground: Tensor
    horizon: Tensor

    def __len__(self) -> int:
        return len(self.picture)

    def __getitem__(self, rows: Tensor | slice) -> Scenes:
        """The scenes of some rows; a tensor of rows lies on the same device."""
        return Scenes(*(getattr(self, field.name)[rows] for field in fields(self)))

    def to(self, device: torch.device | str) -> Scenes:
        """The same scenes on another device."""
        return Scenes(*(getattr(self, field.name).to(device) for field in fields(self)))
