"""A job in the engine: its frames on their way, and who takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from giffusion.engine.batching.chains import Chain
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.reorder import Waiting
from giffusion.engine.errors import GiffusionError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline

PAUSING_BACKLOG = 8
"""Frames that a sink may hold before its job gets no new slots."""


class FrameSink(Protocol):
    """Takes a job's frames, in order; `giffusion.engine.encode` has writers of files."""

    @property
    def pixel_format(self) -> PixelFormat:
        """What frames it takes."""

    @property
    def on_device(self) -> bool:
        """Whether it takes them in device memory, where the runtime's `on_device` allows it."""

    @property
    def backlog(self) -> int:
        """Frames taken and not yet worked off; a job whose sink lags gets no new slots."""

    def write(self, index: int, frame: Frame) -> None:
        """Takes frame `index` of the job, counted from 0, of `pixel_format`'s shape.

        A `GiffusionError` from here fails the job and leaves others untouched.
        """


class Job:
    """A job that was submitted.

    `done` is true once the last frame was emitted, the job was cancelled, or it failed; `error`
    says why it failed. `num_emitted` counts the frames that its sink took, `num_finished` those
    that were rendered.

    Args:
        name: key of the job.
        timeline: what is rendered.
        settings: how.
        sink: takes the frames.
        chains: its frames, one chain after the other.
        waiting: keeps those whose turn has not come.
        close_sources: closes what its frames start from.
    """

    def __init__(
        self,
        name: str,
        timeline: Timeline,
        settings: RenderSettings,
        sink: FrameSink,
        chains: Sequence[Chain],
        waiting: Waiting,
        close_sources: Callable[[], None],
    ) -> None:
        self.name = name
        self.timeline = timeline
        self.settings = settings
        self.sink = sink
        self.chains = chains
        self.frames = range(chains[0].frames.start, chains[-1].frames.stop)
        self.num_finished = 0
        self.num_emitted = 0
        self.done = False
        self.error: GiffusionError | None = None
        self._waiting = waiting
        self._close_sources = close_sources

    def finish(self, index: int, frame: Frame) -> int:
        """Takes a rendered frame, and hands on those whose turn has come; returns how many."""
        self.num_finished += 1
        if index != self.frames.start + self.num_emitted:
            self._waiting.put(index, frame)
            return 0
        self._hand_on(frame)
        return 1 + self.hand_on()

    def hand_on(self) -> int:
        """Hands on frames whose turn has come; returns how many.

        One, or as many as the sink takes without lagging: whoever calls has other jobs to see to.
        """
        before = self.num_emitted
        for _ in range(max(1, PAUSING_BACKLOG - self.sink.backlog)):
            frame = self._waiting.pop(self.frames.start + self.num_emitted)
            if frame is None:
                break
            self._hand_on(frame)
        return self.num_emitted - before

    def _hand_on(self, frame: Frame) -> None:
        self.sink.write(self.num_emitted, frame)
        self.num_emitted += 1

    def is_followed(self, task: FrameTask) -> bool:
        """Returns whether a frame's picture is what the next one of its chain starts from."""
        chain = self.chains[task.chain]
        return chain.is_linked and task.frame + 1 < chain.frames.stop

    def close(self) -> None:
        """Drops what was prepared and not used."""
        for chain in self.chains:
            chain.close()
        self._waiting.close()
        self._close_sources()
        self.done = True
