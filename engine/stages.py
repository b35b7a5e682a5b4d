"""The text and decode graphs behind one call each.

`pipeline.py` embeds prompts ahead of the batch and decodes the frames that leave it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.model import Model, latent_size
from giffusion.engine.runtimes.base import Graph, Runtime

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


class Decoder:
    """Finished latents to pictures.

    One picture a run: on a CPU larger decode batches fall out of its caches and are slower.
    """

    def __init__(self, model: Model, runtime: Runtime, *, size: tuple[int, int]) -> None:
        height, width = latent_size(size)
        axes = {"images": 1, "h": height, "w": width}
        self._graph = runtime.load(model.graph_path("decode"), model.spec("decode"), axes)

    def decode(self, denoiser: Graph, slot: int) -> NDArray[np.uint8]:
        """Returns the picture of a slot's latents, (H, W, 3) uint8."""
        self._graph.copy("latents", 0, denoiser, "state", (slot, 0))
        self._graph.run()
        return self._graph.read("rgb", 0)
