"""Latents pulled to a reference that follows them, so that frames of a chain change slowly.

The chain of frames calls it. Pure: the reference is handed in and out, and so is the noise. The
invariant: within `scale_limits` the pull never overshoots the reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.schedules.limits import Limits


def scale_limits(num_elements: int) -> Limits:
    """Returns the scales for latents of so many elements, 4·h·w.

    The pull of one step is 2·scale/num_elements. At 1 latents become the reference; above it they
    overshoot, and above 2 each step takes them further away.
    """
    return Limits(0, num_elements / 2)


@dataclass(frozen=True, slots=True)
class Coherence:
    """One gradient step on the mean squared distance to a reference, as GIFfusion takes it.

        x   <- x - (2·scale/N)·(x - ref) + noise·n,   N elements, n standard normal
        ref <- alpha·x + (1 - alpha)·ref

    Args:
        scale: strength of the pull, 0 … N/2, which is checked where N is known; 0 has none.
        alpha: how fast the reference follows: at 0 it stays, at 1 it is what came before.
        noise: deviation of the noise that is added, in units of latents, 0 … 1.
    """

    scale: float
    alpha: float = 1.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        # `RenderSettings` refuses others.
        assert 0 <= self.alpha <= 1, self.alpha
        assert 0 <= self.noise <= 1, self.noise

    def apply(
        self,
        latents: NDArray[np.float32],
        reference: NDArray[np.float32] | None,
        noise: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Takes the step.

        Args:
            latents: (4, h, w).
            reference: (4, h, w), or None at the start of a chain: the latents themselves.
            noise: (4, h, w) standard normal; None is none.

        Returns:
            The latents and the reference after it, float32.

        Raises:
            SettingsError: `scale` is out of the range for this size.
        """
        reference = latents if reference is None else reference
        pull, follow = np.float32(self.pull(latents.size)), np.float32(self.alpha)
        pulled = latents + pull * (reference - latents)
        if noise is not None:
            pulled += np.float32(self.noise) * noise
        return pulled, reference + follow * (pulled - reference)

    def pull(self, num_elements: int) -> float:
        """Returns the share of the distance to the reference that one step takes, 0 … 1.

        Raises:
            SettingsError: `scale` is out of the range for latents of so many elements.
        """
        return 2 * scale_limits(num_elements).check(self.scale, "coherence") / num_elements
