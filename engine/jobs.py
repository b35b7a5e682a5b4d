"""A job in the engine: its frames on their way, and who takes them."""

from __future__ import annotations

from typing import Protocol

from giffusion.engine.conditioning import Condition
from giffusion.engine.errors import GiffusionError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.prefetch import Prefetch
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline


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
    says why it failed. `num_emitted` counts the frames that its sink took.
    """

    def __init__(
        self,
        name: str,
        timeline: Timeline,
        settings: RenderSettings,
        sink: FrameSink,
        frames: range,
        conditions: Prefetch[Condition],
    ) -> None:
        self.name = name
        self.timeline = timeline
        self.settings = settings
        self.sink = sink
        self.frames = frames
        self.conditions = conditions
        self.num_emitted = 0
        self.done = False
        self.error: GiffusionError | None = None
        self._finished: dict[int, Frame] = {}

    def emit(self, index: int, frame: Frame) -> int:
        """Hands on every frame whose turn has come with this one; returns how many."""
        self._finished[index] = frame
        before = self.num_emitted
        while (turn := self.frames.start + self.num_emitted) in self._finished:
            self.sink.write(self.num_emitted, self._finished.pop(turn))
            self.num_emitted += 1
        return self.num_emitted - before

    def close(self) -> None:
        """Drops what was prepared and not used."""
        self.conditions.close()
        self._finished.clear()
        self.done = True
