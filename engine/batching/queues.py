"""The frames of jobs that wait for the batch: in one order, or along chains that hold each other.

`scheduler.py` takes from them. The invariant: a chain's next frame is not given before its last one
was followed, and each frame is given once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Place = tuple[int, int]
"""Lane, and slot in it."""


@dataclass(frozen=True, slots=True)
class FrameTask:
    """One frame to denoise.

    Args:
        job: key of the job that it belongs to.
        frame: frame number.
        num_rows: rows of the batch that it takes, one a condition.
        num_steps: evaluations of the model until it is finished.
        chain: which of its job's chains it belongs to.
    """

    job: str
    frame: int
    num_rows: int
    num_steps: int
    chain: int = 0


@dataclass(slots=True)
class _Source:
    """Frames that wait, in their order; `held` until the last one that was given is followed."""

    tasks: Iterator[FrameTask]
    head: FrameTask | None = None
    held: bool = False

    def __post_init__(self) -> None:
        self.head = next(self.tasks, None)

    @property
    def ready(self) -> FrameTask | None:
        return None if self.held else self.head


class Queue:
    """A job's frames that wait, and its share of the device so far.

    Args:
        sources: the frames, in one order or one for each chain.
        order: of the job among all.
        chained: whether a source gives its next frame only when the last one was followed.
        served: row evaluations that it was given, to start with.
    """

    def __init__(
        self, sources: Iterable[Iterator[FrameTask]], order: int, *, chained: bool, served: int
    ) -> None:
        self._sources = [_Source(tasks) for tasks in sources]
        self.order = order
        self.chained = chained
        self.served = served
        self.skips = 0
        self.in_flight = 0
        self.slots: set[Place] = set()

    @property
    def head(self) -> FrameTask | None:
        """The next frame that may be taken: of the first chain that holds none."""
        return next((task for source in self._sources if (task := source.ready)), None)

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits any more."""
        return not any(source.head for source in self._sources)

    def take(self) -> FrameTask:
        """Takes the head, and counts it as served and in flight."""
        source = next(source for source in self._sources if source.ready)
        task = source.head
        assert task is not None, "it is ready"
        source.held = self.chained
        source.head = next(source.tasks, None)
        self.served += task.num_rows * task.num_steps
        self.in_flight += 1
        self.skips = 0
        return task

    def follow(self, chain: int) -> None:
        """Lets a chain give its next frame."""
        self._sources[chain].held = False
