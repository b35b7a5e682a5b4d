"""What a frame starts from when it follows from the one before: moved, matched, encoded.

Each chain of a job has one `Follower`. The invariant: what comes of it depends on the chain's own
pictures and plans, in their order, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.noise import coherence_noise
from giffusion.engine.motion.coherence import Coherence
from giffusion.engine.motion.color_match import ColorMatch
from giffusion.engine.motion.warp import Motion, warp
from giffusion.engine.settings import MOTION, RenderSettings
from giffusion.engine.timelines.plans import FramePlan

Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Follower:
    """The way from a picture to the latents that the next frame of its chain starts from.

    Args:
        settings: the job's.
        encode: a picture, (H, W, 3) RGB, to its latents, (4, h, w).
        seed: of the job.
    """

    def __init__(self, settings: RenderSettings, encode: Encode, seed: int) -> None:
        self._settings = settings
        self._encode = encode
        self._seed = seed
        self._colors: ColorMatch | None = None
        self._coherence = Coherence(
            settings.coherence, settings.coherence_alpha, settings.coherence_noise
        )
        self._reference: NDArray[np.float32] | None = None

    def follow(self, plan: FramePlan, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns what a frame starts from, (4, h, w) float32.

        Args:
            plan: the frame's.
            picture: the one before it, (H, W, 3) RGB.
        """
        moved = warp(
            picture,
            Motion(**{name: getattr(plan, name) for name in MOTION}),
            self._settings.padding,
        )
        if self._settings.color_match:
            # Its first call has the chain's first picture.
            self._colors = self._colors or ColorMatch(picture)
            moved = self._colors.match(moved)
        return self._cohered(plan.frame, self._encode(moved))

    def _cohered(self, frame: int, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self._settings.coherence:
            return latents
        noise = coherence_noise(self._seed, frame, latents.shape)
        latents, self._reference = self._coherence.apply(latents, self._reference, noise)
        return latents
