"""A submitted timeline to a job: what its frames are conditioned by, start from, and wait in.

`pipeline.py` has one `JobMaker`, which knows the graphs that are neither denoiser nor decoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.batch import Steps, sampler_steps
from giffusion.engine.batching.chains import Chain
from giffusion.engine.batching.following import Follower
from giffusion.engine.batching.jobs import FrameSink, Job
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.reorder import InMemory, OnDisk, Waiting
from giffusion.engine.checks import check_job
from giffusion.engine.conditions.conditioning import Conditioner, InitLatents
from giffusion.engine.conditions.control import map_reader
from giffusion.engine.conditions.embedder import PromptEmbedder
from giffusion.engine.conditions.init_latents import Close, film_latents, picture_latents
from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.errors import SettingsError
from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.plans import FramePlan
from giffusion.engine.timelines.timeline import Timeline

if TYPE_CHECKING:
    from giffusion.engine.media.index import FilmIndex


class JobMaker:
    """Makes the jobs of one model and size.

    Args:
        model: the model.
        runtime: what runs its graphs.
        size: (width, height) in pixels.
        latent_shape: (4, h, w).
        batch: rows of a lane's batch.
        depth: conditions that are computed ahead of a job's frames.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        *,
        size: tuple[int, int],
        latent_shape: tuple[int, ...],
        batch: int,
        depth: int,
    ) -> None:
        self._model = model
        self._size = size
        self._latent_shape = latent_shape
        self._batch = batch
        self._depth = depth
        self._embedder = PromptEmbedder(model, runtime)
        self._pictures = PictureEncoder(model, runtime, size)
        # Of its own only where its graph is another.
        together = runtime.decode_batch
        self._film_pictures = (
            self._pictures
            if together == 1
            else PictureEncoder(model, runtime, size, batch=together)
        )
        self._open_films: set[Close] = set()
        # One thread, because it alone runs the text and the encode graph.
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="giffusion-conditions")

    def make(
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
        """Returns a job, ready to be queued; see `Engine.submit`."""
        timeline = timeline.for_model(model_guides=self._model.guides)
        check_job(self._model, timeline, settings, batch=self._batch)
        size = self._model.check_size(settings.size)
        if size != self._size:
            wanted, own = ("x".join(map(str, sides)) for sides in (size, self._size))
            raise SettingsError(f"size {wanted} is not this engine's, {own}: open another engine")
        runs = _runs(timeline, range(len(timeline)) if frames is None else frames)
        init_latents, close = self._init_latents(timeline, runs, image, film)
        conditioner = Conditioner(
            settings,
            self._embedder.embed,
            self._latent_shape,
            init_latents,
            pool=self._embedder.pool if self._embedder.pools else None,
            zero_negative=self._model.manifest.zero_negative,
            read_map=None
            if settings.control is None
            else map_reader(settings.control, size, settings.resize),
        )
        chains = [
            Chain(
                run,
                timeline.__getitem__,
                conditioner.condition,
                self.worker,
                depth=1 if settings.is_chained else self._depth,
                follow=Follower(settings, self._pictures.encode, timeline.seed).follow
                if settings.is_chained
                else None,
            )
            for run in runs
        ]
        waiting = self._waiting(sink, len(runs), scratch)
        return Job(name, timeline, settings, sink, chains, waiting, close)

    def tasks(self, job: Job) -> list[Iterator[FrameTask]]:
        """Returns what the scheduler is to do for a job, for each of its chains."""
        return [self._chain_tasks(job, number) for number in range(len(job.chains))]

    def steps(self, job: Job, plan: FramePlan) -> Steps:
        """Returns the steps of a job's frame."""
        settings = job.settings
        return sampler_steps(self._model, settings.sampler, plan.steps, plan.strength, settings.eta)

    def close(self) -> None:
        """Ends the thread and frees the graphs."""
        self.worker.shutdown(cancel_futures=True)
        for close in self._open_films:
            close()
        self._embedder.close()
        for encoder in {self._pictures, self._film_pictures}:
            encoder.close()

    def _chain_tasks(self, job: Job, number: int) -> Iterator[FrameTask]:
        for frame in job.chains[number].frames:
            plan = job.timeline[frame]
            num_steps = len(self.steps(job, plan).scales)
            yield FrameTask(job.name, frame, len(plan.rows), num_steps, number)

    def _init_latents(
        self,
        timeline: Timeline,
        runs: Sequence[range],
        image: NDArray[np.uint8] | None,
        film: FilmIndex | None,
    ) -> tuple[InitLatents | None, Close]:
        settings = timeline.settings
        if settings.image is not None:
            return picture_latents(timeline, self._pictures, self._size, image), _nothing
        if settings.video is None:
            return None, _nothing
        # Frames that start from a film do not follow from each other: there is one run.
        (frames,) = runs
        latents, close = film_latents(timeline, frames, self._film_pictures, self._size, film)
        self._open_films.add(close)

        def close_now() -> None:
            self._open_films.discard(close)
            close()

        # Not before what reads it has ended.
        return latents, lambda: self._after_use(close_now)

    def _after_use(self, close: Close) -> None:
        with suppress(RuntimeError):  # the thread has ended, and `close` closes what is open
            self.worker.submit(close)

    def _waiting(self, sink: FrameSink, num_chains: int, scratch: Path | None) -> Waiting:
        if num_chains == 1:
            return InMemory()
        if sink.on_device:
            raise ValueError("frames of several chains wait on disk: the sink takes device memory")
        folder = Path(tempfile.gettempdir()) if scratch is None else scratch
        return OnDisk(folder, sink.pixel_format.shape(self._size))


def _runs(timeline: Timeline, frames: range) -> list[range]:
    """Returns a segment's frames: all as one, or those of each of its chains."""
    if not 0 <= frames.start < frames.stop <= len(timeline) or frames.step != 1:
        raise ValueError(f"{frames} is no segment of {len(timeline)} frames")
    chains = timeline.chains
    if not chains:
        return [frames]
    if all(frames.start != chain.start for chain in chains):
        raise ValueError(f"{frames} begins inside of a chain: frames follow from those before")
    inside = (chain for chain in chains if frames.start <= chain.start < frames.stop)
    return [range(chain.start, min(chain.stop, frames.stop)) for chain in inside]


def _nothing() -> None:
    """Closes what was not opened."""
