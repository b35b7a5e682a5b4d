"""The engine: many jobs in one queue, one batch a tick, frames out in order.

    admit → denoise → collect → retire

`rendering.py` runs one job through it; it takes any number. An engine is bound to one model, one
picture size and one set of numerics. Whoever owns it calls it from one thread.

On a device all work is queued, and a frame is waited for only when the next tick is under way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

from giffusion.engine.batch import Steps, sampler_steps
from giffusion.engine.checks import check_batch, check_job
from giffusion.engine.conditioning import Conditioner, InitLatents
from giffusion.engine.control import map_reader
from giffusion.engine.embedder import PromptEmbedder
from giffusion.engine.errors import DeviceError, GiffusionError, SettingsError
from giffusion.engine.frames import Frame
from giffusion.engine.jobs import FrameSink, Job
from giffusion.engine.lanes import Lanes
from giffusion.engine.model import Model
from giffusion.engine.pictures import InitImage, PictureEncoder, read_image
from giffusion.engine.plans import FramePlan
from giffusion.engine.prefetch import Prefetch
from giffusion.engine.runtimes.base import Fetch, Runtime
from giffusion.engine.scheduler import FrameTask, Scheduler, Slot
from giffusion.engine.settings import DEFAULT_BATCH, RenderSettings
from giffusion.engine.stats import EngineStats
from giffusion.engine.timeline import Timeline

PAUSING_BACKLOG = 8
"""Frames that a sink may hold before its job gets no new slots."""
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
        self._arriving: deque[tuple[Slot, Fetch]] = deque()
        self._shrink_tail = shrink_tail
        self.num_rows = batch * runtime.num_lanes
        self._scheduler = Scheduler(
            batch, batch, max_in_flight=4 * self.num_rows, num_lanes=runtime.num_lanes
        )
        self._lanes = Lanes(model, runtime, size=self.size, num_rows=batch)
        try:
            self._embedder = PromptEmbedder(model, runtime)
            self._pictures = PictureEncoder(model, runtime, self.size)
        except BaseException:
            self._lanes.close()
            raise
        # One thread, because it alone runs the text and the encode graph.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="giffusion-conditions")

    @property
    def numerics(self) -> dict[str, Any]:
        """What a frame's bits depend on besides its plan."""
        shrinks = self._shrink_tail and self.runtime.smaller(self.batch)
        tail = {"shrink_tail": True} if shrinks else {}
        return {
            "model": self.model.manifest.name,
            "fingerprint": self.model.fingerprint,
            **self.runtime.numerics,
            "batch": self.batch,
            **tail,
        }

    def tick(self) -> bool:
        """Takes every frame in the batch one step further; returns whether any job is left."""
        lagging = {job.name for job in self._jobs.values() if job.sink.backlog >= PAUSING_BACKLOG}
        self._fit_batch()
        for slot in self._scheduler.admit(paused=lagging):
            self._for_job(slot, self._load)
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
        image: InitImage | None = None,
    ) -> Job:
        """Queues a job.

        Args:
            name: key of the job, unique among those that are not done.
            timeline: what to render.
            settings: how.
            sink: takes the frames, in order.
            frames: the segment to render, of step 1 and not empty; None for all frames.
            image: the settings' init picture, if it has been read already.

        Raises:
            SettingsError: as `check_job`, or the size is not this engine's.
            InputError: the init picture cannot be read.
            ValueError: a job of that name is queued, or the segment lies outside of the timeline.
        """
        timeline = timeline.for_model(model_guides=self.model.guides)
        check_job(self.model, timeline, settings, batch=self.batch)
        size = self.model.check_size(settings.size)
        if size != self.size:
            wanted, own = ("x".join(map(str, sides)) for sides in (size, self.size))
            raise SettingsError(f"size {wanted} is not this engine's, {own}: open another engine")
        frames = range(len(timeline)) if frames is None else frames
        if name in self._jobs:
            raise ValueError(f"job {name!r} is queued already")
        if not 0 <= frames.start < frames.stop <= len(timeline) or frames.step != 1:
            raise ValueError(f"{frames} is no segment of {len(timeline)} frames")
        conditioner = Conditioner(
            settings,
            self._embedder.embed,
            self._lanes.latent_shape,
            self._init_latents(settings, image),
            pool=self._embedder.pool if self._embedder.pools else None,
            zero_negative=self.model.manifest.zero_negative,
            read_map=None if settings.control is None else map_reader(settings.control, size),
        )
        plans = (timeline[frame] for frame in frames)
        conditions = Prefetch(plans, conditioner.condition, self._worker, depth=self.num_rows)
        job = Job(name, timeline, settings, sink, frames, conditions)
        self._jobs[name] = job
        self._scheduler.submit(name, self._tasks(job))
        return job

    def cancel(self, name: str) -> None:
        """Ends a job now; its slots are free for others at the next tick."""
        for slot in self._scheduler.cancel(name):
            self._lanes.free(slot)
        self._arriving = deque(pair for pair in self._arriving if pair[0].task.job != name)
        job = self._jobs.pop(name, None)
        if job is not None:
            job.close()

    def close(self) -> None:
        """Cancels every job and ends the threads."""
        for name in list(self._jobs):
            self.cancel(name)
        self._arriving.clear()
        self._worker.shutdown(cancel_futures=True)
        try:
            self._embedder.close()
            self._pictures.close()
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
        steps = self._steps(job, job.timeline[slot.task.frame])
        condition = job.conditions.take()
        self._lanes.load(slot, condition, steps, job.timeline.seed)

    def _denoise(self) -> None:
        self.stats.num_ticks += 1
        self.stats.rows_busy += self._scheduler.rows_busy
        if self._scheduler.waiting:
            self.stats.num_full_ticks += 1
            self.stats.rows_busy_full += self._scheduler.rows_busy
        with self.stats.timed("denoise_s"):
            self._lanes.denoise(self._scheduler.active)

    def _retire(self, slots: Collection[Slot]) -> None:
        finished = [(slot, self._jobs[slot.task.job].sink) for slot in slots]
        with self.stats.timed("decode_s"):
            self._arriving += self._lanes.finish(finished)
        self.stats.num_frames += len(slots)

    def _collect(self, num: int) -> None:
        """Emits the frames that have arrived, after waiting for the first `num`."""
        while self._arriving and (num > 0 or self._arriving[0][1].done):
            slot, fetch = self._arriving.popleft()
            with self.stats.timed("wait_s"):
                frame = fetch.result()
            self._for_job(slot, partial(self._emit, frame=frame))
            num -= 1

    def _fit_batch(self) -> None:
        """Lets the last frames run in a smaller batch, and a new job in the whole one again."""
        if not self._shrink_tail:
            return
        sizes = (*self.runtime.smaller(self.batch), self.batch)
        busy = max(self._scheduler.rows_busy, 1)
        fitting = self.batch if self._scheduler.waiting else min(s for s in sizes if s >= busy)
        if fitting != self._lanes.num_rows:
            self._lanes.resize(fitting, self._scheduler.resize(fitting))

    def _emit(self, job: Job, slot: Slot, frame: Frame) -> None:
        for _ in range(job.emit(slot.task.frame, frame)):
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
        except DeviceError:
            raise
        except GiffusionError as error:
            job.error = error
            self.cancel(job.name)

    def _tasks(self, job: Job) -> Iterator[FrameTask]:
        for frame in job.frames:
            plan = job.timeline[frame]
            yield FrameTask(job.name, frame, len(plan.rows), len(self._steps(job, plan).scales))

    def _steps(self, job: Job, plan: FramePlan) -> Steps:
        settings = job.settings
        return sampler_steps(self.model, settings.sampler, plan.steps, plan.strength, settings.eta)

    def _init_latents(
        self, settings: RenderSettings, image: InitImage | None
    ) -> InitLatents | None:
        """Reads a job's picture now; it is encoded on the worker's thread, at its first frame."""
        if settings.image is None:
            return None
        read = image or read_image(Path(settings.image), self.size)
        encoded = cache(lambda: self._pictures.encode(read.pixels))
        return lambda frame: encoded()
