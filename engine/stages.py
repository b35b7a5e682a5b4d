"""The graphs behind one call each: prompts to embeddings, and a lane's ticks and pictures.

`pipeline.py` embeds prompts ahead of the batch, and has one `Lane` for each batch that the
runtime runs side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batch import DenoiseBatch
from giffusion.engine.model import Model, latent_size
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.scheduler import Slot

CACHED_PROMPTS = 256


class PromptEmbedder:
    """Prompts to embeddings, each encoded once while it is in use.

    One prompt a run, so that its bits do not depend on what is encoded beside it.
    """

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self._tokenizer = model.tokenizer
        self._graph = runtime.load(model.graph_path("text"), model.spec("text"), {"prompts": 1})
        self.embed = lru_cache(maxsize=CACHED_PROMPTS)(self._embed)

    def _embed(self, prompt: str) -> NDArray[np.float32]:
        self._graph.write("input_ids", self._tokenizer.encode(prompt), 0)
        self._graph.run()
        return self._graph.read("prompt_embeds", 0)


class Lane:
    """One batch and the decoder of the frames that leave it.

    Pictures are decoded one a run: on a CPU larger batches fall out of its caches.

    Args:
        model: the model to run.
        runtime: what runs it.
        size: (width, height) in pixels.
        num_rows: rows of the batch.
    """

    def __init__(
        self, model: Model, runtime: Runtime, *, size: tuple[int, int], num_rows: int
    ) -> None:
        self.denoiser = DenoiseBatch(model, runtime, size=size, num_rows=num_rows)
        height, width = latent_size(size)
        axes = {"images": 1, "h": height, "w": width}
        self._decode = runtime.load(model.graph_path("decode"), model.spec("decode"), axes)

    def denoise(self, active: Collection[Slot]) -> None:
        """Takes every active slot one step further."""
        self.denoiser.stage(active)
        self.denoiser.graph.run()

    def finish(self, slots: Collection[Slot]) -> list[NDArray[np.uint8]]:
        """Frees slots and returns their pictures, (H, W, 3) uint8."""
        return [self._picture(slot) for slot in slots]

    def _picture(self, slot: Slot) -> NDArray[np.uint8]:
        self.denoiser.free(slot)
        self._decode.copy("latents", 0, self.denoiser.graph, "state", (slot.index, 0))
        self._decode.run()
        return self._decode.read("rgb", 0)
