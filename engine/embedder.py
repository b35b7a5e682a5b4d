"""Prompts to embeddings, with the weights of their words, each encoded once while it is in use.

The engine's worker thread calls it, ahead of the batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Runtime

CACHED_PROMPTS = 256
MAX_FACTOR = 1e6
"""Larger ones come of a mean that cancelled out, which nothing can be restored from."""


class PromptEmbedder:
    """Prompts to embeddings, each encoded once while it is in use.

    One prompt a run, so that its bits do not depend on what is encoded beside it.
    """

    def __init__(self, model: Model, runtime: Runtime) -> None:
        self._tokenizer = model.tokenizer
        path = model.graph_path("text", runtime.graph_dtype)
        self._graph = runtime.load(path, model.spec("text"), {"prompts": 1})
        self.embed = lru_cache(maxsize=CACHED_PROMPTS)(self._embed)

    def _embed(self, prompt: str) -> NDArray[np.float32]:
        ids, weights = self._tokenizer.encode_weighted(prompt)
        self._graph.write("input_ids", ids, 0)
        self._graph.run()
        return weigh_tokens(self._graph.read("prompt_embeds", 0), weights)

    def close(self) -> None:
        """Frees the graph."""
        self._graph.close()


def weigh_tokens(embeds: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales the embeddings of tokens and restores their mean, as AUTOMATIC1111's web UI does.

    Args:
        embeds: of one prompt, (L, D) float32.
        weights: of its tokens, (L,) float32.

    Returns:
        The embeddings, (L, D) float32; `embeds` itself where all weights are 1. The mean is over
        tokens and channels, and stays as scaled where no factor restores it.
    """
    if (weights == 1).all():
        return embeds
    scaled = embeds * weights[:, None]
    old, new = (float(x.mean(dtype=np.float64)) for x in (embeds, scaled))
    factor = old / new if new else 1.0
    return scaled * np.float32(factor) if abs(factor) <= MAX_FACTOR else scaled
