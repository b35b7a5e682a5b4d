"""Continuous batching: waiting frames into slots and rows, one batch a tick.

The loop in `pipeline.py` calls `admit`, runs a tick, and calls `advance`. Nothing here touches a
pixel, a clock or a device, so every property is tested without a model: each frame is rendered
once, no job starves, and what is rendered does not depend on the order of submission. Frames that
follow from each other are a chain: one of them at a time is in the batch, beside other chains'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from giffusion.engine.batching.queues import FrameTask, Place, Queue

MAX_SKIPS = 64
"""Times that a frame too wide for the free rows is passed over before rows are kept for it."""


@dataclass(slots=True)
class Slot:
    """A frame in the batch, at its own step.

    Args:
        index: the slot's place in its batch.
        rows: the batch rows of its conditions, ascending.
        task: the frame.
        step: evaluations done.
        lane: the batch that it belongs to.
    """

    index: int
    rows: tuple[int, ...]
    task: FrameTask
    step: int = 0
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """A frame that changed its place.

    Args:
        slot: the frame's slot, at its new place.
        index: its place before.
        rows: its rows before.
    """

    slot: Slot
    index: int
    rows: tuple[int, ...]


@dataclass(slots=True)
class _Lane:
    """What is free in one batch, ascending."""

    slots: list[int]
    rows: list[int]

    def fits(self, task: FrameTask) -> bool:
        return bool(self.slots) and task.num_rows <= len(self.rows)


class Scheduler:
    """Fills a fixed number of slots and rows from the queues of any number of jobs.

    The next frame comes from the job that was given the fewest row evaluations (start-time fair
    queueing; Goyal, Vin and Cheng 1996): a job that arrives late or was paused starts level with
    the others and is not repaid for the time before.

    Args:
        num_slots: frames that a batch holds.
        num_rows: conditions that a batch holds.
        num_lanes: batches that run side by side; a frame stays in one.
        max_in_flight: frames of one job that were admitted and not yet emitted, which bounds what
            is kept to put frames in order again; no limit for chains.
    """

    def __init__(
        self, num_slots: int, num_rows: int, *, max_in_flight: int, num_lanes: int = 1
    ) -> None:
        self._num_rows = self._most_rows = num_rows
        self._max_in_flight = max_in_flight
        self._free = [
            _Lane(list(range(num_slots)), list(range(num_rows))) for _ in range(num_lanes)
        ]
        self._queues: dict[str, Queue] = {}
        self._active: dict[Place, Slot] = {}
        self._num_submitted = 0
        # What the job chosen last had been given before: where a job that joins starts.
        self._level = 0

    @property
    def active(self) -> Collection[Slot]:
        """The slots that hold a frame, in the order they were filled."""
        return self._active.values()

    @property
    def rows_busy(self) -> int:
        """Rows that hold a condition."""
        return sum(self._num_rows - len(lane.rows) for lane in self._free)

    @property
    def waiting(self) -> bool:
        """Whether any job has frames that were not admitted yet."""
        return any(queue.head is not None for queue in self._queues.values())

    @property
    def has_room(self) -> bool:
        """Whether rows are free that no frame is ready for."""
        return any(lane.rows for lane in self._free) and not self.waiting

    def submit(self, job: str, *tasks: Iterator[FrameTask], chained: bool = False) -> None:
        """Queues a job's frames, which are taken in the order given, as slots become free.

        The next frame of a chain can be taken once `follow` was called for the one before. Frames
        of later chains are finished long before their turn comes to be emitted, so that there is
        no limit on those in flight: whoever takes them has the room.

        Args:
            job: key of the job.
            tasks: its frames; of chains those of each, `FrameTask.chain` counted from 0.
            chained: whether they follow from each other.

        Raises:
            ValueError: the job is queued already, or a frame has more rows than the batch.
        """
        if job in self._queues:
            raise ValueError(f"job {job!r} is queued already")
        checked = [map(self._checked, source) for source in tasks]
        queue = Queue(checked, self._num_submitted, chained=chained, served=self._level)
        self._num_submitted += 1
        if not queue.is_empty:
            self._queues[job] = queue

    def follow(self, job: str, chain: int) -> None:
        """Notes that a chain's last frame has become what its next one starts from."""
        queue = self._queues.get(job)
        if queue is not None:
            queue.follow(chain)

    def cancel(self, job: str) -> list[Slot]:
        """Forgets a job's frames; returns the slots that it held, which are free now."""
        queue = self._queues.pop(job, None)
        if queue is None:
            return []
        slots = [self._active[place] for place in sorted(queue.slots)]
        for slot in slots:
            self._release(slot)
        return slots

    def admit(self, paused: Collection[str] = ()) -> list[Slot]:
        """Fills free slots and rows with waiting frames.

        Args:
            paused: jobs that get no new slot now, because their frames are not taken away.

        Returns:
            The slots that were filled.
        """
        admitted = []
        while (queue := self._choose(paused)) is not None:
            admitted.append(self._admit(queue))
        for job, queue in self._queues.items():
            if job in paused:
                queue.served = max(queue.served, self._level)
        return admitted

    def advance(self) -> list[Slot]:
        """Counts one evaluation for every active slot; returns those whose frame is finished.

        A finished slot is free, and keeps its place in the batch until the next `admit`.
        """
        finished = []
        for slot in list(self._active.values()):
            slot.step += 1
            if slot.step == slot.task.num_steps:
                finished.append(slot)
                self._queues[slot.task.job].slots.discard((slot.lane, slot.index))
                self._release(slot)
        return finished

    def resize(self, num_rows: int) -> list[Move]:
        """Changes the number of slots and of rows in every lane, to one that holds what is active.

        Returns:
            The frames that lay beyond it and have moved to free places below it.
        """
        self._num_rows = num_rows
        moves = []
        for lane, free in enumerate(self._free):
            slots = [slot for slot in self._active.values() if slot.lane == lane]
            taken = {row for slot in slots for row in slot.rows}
            free.slots = sorted(set(range(num_rows)) - {slot.index for slot in slots})
            free.rows = sorted(set(range(num_rows)) - taken)
            moves += [self._move(slot, free) for slot in slots if _beyond(slot, num_rows)]
        return moves

    def emitted(self, job: str, num: int = 1) -> None:
        """Notes that some more of a job's finished frames have been handed on."""
        queue = self._queues.get(job)
        if queue is not None:
            queue.in_flight -= num
            if queue.is_empty and queue.in_flight == 0:
                del self._queues[job]

    def _checked(self, task: FrameTask) -> FrameTask:
        if task.num_rows > self._most_rows:
            raise ValueError(f"{task} takes more rows than the batch's {self._most_rows}")
        return task

    def _choose(self, paused: Collection[str]) -> Queue | None:
        if not any(lane.slots for lane in self._free):
            return None
        ready = [
            queue
            for job, queue in self._queues.items()
            if queue.head
            and job not in paused
            and (queue.chained or queue.in_flight < self._max_in_flight)
        ]
        for queue in sorted(ready, key=lambda q: (q.served, q.order)):
            assert queue.head is not None
            if any(lane.fits(queue.head) for lane in self._free):
                return queue
            queue.skips += 1
            if queue.skips > MAX_SKIPS:
                return None
        return None

    def _admit(self, queue: Queue) -> Slot:
        self._level = max(self._level, queue.served)
        task = queue.take()
        fitting = (lane for lane, free in enumerate(self._free) if free.fits(task))
        # The emptiest, so that lanes that wait for each other have as much to do.
        lane = max(fitting, key=lambda lane: len(self._free[lane].rows))
        free = self._free[lane]
        rows = tuple(free.rows[: task.num_rows])
        del free.rows[: task.num_rows]
        slot = Slot(free.slots.pop(0), rows, task, lane=lane)
        self._active[lane, slot.index] = slot
        queue.slots.add((lane, slot.index))
        return slot

    def _move(self, slot: Slot, free: _Lane) -> Move:
        move = Move(slot, slot.index, slot.rows)
        if slot.index >= self._num_rows:
            places = self._queues[slot.task.job].slots
            places.discard((slot.lane, slot.index))
            del self._active[slot.lane, slot.index]
            slot.index = free.slots.pop(0)
            self._active[slot.lane, slot.index] = slot
            places.add((slot.lane, slot.index))
        rows = [row if row < self._num_rows else free.rows.pop(0) for row in slot.rows]
        slot.rows = tuple(sorted(rows))
        return move

    def _release(self, slot: Slot) -> None:
        del self._active[slot.lane, slot.index]
        free = self._free[slot.lane]
        free.slots = sorted([*free.slots, slot.index])
        free.rows = sorted([*free.rows, *slot.rows])


def _beyond(slot: Slot, num_rows: int) -> bool:
    return max(slot.index, *slot.rows) >= num_rows
