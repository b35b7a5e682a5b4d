"""Frames that follow from each other: one chain of a job, and what its next frame starts from.

`jobs.py` has a job's chains, `pipeline.py` asks them frame by frame. The invariant: what a chain's
frame starts from depends on that chain's own frames alone, so that chains, and jobs, may share a
batch in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.prefetch import Prefetch
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.timelines.plans import FramePlan

Start = NDArray[np.float32]
"""Latents that a frame starts from, (4, h, w)."""
Follow = Callable[[FramePlan, NDArray[np.uint8]], Start]
"""The plan of a frame and the picture before it, (H, W, 3) RGB, to what it starts from."""
Settle = Callable[[object], None]


class Chain:
    """Frames in their order, whose conditions are computed ahead.

    Args:
        frames: their numbers.
        plan: a frame's number to its plan.
        condition: a plan to its condition, on the executor's thread.
        executor: where that is done.
        depth: conditions that are kept ahead.
        follow: what a frame starts from; None where frames do not follow from each other.
    """

    def __init__(
        self,
        frames: range,
        plan: Callable[[int], FramePlan],
        condition: Callable[[FramePlan], Condition],
        executor: Executor,
        *,
        depth: int,
        follow: Follow | None = None,
    ) -> None:
        self.frames = frames
        self._plan = plan
        self._condition = condition
        self._executor = executor
        self._depth = depth
        self._follow = follow
        self._start: Start | None = None
        self._conditions: Prefetch[Condition] | None = None

    @property
    def is_linked(self) -> bool:
        """Whether its frames follow from each other."""
        return self._follow is not None

    def take(self) -> Condition:
        """Returns the condition of the next frame, waiting for it if need be."""
        if self._conditions is None:
            # Not before, since a job may have thousands of chains.
            plans = map(self._plan, self.frames)
            self._conditions = Prefetch(plans, self._condition, self._executor, depth=self._depth)
        condition = self._conditions.take()
        if self._start is None:
            return condition
        condition, self._start = replace(condition, init_latents=self._start), None
        return condition

    def link(self, frame: int, picture: NDArray[np.uint8]) -> None:
        """Makes a frame's picture what the next frame starts from.

        Args:
            frame: its number; not the last.
            picture: (H, W, 3) RGB.
        """
        assert self._follow is not None, "frames that do not follow are not linked"
        self._start = self._follow(self._plan(frame + 1), picture)

    def close(self) -> None:
        """Drops what was prepared and not used."""
        if self._conditions is not None:
            self._conditions.close()


class Links:
    """Pictures on their way to what the next frame of their chain starts from."""

    def __init__(self) -> None:
        self._pending: list[tuple[FrameTask, Future[None]]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, task: FrameTask, link: Future[None]) -> None:
        """Notes that a frame's picture is on its way."""
        self._pending.append((task, link))

    def wait(self, timeout_s: float | None) -> None:
        """Waits for all of them, at most for some time."""
        wait([link for _, link in self._pending], timeout_s)

    def arrived(self) -> list[tuple[FrameTask, Settle]]:
        """Returns those that are done, or failed, once, with what raises why they failed."""
        done = [pair for pair in self._pending if pair[1].done()]
        self._pending = [pair for pair in self._pending if pair not in done]
        return [(task, partial(_settle, link)) for task, link in done]

    def drop(self, job: str) -> None:
        """Forgets a job's."""
        self._pending = [pair for pair in self._pending if pair[0].job != job]


def _settle(link: Future[None], job: object) -> None:
    """Raises what went wrong on the way from a job's picture to its next frame."""
    link.result()
