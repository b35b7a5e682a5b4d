"""Prompts to embeddings, each encoded once while it is in use.

The engine's worker thread calls it, ahead of the batch.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Runtime

CACHED_PROMPTS = 256


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
        self._graph.write("input_ids", self._tokenizer.encode(prompt), 0)
        self._graph.run()
        return self._graph.read("prompt_embeds", 0)

    def close(self) -> None:
        """Frees the graph."""
        self._graph.close()
