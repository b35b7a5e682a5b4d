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

    Attributes:
        pools: whether the model takes pooled embeddings besides, as SDXL does.
    """

    def __init__(self, model: Model, runtime: Runtime) -> None:
        spec = model.spec("text")
        self._tokenizers = model.tokenizers
        self._ids = [tensor.name for tensor in spec.inputs]
        self._widths = model.manifest.text_dims
        self.pools = model.manifest.pooled_dim is not None
        self._graph = runtime.load(
            model.graph_path("text", runtime.graph_dtype), spec, {"prompts": 1}
        )
        self._encoded = lru_cache(maxsize=CACHED_PROMPTS)(self._encode)

    def embed(self, prompt: str) -> NDArray[np.float32]:
        """Returns the embeddings of a prompt's tokens, weighted by its marks, (L, D) float32."""
        return self._encoded(prompt)[0]

    def pool(self, prompt: str) -> NDArray[np.float32]:
        """Returns SDXL's pooled embedding of a prompt, (P,) float32, which marks do not weigh."""
        pooled = self._encoded(prompt)[1]
        assert pooled is not None, "the model pools"
        return pooled

    def _encode(self, prompt: str) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        weights = []
        for name, tokenizer in zip(self._ids, self._tokenizers, strict=True):
            ids, of_tokens = tokenizer.encode_weighted(prompt)
            self._graph.write(name, ids, 0)
            weights.append(of_tokens)
        self._graph.run()
        embeds = self._graph.read("prompt_embeds", 0)
        parts = np.split(embeds, np.cumsum(self._widths)[:-1], axis=1)
        weighed = [weigh_tokens(part, own) for part, own in zip(parts, weights, strict=True)]
        pooled = self._graph.read("pooled", 0) if self.pools else None
        return np.concatenate(weighed, axis=1) if len(weighed) > 1 else weighed[0], pooled

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
