"""The engine: many jobs in one queue, one batch a tick, frames out in order.

    link → admit → denoise → collect → retire

`rendering.py` runs one job through it; it takes any number. An engine is bound to one model, one
picture size and one set of numerics. Whoever owns it calls it from one thread.

On a device all work is queued, and a frame is waited for only when the next tick is under way. A
frame that the next one starts from is linked to it by the thread that makes conditions.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.chains import Links
from giffusion.engine.batching.job_maker import JobMaker
from giffusion.engine.batching.jobs import PAUSING_BACKLOG, FrameSink, Job
from giffusion.engine.batching.lanes import Arrival, Finished, Lanes
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.scheduler import Scheduler, Slot
from giffusion.engine.checks import check_batch
from giffusion.engine.errors import DeviceError, GiffusionError
from giffusion.engine.frames import Frame
from giffusion.engine.media.index import FilmIndex
from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import DEFAULT_BATCH, RenderSettings
from giffusion.engine.stats import EngineStats
from giffusion.engine.timelines.timeline import Timeline

STALL_S = 0.002
"""Pause before looking again when every job waits for its sink."""


class Engine:
    """Renders jobs of one model and size through one continuous batch.

    Where the runtime runs graphs side by side there are as many batches, its lanes, which tick
    together.

    Args:
        model: the model.
        runtime: what runs its graphs.
        size: (width, height) in pixels, or None for the model's own.
        batch: rows of a lane's batch; a frame takes one for each of its conditions.
        shrink_tail: let the last frames go through the smallest batch that holds them, where the
            runtime has one. They are ready sooner, and may differ in their last bits from what a
            full batch makes of them.

    Raises:
        SettingsError: the size or the batch does not suit the model.
        ModelError: a graph cannot be loaded.
        DeviceMemoryError: the device has no room for a batch of that size.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        *,
        size: tuple[int, int] | None = None,
        batch: int = DEFAULT_BATCH,
        shrink_tail: bool = False,
    ) -> None:
        check_batch(batch)
        self.model = model
        self.runtime = runtime
        self.size = model.check_size(size)
        self.batch = batch
        self.stats = EngineStats()
        self._jobs: dict[str, Job] = {}
        self._arriving: deque[Arrival] = deque()
        self._links = Links()
        self._denoise_s = 0.0
        self._shrink_tail = shrink_tail
        self.num_rows = batch * runtime.num_lanes
        self._scheduler = Scheduler(
            batch, batch, max_in_flight=4 * self.num_rows, num_lanes=runtime.num_lanes
        )
        self._lanes = Lanes(model, runtime, size=self.size, num_rows=batch)
        try:
            self._maker = JobMaker(
                model,
                runtime,
                size=self.size,
                latent_shape=self._lanes.latent_shape,
                batch=batch,
                depth=self.num_rows,
            )
        except BaseException:
            self._lanes.close()
            raise

    @property
    def numerics(self) -> dict[str, Any]:
        """What a frame's bits depend on besides its plan."""
        shrinks = self._shrink_tail and self.runtime.smaller(self.batch)
        return {
            "model": self.model.manifest.name,
            "fingerprint": self.model.fingerprint,
            **self.runtime.numerics,
            "batch": self.batch,
            **({"shrink_tail": True} if shrinks else {}),
        }

    def tick(self) -> bool:
        """Takes every frame in the batch one step further; returns whether any job is left."""
        lagging = {job.name for job in self._jobs.values() if job.sink.backlog >= PAUSING_BACKLOG}
        for job in [job for job in self._jobs.values() if job.num_finished > job.num_emitted]:
            self._for_job(job.name, self._hand_on)
        self._link_arrived()
        self._fit_batch()
        for slot in self._scheduler.admit(paused=lagging):
            self._for_job(slot.task.job, partial(self._load, slot=slot))
        expected = len(self._arriving)
        if self._scheduler.active:
            self._denoise()
        elif self._jobs and not expected:
            time.sleep(STALL_S)
        self._collect(expected)
        self._retire(self._scheduler.advance())
        self._collect(0)
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
        image: NDArray[np.uint8] | None = None,
        film: FilmIndex | None = None,
        scratch: Path | None = None,
    ) -> Job:
        """Queues a job.

        Args:
            name: key of the job, unique among those that are not done.
            timeline: what to render.
            settings: how.
            sink: takes the frames, in order.
            frames: the segment to render, of step 1 and not empty; None for all frames. Where
                frames follow from each other it begins at a cut.
            image: the settings' init picture, (H, W, 3) RGB, if it has been read already.
            film: where the frames of their film are, if that has been read through already.
            scratch: folder where frames of later chains wait; None is the system's for such files.

        Raises:
            SettingsError: as `check_job`, or the size is not this engine's.
            InputError: the init picture or film cannot be read.
            OutputError: the folder cannot be used.
            ValueError: the job is queued already, the segment is none, or the sink takes frames of
                several chains in device memory.
        """
        if name in self._jobs:
            raise ValueError(f"job {name!r} is queued already")
        job = self._maker.make(
            name, timeline, settings, sink, frames=frames, image=image, film=film, scratch=scratch
        )
        self._jobs[name] = job
        try:
            self._scheduler.submit(name, *self._maker.tasks(job), chained=settings.is_chained)
        except BaseException:
            self.cancel(name)
            raise
        return job

    def cancel(self, name: str) -> None:
        """Ends a job now; its slots are free for others at the next tick."""
        for slot in self._scheduler.cancel(name):
            self._lanes.free(slot)
        self._arriving = deque(frame for frame in self._arriving if frame.slot.task.job != name)
        self._links.drop(name)
        job = self._jobs.pop(name, None)
        if job is not None:
            job.close()

    def close(self) -> None:
        """Cancels every job and ends the threads."""
        for name in list(self._jobs):
            self.cancel(name)
        self._arriving.clear()
        try:
            self._maker.close()
        finally:
            self._lanes.close()

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
        steps = self._maker.steps(job, job.timeline[slot.task.frame])
        condition = job.chains[slot.task.chain].take()
        self._lanes.load(slot, condition, steps, job.timeline.seed)

    def _denoise(self) -> None:
        self.stats.num_ticks += 1
        self.stats.rows_busy += self._scheduler.rows_busy
        if self._scheduler.waiting:
            self.stats.num_full_ticks += 1
            self.stats.rows_busy_full += self._scheduler.rows_busy
        began = time.perf_counter()
        with self.stats.timed("denoise_s"):
            self._lanes.denoise(self._scheduler.active)
        self._denoise_s = time.perf_counter() - began

    def _retire(self, slots: Collection[Slot]) -> None:
        pairs = ((slot, self._jobs[slot.task.job]) for slot in slots)
        finished = [Finished(slot, job.sink, job.is_followed(slot.task)) for slot, job in pairs]
        with self.stats.timed("decode_s"):
            self._arriving += self._lanes.finish(finished)
        self.stats.num_frames += len(slots)

    def _collect(self, num: int) -> None:
        """Emits the frames that have arrived, after waiting for the first `num`."""
        while self._arriving and (num > 0 or self._arriving[0].done):
            arrival = self._arriving.popleft()
            with self.stats.timed("wait_s"):
                frame, picture = arrival.result()
            task = arrival.slot.task
            if picture is not None:
                self._for_job(task.job, partial(self._link, task=task, picture=picture))
            self._for_job(task.job, partial(self._finish, task=task, frame=frame))
            num -= 1

    def _link(self, job: Job, task: FrameTask, picture: NDArray[np.uint8]) -> None:
        """Starts to make of a picture what the next frame starts from."""
        chain = job.chains[task.chain]
        self._links.add(task, self._maker.worker.submit(chain.link, task.frame, picture))

    def _link_arrived(self) -> None:
        """Lets chains go on whose last frame has become what the next one starts from."""
        if self._links and self._scheduler.has_room:
            # What comes while a tick would run is better taken along than left to wait for it.
            self._links.wait(self._denoise_s if self._scheduler.active else None)
        for task, settle in self._links.arrived():
            self._for_job(task.job, settle)
            self._scheduler.follow(task.job, task.chain)

    def _fit_batch(self) -> None:
        """Lets the last frames run in a smaller batch, and a new job in the whole one again."""
        if not self._shrink_tail:
            return
        sizes = (*self.runtime.smaller(self.batch), self.batch)
        busy = max(self._scheduler.rows_busy, 1)
        fitting = self.batch if self._scheduler.waiting else min(s for s in sizes if s >= busy)
        if fitting != self._lanes.num_rows:
            self._lanes.resize(fitting, self._scheduler.resize(fitting))

    def _finish(self, job: Job, task: FrameTask, frame: Frame) -> None:
        self._emitted(job, job.finish(task.frame, frame))

    def _hand_on(self, job: Job) -> None:
        self._emitted(job, job.hand_on())

    def _emitted(self, job: Job, num: int) -> None:
        self._scheduler.emitted(job.name, num)
        if job.num_emitted == len(job.frames):
            self.cancel(job.name)

    def _for_job(self, name: str, action: Callable[[Job], None]) -> None:
        """Acts for a job; an error of the engine's own kind ends that one alone."""
        job = self._jobs.get(name)
        if job is None:  # it ended earlier in this tick
            return
        try:
            action(job)
        except DeviceError:
            raise
        except GiffusionError as error:
            job.error = error
            self.cancel(job.name)
