"""A submitted timeline to a job: what its frames are conditioned by, start from, and wait in.

`pipeline.py` has one `JobMaker`, which knows the graphs that are neither denoiser nor decoder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from giffusion.engine.batch import Steps, sampler_steps
from giffusion.engine.chains import Chain
from giffusion.engine.checks import check_job
from giffusion.engine.conditioning import Conditioner, InitLatents
from giffusion.engine.control import map_reader
from giffusion.engine.embedder import PromptEmbedder
from giffusion.engine.errors import SettingsError
from giffusion.engine.following import Follower
from giffusion.engine.jobs import FrameSink, Job
from giffusion.engine.model import Model
from giffusion.engine.pictures import InitImage, PictureEncoder, read_image
from giffusion.engine.plans import FramePlan
from giffusion.engine.queues import FrameTask
from giffusion.engine.reorder import InMemory, OnDisk, Waiting
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline


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
        image: InitImage | None = None,
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
        conditioner = Conditioner(
            settings,
            self._embedder.embed,
            self._latent_shape,
            self._init_latents(settings, image),
            pool=self._embedder.pool if self._embedder.pools else None,
            zero_negative=self._model.manifest.zero_negative,
            read_map=None if settings.control is None else map_reader(settings.control, size),
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
        return Job(name, timeline, settings, sink, chains, self._waiting(sink, len(runs), scratch))

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
        self._embedder.close()
        self._pictures.close()

    def _chain_tasks(self, job: Job, number: int) -> Iterator[FrameTask]:
        for frame in job.chains[number].frames:
            plan = job.timeline[frame]
            num_steps = len(self.steps(job, plan).scales)
            yield FrameTask(job.name, frame, len(plan.rows), num_steps, number)

    def _init_latents(
        self, settings: RenderSettings, image: InitImage | None
    ) -> InitLatents | None:
        """Reads a job's picture now; it is encoded on the worker's thread, at its first frame."""
        if settings.image is None:
            return None
        read = image or read_image(Path(settings.image), self._size)
        encoded = cache(lambda: self._pictures.encode(read.pixels))
        return lambda frame: encoded()

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
