"""The moving average of a network's weights, which is what is published.

The stages keep one beside the network they train. The invariant: it holds float32 copies that no
optimizer touches, named as the network's own parameters are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingAverage:
    """An exponential moving average.

    Args:
        model: whose parameters are averaged; its buffers never change.
        decay: share that is kept at each step; lower at first, so that the beginning is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = dict(model.named_parameters())
        self.values: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in self._parameters.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves towards the weights after a step, counted from 0."""
        kept = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.values.values()), list(self._parameters.values()), 1.0 - kept
        )

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Gives a network of the same kind the averaged weights."""
        parameters = dict(model.named_parameters())
        assert parameters.keys() == self.values.keys()
        for name, value in self.values.items():
            parameters[name].copy_(value)
