"""The engine as a contestant: one runtime, one precision, one batch."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from benchmarks.workload import Workload
from giffusion.engine.batching.batch import DenoiseBatch, sampler_steps
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS
from giffusion.engine.errors import GiffusionError
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.runtimes.base import Graph
from giffusion.engine.stats import EngineStats


class Ours:
    """An engine that stays open between renders, as a daemon's does.

    Args:
        work: what to render.
        runtime: name of the runtime.
        precision: what it computes in.
        batch: rows of its batch.
        example: a frame's condition, for the denoise graph alone.
    """

    def __init__(
        self, work: Workload, runtime: str, precision: str, batch: int, example: Condition
    ) -> None:
        self.name = f"giffusion {runtime} {precision} batch {batch}"
        self.precision = precision
        self.batch = batch
        self._work = work
        self._example = example
        self._runtime = open_runtime(runtime, precision)
        self.engine = Engine(work.model, self._runtime, size=work.size, batch=batch)
        self._graphs: list[Graph] = []

    @property
    def stats(self) -> EngineStats:
        """A copy of the engine's totals."""
        return replace(self.engine.stats)

    def denoise_rate(self, window_s: float) -> float:
        if not self._graphs:
            self._graphs = [self._load_graph() for _ in range(self._runtime.num_lanes)]
        with ThreadPoolExecutor(len(self._graphs)) as lanes:
            self._run_all(lanes)
            num_runs, began = 0, time.perf_counter()
            while (elapsed_s := time.perf_counter() - began) < window_s or num_runs < 2:
                self._run_all(lanes)
                num_runs += 1
        return num_runs * self.engine.num_rows / elapsed_s

    def render(self, sink: FrameSink, frames: range | None = None) -> None:
        work = self._work
        job = self.engine.submit("benchmark", work.timeline, work.settings, sink, frames=frames)
        self.engine.run()
        if job.error is not None:
            raise job.error

    def close(self) -> None:
        """Ends the engine."""
        self.engine.close()

    def _run_all(self, lanes: ThreadPoolExecutor) -> None:
        list(lanes.map(lambda graph: graph.run(), self._graphs))

    def _load_graph(self) -> Graph:
        """Returns a denoise graph with every row busy.

        The tables stay the identity, so that however often it runs it computes on real values.
        """
        work, settings, rows = self._work, self._work.settings, self._work.rows_per_frame
        batch = DenoiseBatch(work.model, self._runtime, size=work.size, num_rows=self.batch)
        steps = sampler_steps(work.model, settings.sampler, int(settings.steps))
        row_slot = np.arange(self.batch, dtype=np.int32) // rows
        noise, graph = self._example.noise, batch.graph
        state = np.zeros((self.batch, STATE_ROWS, *noise.shape), np.float32)
        state[:, 0] = noise
        identity = np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32)
        graph.write("state", state)
        graph.write("table", np.tile(identity, (self.batch, 1, 1)))
        graph.write("scale", np.ones(self.batch, np.float32))
        graph.write("time_proj", np.tile(steps.time_proj[len(steps.scales) // 2], (self.batch, 1)))
        graph.write("row_slot", row_slot)
        graph.write("mix", np.eye(self.batch, dtype=np.float32)[:, row_slot])
        graph.write("cond", np.resize(self._example.prompt_embeds, self._cond_shape()))
        return graph

    def _cond_shape(self) -> tuple[int, ...]:
        return (self.batch, *self._example.prompt_embeds.shape[1:])


def works(runtime: str, precision: str) -> bool:
    """Whether a runtime computes in a precision on this machine."""
    try:
        open_runtime(runtime, precision)
    except GiffusionError:
        return False
    return True
