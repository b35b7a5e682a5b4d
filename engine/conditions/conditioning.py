"""What a frame is rendered from: noise, prompt embeddings and their weights, pictures.

`Conditioner` turns one `FramePlan` into arrays. The engine's worker thread calls it ahead of the
device, and a frame's condition is a pure function of the plan and the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.interpolation import BLENDS
from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.settings import FROM_NOISE, RenderSettings
from giffusion.engine.timelines.plans import ConditionRow, FramePlan

Embed = Callable[[str], NDArray[np.float32]]
InitLatents = Callable[[int], NDArray[np.float32]]
ReadMap = Callable[[int], NDArray[np.uint8]]
CACHED_KEY_FRAMES = 8
"""Key frames whose noise is kept; a frame needs the two around it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The inputs of one frame.

    Args:
        noise: what its latents start from, (4, h, w) float32.
        prompt_embeds: one condition a row, (rows, L, D) float32.
        mix: the rows' weights in the guidance sum, (rows,) float32, summing to 1.
        init_latents: the init picture that it starts from besides, (4, h, w) float32, or None.
        pooled: SDXL's pooled embeddings, one a row, (rows, P) float32; None for other models.
        guidance: the frame's guidance scale, for models that take it themselves.
        control_map: the picture that steers it, (H, W, 3) RGB, or None.
        control_scale: how far it does; 0 without a picture.
    """

    noise: NDArray[np.float32]
    prompt_embeds: NDArray[np.float32]
    mix: NDArray[np.float32]
    init_latents: NDArray[np.float32] | None = None
    pooled: NDArray[np.float32] | None = None
    guidance: float = 1.0
    control_map: NDArray[np.uint8] | None = None
    control_scale: float = 0.0


class Conditioner:
    """Computes the conditions of one job's frames.

    Args:
        settings: chooses how noise and embeddings are blended.
        embed: prompt text to embeddings, (L, D) float32.
        latent_shape: (4, h, w).
        init_latents: frame number to its init picture's latents, (4, h, w) float32; needed where
            frames do not start from noise alone.
        pool: prompt text to its pooled embedding, (P,) float32; needed for SDXL.
        zero_negative: whether an empty negative prompt is zeros instead of its embeddings.
        read_map: frame number to its map, (H, W, 3) RGB; needed where frames are steered.
    """

    def __init__(
        self,
        settings: RenderSettings,
        embed: Embed,
        latent_shape: tuple[int, ...],
        init_latents: InitLatents | None = None,
        *,
        pool: Embed | None = None,
        zero_negative: bool = False,
        read_map: ReadMap | None = None,
    ) -> None:
        self._blend_noise = BLENDS[settings.latents]
        self._blend_embeds = BLENDS[settings.embeddings]
        self._embed = embed
        self._pool = pool
        self._zero_negative = zero_negative
        self._init_latents = init_latents
        self._read_map = read_map

        @lru_cache(maxsize=CACHED_KEY_FRAMES)
        def key_noise(seed: int) -> NDArray[np.float32]:
            return initial_noise(seed, latent_shape)

        self._key_noise = key_noise

    def condition(self, plan: FramePlan) -> Condition:
        """Returns the condition of one frame; blends are exact at its key frames."""
        start_seed, end_seed = plan.seeds
        noise = self._blend_noise(
            self._key_noise(start_seed), self._key_noise(end_seed), plan.seed_weight
        )
        if plan.noise != 1:
            noise = noise * np.float32(plan.noise)
        return Condition(
            noise,
            self._blended(plan, self._embed),
            np.array([row.weight for row in plan.rows], np.float32),
            self._start(plan),
            None if self._pool is None else self._blended(plan, self._pool),
            plan.guidance,
            self._map(plan),
            plan.control_scale,
        )

    def _blended(self, plan: FramePlan, embed: Embed) -> NDArray[np.float32]:
        """Returns the embeddings of a frame's rows, one below the other."""

        def of(text: str, row: ConditionRow) -> NDArray[np.float32]:
            embedded = embed(text)
            is_zero = self._zero_negative and row.is_negative and not text
            return np.zeros_like(embedded) if is_zero else embedded

        return np.stack(
            [
                self._blend_embeds(of(row.prompt.start, row), of(row.prompt.end, row), plan.weight)
                for row in plan.rows
            ]
        )

    def _start(self, plan: FramePlan) -> NDArray[np.float32] | None:
        if plan.strength == FROM_NOISE or plan.follows is not None:
            return None
        assert self._init_latents is not None, "the job was checked to have a picture"
        return self._init_latents(plan.frame)

    def _map(self, plan: FramePlan) -> NDArray[np.uint8] | None:
        if plan.control_scale == 0:
            return None
        assert self._read_map is not None, "scales without maps are refused by the settings"
        return self._read_map(plan.frame)
