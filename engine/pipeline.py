"""The engine: many jobs in one queue, one batch a tick, frames out in order.

    admit → denoise → retire → decode → emit

`rendering.py` runs one job through it; it takes any number. An engine is bound to one model, one
picture size and one set of numerics. Whoever owns it calls it from one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batch import Steps, sampler_steps
from giffusion.engine.conditioning import Conditioner
from giffusion.engine.errors import GiffusionError, SettingsError
from giffusion.engine.jobs import FrameSink, Job
from giffusion.engine.model import Model
from giffusion.engine.prefetch import Prefetch
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.scheduler import FrameTask, Scheduler, Slot
from giffusion.engine.settings import DEFAULT_BATCH, MAX_BATCH, RenderSettings
from giffusion.engine.stages import Lane, PromptEmbedder
from giffusion.engine.timeline import FramePlan, Timeline

Result = TypeVar("Result")
PAUSING_BACKLOG = 8
"""Frames that a sink may hold before its job gets no new slots."""
STALL_S = 0.002
"""Pause before looking again when every job waits for its sink."""


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made.

    Args:
        num_frames: frames decoded.
        num_ticks: denoise runs.
        num_full_ticks: those of them at which frames were waiting: all but the last drain.
        rows_busy: rows that held a condition, summed over all ticks.
        rows_busy_full: the same, summed over the full ticks.
        denoise_s: seconds inside the denoise graph.
        decode_s: seconds inside the decode graph.
    """

    num_frames: int = 0
    num_ticks: int = 0
    num_full_ticks: int = 0
    rows_busy: int = 0
    rows_busy_full: int = 0
    denoise_s: float = 0.0
    decode_s: float = 0.0


def check_job(model: Model, timeline: Timeline, settings: RenderSettings, *, batch: int) -> None:
    """Checks that a job can be rendered, before anything is loaded.

    Args:
        model: the model.
        timeline: what to render.
        settings: how.
        batch: rows of a lane's batch.

    Raises:
        SettingsError: the batch is out of its range, a frame has more conditions than it has rows,
            the size does not suit the model, or the sampler cannot take the number of steps.
    """
    _check_batch(batch)
    model.check_size(settings.size)
    if timeline.max_rows > batch:
        raise SettingsError(
            f"batch {batch} has fewer rows than a frame needs, {timeline.max_rows}, one for each "
            f"prompt and the negative: expected --batch {timeline.max_rows} or more"
        )
    sampler_steps(model, settings.sampler, settings.steps)


def _check_batch(batch: int) -> None:
    if not 1 <= batch <= MAX_BATCH:
        raise SettingsError(f"batch {batch} is out of range: expected 1 to {MAX_BATCH}")


class Engine:
    """Renders jobs of one model and size through one continuous batch.

    Where the runtime runs graphs side by side there are as many batches, its lanes, which tick
    together.

    Args:
        model: the model.
        runtime: what runs its graphs.
        size: (width, height) in pixels, or None for the model's own.
        batch: rows of a lane's batch; a frame takes one for each of its conditions.

    Raises:
        SettingsError: the size or the batch does not suit the model.
        ModelError: a graph cannot be loaded.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        *,
        size: tuple[int, int] | None = None,
        batch: int = DEFAULT_BATCH,
    ) -> None:
        _check_batch(batch)
        self.model = model
        self.runtime = runtime
        self.size = model.check_size(size)
        self.batch = batch
        self.stats = EngineStats()
        self._jobs: dict[str, Job] = {}
        self.num_rows = batch * runtime.num_lanes
        self._scheduler = Scheduler(
            batch, batch, max_in_flight=4 * self.num_rows, num_lanes=runtime.num_lanes
        )
        self._lanes = [
            Lane(model, runtime, size=self.size, num_rows=batch) for _ in range(runtime.num_lanes)
        ]
        self._embedder = PromptEmbedder(model, runtime)
        # One thread, because it alone runs the text graph.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="giffusion-conditions")
        self._side_by_side = ThreadPoolExecutor(runtime.num_lanes, "giffusion-lane")

    @property
    def numerics(self) -> dict[str, Any]:
        """What a frame's bits depend on besides its plan."""
        return {
            "model": self.model.manifest.name,
            "fingerprint": self.model.fingerprint,
            "runtime": self.runtime.name,
            "runtime_version": self.runtime.version,
            "precision": self.runtime.precision,
            "batch": self.batch,
        }

    def tick(self) -> bool:
        """Takes every frame in the batch one step further; returns whether any job is left."""
        lagging = {job.name for job in self._jobs.values() if job.sink.backlog >= PAUSING_BACKLOG}
        for slot in self._scheduler.admit(paused=lagging):
            self._for_job(slot, self._load)
        if self._scheduler.active:
            self._denoise()
            self._retire(self._scheduler.advance())
        elif self._jobs:
            time.sleep(STALL_S)
        return bool(self._jobs)

    def run(self) -> None:
        """Renders until no job is left."""
        while self.tick():
            pass

    def submit(
        self,
        name: str,
        timeline: Timeline,
        settings: RenderSettings,
        sink: FrameSink,
        *,
        frames: range | None = None,
    ) -> Job:
        """Queues a job.

        Args:
            name: key of the job, unique among those that are not done.
            timeline: what to render.
            settings: how.
            sink: takes the frames, in order.
            frames: the segment to render, of step 1 and not empty; None for all frames.

        Raises:
            SettingsError: a frame has more conditions than the batch has rows, the size is not
                this engine's, or the sampler cannot take the number of steps.
            ValueError: a job of that name is queued, or the segment lies outside of the timeline.
        """
        check_job(self.model, timeline, settings, batch=self.batch)
        if self.model.check_size(settings.size) != self.size:
            raise SettingsError(
                f"size {settings.size} is not this engine's, {self.size}: open another engine"
            )
        frames = range(len(timeline)) if frames is None else frames
        if name in self._jobs:
            raise ValueError(f"job {name!r} is queued already")
        if not 0 <= frames.start < frames.stop <= len(timeline) or frames.step != 1:
            raise ValueError(f"{frames} is no segment of {len(timeline)} frames")
        latent_shape = self._lanes[0].denoiser.latent_shape
        conditioner = Conditioner(settings, self._embedder.embed, latent_shape)
        plans = (timeline[frame] for frame in frames)
        conditions = Prefetch(plans, conditioner.condition, self._worker, depth=self.num_rows)
        job = Job(name, timeline, settings, sink, frames, conditions)
        self._jobs[name] = job
        self._scheduler.submit(name, self._tasks(job))
        return job

    def cancel(self, name: str) -> None:
        """Ends a job now; its slots are free for others at the next tick."""
        for slot in self._scheduler.cancel(name):
            self._lanes[slot.lane].denoiser.free(slot)
        job = self._jobs.pop(name, None)
        if job is not None:
            job.close()

    def close(self) -> None:
        """Cancels every job and ends the threads."""
        for name in list(self._jobs):
            self.cancel(name)
        self._worker.shutdown(cancel_futures=True)
        self._side_by_side.shutdown(cancel_futures=True)

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _load(self, job: Job, slot: Slot) -> None:
        steps = self._steps(job, job.timeline[slot.task.frame])
        condition = job.conditions.take()
        self._lanes[slot.lane].denoiser.load(slot, condition, steps, job.settings.seed)

    def _denoise(self) -> None:
        self.stats.num_ticks += 1
        self.stats.rows_busy += self._scheduler.rows_busy
        if self._scheduler.waiting:
            self.stats.num_full_ticks += 1
            self.stats.rows_busy_full += self._scheduler.rows_busy
        with self._timed("denoise_s"):
            self._in_lanes(self._scheduler.active, Lane.denoise)

    def _retire(self, slots: Collection[Slot]) -> None:
        with self._timed("decode_s"):
            pictures = self._in_lanes(slots, Lane.finish)
        self.stats.num_frames += len(slots)
        for finished, frames in pictures:
            for slot, rgb in zip(finished, frames, strict=True):
                self._for_job(slot, partial(self._emit, rgb=rgb))

    def _in_lanes(
        self, slots: Collection[Slot], work: Callable[[Lane, Collection[Slot]], Result]
    ) -> list[tuple[list[Slot], Result]]:
        """Does a lane's work on its slots in all lanes side by side; waits for all of them."""
        shares = [[slot for slot in slots if slot.lane == lane] for lane in range(len(self._lanes))]
        busy = [(lane, share) for lane, share in zip(self._lanes, shares, strict=True) if share]
        if len(busy) == 1:
            return [(share, work(lane, share)) for lane, share in busy]
        results = self._side_by_side.map(lambda pair: work(*pair), busy)
        return [(share, result) for (_, share), result in zip(busy, results, strict=True)]

    def _emit(self, job: Job, slot: Slot, rgb: NDArray[np.uint8]) -> None:
        for _ in range(job.emit(slot.task.frame, rgb)):
            self._scheduler.emitted(job.name)
        if job.num_emitted == len(job.frames):
            self.cancel(job.name)

    def _for_job(self, slot: Slot, action: Callable[[Job, Slot], None]) -> None:
        """Acts on a slot; an error of the engine's own kind ends that slot's job alone."""
        job = self._jobs.get(slot.task.job)
        if job is None:  # it ended earlier in this tick
            return
        try:
            action(job, slot)
        except GiffusionError as error:
            job.error = error
            self.cancel(job.name)

    def _tasks(self, job: Job) -> Iterator[FrameTask]:
        for frame in job.frames:
            plan = job.timeline[frame]
            yield FrameTask(job.name, frame, len(plan.rows), len(self._steps(job, plan).scales))

    def _steps(self, job: Job, plan: FramePlan) -> Steps:
        return sampler_steps(self.model, job.settings.sampler, plan.steps, plan.strength)

    @contextmanager
    def _timed(self, total: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        setattr(self.stats, total, getattr(self.stats, total) + time.perf_counter() - began)
