"""When what happens in a training: noise levels, learning rates and the time that is left.

The stages read it. The invariant: a training ends with the time or the steps it was given, and its
learning rate is low by then, however fast the machine is.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from giffusion.models.training.networks import SCHEDULER


def alphas_cumprod() -> Tensor:
    """Share of signal in the variance at each timestep, (1000,) float32, falling.

    The square roots of the betas are evenly spaced (Rombach et al. 2022).
    """
    first, last = math.sqrt(SCHEDULER["beta_start"]), math.sqrt(SCHEDULER["beta_end"])
    steps = int(SCHEDULER["num_train_timesteps"])
    betas = torch.linspace(first, last, steps, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


def spread_timesteps(count: int, num_timesteps: int, device: torch.device) -> Tensor:
    """Draws timesteps one from each of `count` equal parts, (count,) int64.

    Each is uniform; together they cover the noise levels evenly, so that the loss wavers less.
    """
    places = torch.arange(count, device=device) + torch.rand(count, device=device)
    return (places * (num_timesteps / count)).long().clamp_(max=num_timesteps - 1)


@dataclass(slots=True)
class Budget:
    """How long a stage may train.

    Args:
        seconds: of wall clock, unless `steps` are given.
        steps: number of steps, or None to go by the clock.
        spent: seconds that earlier runs of the stage took.
    """

    seconds: float
    steps: int | None = None
    spent: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        """Seconds spent, those of earlier runs counted in."""
        return self.spent + time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds left, 0 where steps are counted."""
        return max(0.0, self.seconds - self.elapsed) if self.steps is None else 0.0

    def progress(self, step: int) -> float:
        """Share of the stage that is over before a step, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        return min(1.0, self.elapsed / self.seconds)


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How large the steps of a stage are.

    Attributes:
        batch: examples a step.
        rate: the highest learning rate.
        warmup: steps until the learning rate is at its highest.
        matrix_rate: that of matrices and kernels over it, see `muon`; 0 for AdamW alone.
        weight_decay: of both.
    """

    batch: int
    rate: float
    warmup: int
    matrix_rate: float = 0.0
    weight_decay: float = 0.0


def learning_rate(peak: float, step: int, progress: float, warmup: int) -> float:
    """A linear rise over the first steps, then half a cosine to a hundredth at the end."""
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * min(1.0, (step + 1) / warmup) * (0.01 + 0.99 * cosine)
