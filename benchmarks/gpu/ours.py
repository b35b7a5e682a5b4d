"""The engine as a contestant of the GPU table, on any runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.contest import FIGURES, GRAPH_FIGURES, Job, rate
from benchmarks.workload import Discard
from giffusion.engine.batching.batch import sampler_steps
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.batching.lanes import decode_batch
from giffusion.engine.contract import (
    LATENT_CHANNELS,
    STATE_ROWS,
    TABLE_COLUMNS,
    GraphSpec,
    denoise_spec,
)
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import Model, latent_size
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.base import Graph, Runtime

UNRENDERED = "the engine of this version does not render models with pooled embeddings"


class Ours:
    """An engine at one batch, and the two graphs alone.

    Args:
        job: what to render.
        column: the column's name.
        model: the row's, whose graphs the runtime loads.
        runtime: what runs it.
        frames: frames that the batch holds.

    Attributes:
        engine: None for a model that the engine does not render.
    """

    def __init__(self, job: Job, column: str, model: Model, runtime: Runtime, frames: int) -> None:
        self.name = f"{column}, batch {frames}"
        self.frames = frames
        self.on_device = runtime.on_device
        self._job = job
        self._model = model
        self._runtime = runtime
        self._batch = frames * job.row.rows_per_frame
        self._num_images = decode_batch(runtime, self._batch)
        height, width = latent_size(job.row.size)
        self._side = {"h": height, "w": width}
        self._graphs: dict[str, Graph] = {}
        self.engine: Engine | None = None
        self.figures: tuple[str, ...] = GRAPH_FIGURES
        if renders(job, model):
            self.engine = Engine(model, runtime, size=job.row.size, batch=self._batch)
            self.figures = tuple(FIGURES)

    def denoise_rate(self, window_s: float) -> float:
        graph = self._graphs.get("denoise") or self._load_denoise()
        runs = rate(graph.run, lambda: graph.read("scale", 0), window_s)
        return runs * self._batch

    def decode_rate(self, window_s: float) -> float:
        graph = self._graphs.get("decode") or self._load_decode()
        # A wait that moves no picture: the latents are an input.
        runs = rate(graph.run, lambda: graph.read("latents", (0, 0, 0, 0)), window_s)
        return runs * self._num_images

    def to_device(self, num_frames: int) -> None:
        sink = Discard(PixelFormat.NV12)
        sink.on_device = self.on_device
        self.render(sink, num_frames)

    def render(self, sink: FrameSink, num_frames: int) -> None:
        assert self.engine is not None
        job, frames = self._job, range(num_frames)
        submitted = self.engine.submit("benchmark", job.timeline, job.settings, sink, frames=frames)
        self.engine.run()
        if submitted.error is not None:
            raise submitted.error

    def close(self) -> None:
        for graph in self._graphs.values():
            graph.close()
        self._graphs.clear()
        if self.engine is not None:
            self.engine.close()

    def _load_denoise(self) -> Graph:
        """Loads a graph with every row busy; the tables stay the identity, so values stay real."""
        spec, size = spec_of(self._job), self._batch
        path = self._model.graph_path("denoise", self._runtime.graph_dtype)
        axes = {"slots": size, "rows": size, **self._side}
        graph = self._runtime.load(path, spec, axes, {"next_state": "state"})
        self._graphs["denoise"] = graph
        for name, value in self._busy(spec, axes).items():
            graph.write(name, value)
        return graph

    def _load_decode(self) -> Graph:
        path = self._model.graph_path("decode", self._runtime.graph_dtype)
        images = self._num_images
        axes = {"images": images, **self._side}
        graph = self._runtime.load(path, self._model.spec("decode"), axes)
        self._graphs["decode"] = graph
        shape = (images, LATENT_CHANNELS, self._side["h"], self._side["w"])
        graph.write("latents", _normal(shape))
        return graph

    def _busy(self, spec: GraphSpec, axes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        job, size = self._job, self._batch
        steps = sampler_steps(self._model, job.settings.sampler, int(job.settings.steps))
        row_slot = np.arange(size, dtype=np.int32) // job.row.rows_per_frame
        inputs = {t.name: _normal(t.resolve(axes)) for t in spec.inputs}
        return inputs | {
            "scale": np.ones(size, np.float32),
            "time_proj": np.tile(steps.time_proj[len(steps.scales) // 2], (size, 1)),
            "row_slot": row_slot,
            "mix": np.eye(size, dtype=np.float32)[:, row_slot],
            "table": np.tile(np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32), (size, 1, 1)),
        }


def spec_of(job: Job) -> GraphSpec:
    """Returns the contract of the row's denoise graph."""
    made = job.row.architecture
    return denoise_spec(made.num_tokens, made.prompt_dim, made.time_dim, made.pooled_dim)


def renders(job: Job, model: Model) -> bool:
    """Whether the engine gives the model's denoise graph everything that it takes."""
    return job.row.text is not None and model.spec("denoise") == spec_of(job)


def _normal(shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)
