"""Random job mixes through the pure scheduler: exactly once, in bounds, in order, fair, full."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import count, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.scheduler import MAX_SKIPS, Scheduler, Slot

MAX_STEPS = 30


@dataclass(frozen=True)
class Arrival:
    """A job, when it comes, and what happens to it on the way; times are ticks."""

    name: str
    frames: tuple[tuple[int, int], ...]  # (rows, steps) of each
    at: int = 0
    cancel_at: int | None = None
    paused: frozenset[int] = frozenset()

    @property
    def tasks(self) -> list[FrameTask]:
        return [FrameTask(self.name, i, *frame) for i, frame in enumerate(self.frames)]


@dataclass
class Run:
    """Ticks a scheduler as the engine does, and checks after each tick what must always hold."""

    arrivals: Collection[Arrival]
    batch: int
    max_in_flight: int = 1000
    num_lanes: int = 1
    admitted: dict[str, list[int]] = field(default_factory=dict)
    finished: Counter[tuple[str, int]] = field(default_factory=Counter)
    emitted: dict[str, int] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    tick: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            self.batch,
            self.batch,
            max_in_flight=self.max_in_flight,
            num_lanes=self.num_lanes,
        )
        for job in self.arrivals:
            self.admitted[job.name] = []
            self.emitted[job.name] = 0

    def to_the_end(self) -> Run:
        # Every frame one after the other, and every tick at which anyone is held up.
        held = sum(len(job.paused) + job.at for job in self.arrivals)
        limit = held + sum(steps for job in self.arrivals for _, steps in job.frames)
        last = max(max((job.at, job.cancel_at or 0)) for job in self.arrivals)
        while self.tick <= last or self.scheduler.active or self.scheduler.waiting:
            assert self.tick <= limit + last + 1, "the scheduler does not get done"
            self.step()
        return self

    def step(self) -> None:
        for job in self.arrivals:
            if job.at == self.tick:
                self.scheduler.submit(job.name, iter(job.tasks))
            if job.cancel_at == self.tick:
                self._cancel(job)
        self._admit({job.name for job in self.arrivals if self.tick in job.paused})
        before = {(slot.lane, slot.index): slot.step for slot in self.scheduler.active}
        finished = self.scheduler.advance()
        for slot in [*finished, *self.scheduler.active]:
            assert slot.step == before.pop((slot.lane, slot.index)) + 1
        assert not before
        for slot in finished:
            self._finish(slot)
        self.tick += 1

    def _admit(self, paused: set[str]) -> None:
        before = {(s.lane, s.index): (s.rows, s.task) for s in self.scheduler.active}
        for slot in self.scheduler.admit(paused):
            task = slot.task
            assert (slot.lane, slot.index) not in before
            assert slot.step == 0
            assert task.job not in paused | self.cancelled
            assert len(slot.rows) == task.num_rows
            self.admitted[task.job].append(task.frame)
            in_flight = len(self.admitted[task.job]) - self.emitted[task.job]
            assert in_flight <= self.max_in_flight
        after = {(s.lane, s.index): (s.rows, s.task) for s in self.scheduler.active}
        assert before.items() <= after.items(), "a frame was moved"
        self._check_rows()

    def _check_rows(self) -> None:
        slots = list(self.scheduler.active)
        places = [(slot.lane, slot.index) for slot in slots]
        rows = [(slot.lane, row) for slot in slots for row in slot.rows]
        assert len({*places}) == len(places)
        assert len({*rows}) == len(rows) == self.scheduler.rows_busy
        assert {lane for lane, _ in places} <= {*range(self.num_lanes)}
        assert {place for _, place in [*places, *rows]} <= {*range(self.batch)}
        assert all(list(slot.rows) == sorted(slot.rows) for slot in slots)

    def _finish(self, slot: Slot) -> None:
        task = slot.task
        assert slot.step == task.num_steps
        self.finished[task.job, task.frame] += 1
        while (task.job, self.emitted[task.job]) in self.finished:
            self.emitted[task.job] += 1
            self.scheduler.emitted(task.job)

    def _cancel(self, job: Arrival) -> None:
        mine = [slot for slot in self.scheduler.active if slot.task.job == job.name]
        others = [slot for slot in self.scheduler.active if slot.task.job != job.name]
        steps = [slot.step for slot in others]
        freed = self.scheduler.cancel(job.name)
        assert sorted(slot.index for slot in freed) == sorted(slot.index for slot in mine)
        assert list(self.scheduler.active) == others
        assert [slot.step for slot in others] == steps
        self.cancelled.add(job.name)
        self._check_rows()


@st.composite
def arrivals(draw: st.DrawFn, batch: int, *, disturbed: bool = True) -> list[Arrival]:
    frame = st.tuples(st.integers(1, batch), st.integers(1, MAX_STEPS))
    jobs = []
    for i in range(draw(st.integers(1, 6))):
        frames = draw(st.lists(frame, min_size=1, max_size=8))
        at = draw(st.integers(0, 40))
        cancel_at, paused = None, frozenset[int]()
        if disturbed:
            cancel_at = draw(st.none() | st.integers(at, at + 60))
            paused = draw(st.frozensets(st.integers(0, 80), max_size=40))
        jobs.append(Arrival(f"job{i}", tuple(frames), at, cancel_at, paused))
    return jobs


batches = st.integers(1, 12)


@given(data=st.data(), batch=batches, max_in_flight=st.integers(1, 20), num_lanes=st.integers(1, 3))
def test_every_frame_once_and_in_order_whatever_happens(
    data: st.DataObject, batch: int, max_in_flight: int, num_lanes: int
) -> None:
    jobs = data.draw(arrivals(batch))
    run = Run(jobs, batch, max_in_flight, num_lanes).to_the_end()
    assert run.scheduler.rows_busy == 0
    for job in jobs:
        frames = run.admitted[job.name]
        assert frames == list(range(len(frames)))
        if job.name not in run.cancelled:
            assert len(frames) == len(job.frames) == run.emitted[job.name]
    assert set(run.finished.values()) <= {1}


@given(data=st.data(), batch=batches, seed=st.integers(0, 99))
def test_the_order_of_submission_decides_nothing_about_which_frames(
    data: st.DataObject, batch: int, seed: int
) -> None:
    jobs = data.draw(arrivals(batch, disturbed=False))
    shuffled = random.Random(seed).sample(jobs, len(jobs))
    assert Run(jobs, batch).to_the_end().finished == Run(shuffled, batch).to_the_end().finished


@given(data=st.data(), batch=batches)
def test_no_slot_is_left_free_that_a_waiting_frame_fits(data: st.DataObject, batch: int) -> None:
    """One row a frame: the batch is full for as long as enough frames wait."""
    steps = data.draw(st.lists(st.integers(1, MAX_STEPS), min_size=1, max_size=40))
    scheduler = Scheduler(batch, batch, max_in_flight=1000)
    scheduler.submit("job", iter([FrameTask("job", i, 1, n) for i, n in enumerate(steps)]))
    left = len(steps)
    while left:
        left -= len(scheduler.admit())
        assert scheduler.waiting == (left > 0)
        assert scheduler.rows_busy == batch or not left
        scheduler.advance()


@given(batch=batches, num_lanes=st.integers(1, 4), num_frames=st.integers(1, 30))
def test_lanes_are_filled_evenly(batch: int, num_lanes: int, num_frames: int) -> None:
    scheduler = Scheduler(batch, batch, max_in_flight=1000, num_lanes=num_lanes)
    scheduler.submit("job", iter([FrameTask("job", i, 1, 2) for i in range(num_frames)]))
    scheduler.admit()
    shares = Counter(slot.lane for slot in scheduler.active)
    counts = [shares[lane] for lane in range(num_lanes)]
    assert sum(counts) == min(num_frames, batch * num_lanes)
    assert max(counts) - min(counts) <= 1


def endless(job: str, rows: int, steps: int) -> Iterator[FrameTask]:
    return (FrameTask(job, frame, rows, steps) for frame in count())


@settings(max_examples=40)
@given(
    batch=st.integers(2, 12),
    wide=st.data(),
    narrow=st.lists(st.integers(1, MAX_STEPS), min_size=1, max_size=12),
)
def test_a_wide_frame_among_endless_narrow_ones_does_not_starve(
    batch: int, wide: st.DataObject, narrow: list[int]
) -> None:
    rows, steps = wide.draw(st.tuples(st.integers(2, batch), st.integers(1, MAX_STEPS)))
    scheduler = Scheduler(batch, batch, max_in_flight=1000)
    for i, num_steps in enumerate(narrow):
        scheduler.submit(f"narrow{i}", endless(f"narrow{i}", 1, num_steps))
    for _ in range(7):
        scheduler.admit()
        scheduler.advance()
    scheduler.submit("wide", endless("wide", rows, steps))
    # Others overtake until they were given as much, and then MAX_SKIPS times; then rows are kept.
    overtakers = MAX_SKIPS + sum(rows * steps // cost + 2 for cost in narrow)
    # All rows are busy until then, which bounds the ticks; at last the batch drains.
    limit = MAX_STEPS * (overtakers / batch + 2)
    waited, overtaken, num_admitted = 0, 0, 0
    while num_admitted < 3:
        for slot in scheduler.admit():
            if slot.task.job == "wide":
                waited, overtaken, num_admitted = 0, 0, num_admitted + 1
            else:
                overtaken += 1
        for slot in scheduler.advance():
            scheduler.emitted(slot.task.job)
        waited += 1
        assert overtaken <= overtakers
        assert waited <= limit


def test_rows_are_kept_for_a_wide_frame_only_after_it_was_passed_over() -> None:
    scheduler = Scheduler(2, 2, max_in_flight=1000)
    # One of the two rows is freed at a time, so that two are never free at once.
    scheduler.submit("first", iter([FrameTask("first", 0, 1, 1)]))
    scheduler.submit("narrow", endless("narrow", 1, 2))
    scheduler.admit()
    for slot in scheduler.advance():
        scheduler.emitted(slot.task.job)
    scheduler.submit("wide", endless("wide", 2, 2))
    ticks = 0
    while all(slot.task.job != "wide" for slot in scheduler.admit()):
        for slot in scheduler.advance():
            scheduler.emitted(slot.task.job)
        ticks += 1
    assert MAX_SKIPS / 2 <= ticks <= MAX_SKIPS + 2


class Ledger:
    """Row evaluations that each job was given since it was watched."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.given: Counter[str] = Counter()

    def tick(self, paused: Collection[str] = ()) -> None:
        for slot in self.scheduler.admit(paused):
            self.given[slot.task.job] += slot.task.num_rows * slot.task.num_steps
        for slot in self.scheduler.advance():
            self.scheduler.emitted(slot.task.job)


@given(
    data=st.data(),
    batch=st.integers(1, 12),
    others=st.lists(st.tuples(st.integers(1, 12), st.integers(1, MAX_STEPS)), max_size=4),
)
def test_equal_jobs_never_drift_apart(
    data: st.DataObject, batch: int, others: list[tuple[int, int]]
) -> None:
    rows, steps = data.draw(st.tuples(st.integers(1, batch), st.integers(1, MAX_STEPS)))
    scheduler = Scheduler(batch, batch, max_in_flight=1000)
    ledger = Ledger(scheduler)
    scheduler.submit("a", endless("a", rows, steps))
    for i, (other_rows, other_steps) in enumerate(others):
        scheduler.submit(f"other{i}", endless(f"other{i}", min(other_rows, batch), other_steps))
    scheduler.submit("b", endless("b", rows, steps))
    for _ in range(150):
        ledger.tick()
        assert abs(ledger.given["a"] - ledger.given["b"]) <= rows * steps


@given(
    batch=st.integers(1, 12),
    early=st.integers(1, 3),
    steps=st.integers(1, MAX_STEPS),
    head_start=st.integers(0, 200),
)
def test_a_latecomer_starts_level(batch: int, early: int, steps: int, head_start: int) -> None:
    scheduler = Scheduler(batch, batch, max_in_flight=1000)
    ledger = Ledger(scheduler)
    for i in range(early):
        scheduler.submit(f"early{i}", endless(f"early{i}", 1, steps))
    for _ in range(head_start):
        ledger.tick()
    ledger.given.clear()
    scheduler.submit("late", endless("late", 1, steps))
    for _ in range(3 * steps * (early + 1)):
        ledger.tick()
        for i in range(early):
            assert abs(ledger.given["late"] - ledger.given[f"early{i}"]) <= 2 * steps


@pytest.mark.parametrize("comes_late", [False, True])
def test_nobody_is_repaid_for_a_pause(comes_late: bool) -> None:
    """Neither the job that was paused, nor one that comes while its share is low."""
    scheduler = Scheduler(4, 4, max_in_flight=1000)
    ledger = Ledger(scheduler)
    scheduler.submit("steady", endless("steady", 1, 5))
    scheduler.submit("lagging", endless("lagging", 1, 5))
    ledger.tick()
    for _ in range(200):
        ledger.tick(paused=["lagging"])
    if comes_late:
        scheduler.submit("late", endless("late", 1, 5))
    ledger.given.clear()
    for _ in range(60):
        ledger.tick(paused=["lagging"] if comes_late else [])
        other = "late" if comes_late else "lagging"
        assert abs(ledger.given["steady"] - ledger.given[other]) <= 2 * 5


def test_a_job_of_many_rows_gets_fewer_frames_not_a_larger_share() -> None:
    scheduler = Scheduler(16, 16, max_in_flight=1000)
    ledger = Ledger(scheduler)
    scheduler.submit("wide", endless("wide", 2, 20))
    scheduler.submit("narrow", endless("narrow", 1, 4))
    for _ in range(1000):
        ledger.tick()
    assert ledger.given["wide"] / ledger.given["narrow"] == pytest.approx(1, abs=0.02)


def test_max_in_flight_counts_frames_until_they_are_emitted() -> None:
    scheduler = Scheduler(8, 8, max_in_flight=3)
    scheduler.submit("job", endless("job", 1, 1))
    assert [slot.task.frame for slot in scheduler.admit()] == [0, 1, 2]
    assert len(scheduler.advance()) == 3
    assert scheduler.admit() == []
    scheduler.emitted("job")
    scheduler.emitted("job")
    assert [slot.task.frame for slot in scheduler.admit()] == [3, 4]


def test_a_cancelled_jobs_rows_go_to_others_and_its_name_is_free() -> None:
    scheduler = Scheduler(4, 4, max_in_flight=1000)
    scheduler.submit("a", endless("a", 2, 9))
    scheduler.admit()
    scheduler.submit("b", endless("b", 1, 9))
    assert scheduler.admit() == []
    assert [slot.rows for slot in scheduler.cancel("a")] == [(0, 1), (2, 3)]
    assert scheduler.cancel("a") == []
    assert scheduler.rows_busy == 0
    scheduler.submit("a", endless("a", 1, 9))
    assert Counter(slot.task.job for slot in scheduler.admit()) == {"a": 2, "b": 2}


def test_a_jobs_name_is_free_once_its_last_frame_was_emitted() -> None:
    scheduler = Scheduler(4, 4, max_in_flight=1000)
    scheduler.submit("a", iter([FrameTask("a", 0, 1, 1)]))
    scheduler.admit()
    assert len(scheduler.advance()) == 1
    with pytest.raises(ValueError, match="queued already"):
        scheduler.submit("a", endless("a", 1, 1))
    scheduler.emitted("a")
    scheduler.submit("a", endless("a", 1, 1))
    assert len(scheduler.admit()) == 4


def test_refusals() -> None:
    scheduler = Scheduler(4, 4, max_in_flight=1000)
    with pytest.raises(ValueError, match="more rows than the batch's 4"):
        scheduler.submit("wide", endless("wide", 5, 1))
    scheduler.submit("a", endless("a", 4, 1))
    with pytest.raises(ValueError, match="'a' is queued already"):
        scheduler.submit("a", endless("a", 1, 1))
    scheduler.submit("empty", iter(()))
    assert [slot.task.job for slot in scheduler.admit()] == ["a"]
    assert scheduler.cancel("empty") == []


def test_tasks_are_read_as_slots_become_free() -> None:
    """A job may have a million frames: one is read ahead, not all."""
    read = []

    def tasks() -> Iterator[FrameTask]:
        for task in endless("job", 1, 5):
            read.append(task)
            yield task

    scheduler = Scheduler(4, 4, max_in_flight=1000)
    scheduler.submit("job", tasks())
    scheduler.admit()
    assert len(read) == 5


def busy_share(jobs: list[Arrival], batch: int) -> float:
    """Share of the rows that are busy while a frame of one row waits, so that all could be."""
    scheduler = Scheduler(batch, batch, max_in_flight=4 * batch)
    narrow = 0
    for job in jobs:
        scheduler.submit(job.name, iter(job.tasks))
        narrow += sum(rows == 1 for rows, _ in job.frames)
    busy, ticks = 0, 0
    while True:
        narrow -= sum(slot.task.num_rows == 1 for slot in scheduler.admit())
        if not narrow:
            return busy / (ticks * batch)
        busy += scheduler.rows_busy
        ticks += 1
        for slot in scheduler.advance():
            scheduler.emitted(slot.task.job)


@pytest.mark.parametrize("batch", [16, 32])
@pytest.mark.parametrize("mixed", [False, True], ids=["rows by job", "rows by frame"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_stay_busy_over_a_job_mix(batch: int, mixed: bool, seed: int) -> None:
    rng = random.Random(seed)
    jobs = []
    for i in range(20):
        steps, rows, num_frames = rng.randint(4, 30), i % 3 + 1, rng.randint(20, 60)
        widths = [rng.randint(1, 3) for _ in range(num_frames)] if mixed else repeat(rows)
        frames = tuple((width, steps) for width, _ in zip(widths, range(num_frames), strict=False))
        jobs.append(Arrival(f"job{i}", frames))
    assert busy_share(jobs, batch) >= 0.98


@given(
    frames=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=16),
    lanes=st.integers(1, 2),
    ticks=st.integers(0, 12),
    smaller=st.integers(1, 15),
)
def test_resizing_moves_what_lies_beyond_and_nothing_else(
    frames: list[tuple[int, int]], lanes: int, ticks: int, smaller: int
) -> None:
    scheduler = Scheduler(16, 16, max_in_flight=1000, num_lanes=lanes)
    tasks = [FrameTask("job", i, *frame) for i, frame in enumerate(frames)]
    scheduler.submit("job", iter(tasks))
    for _ in range(ticks):
        scheduler.admit()
        scheduler.advance()
    needed = [0] * lanes
    for slot in scheduler.active:
        needed[slot.lane] += slot.task.num_rows
    size = max(smaller, *needed)
    before = {slot.task.frame: (slot.index, slot.rows, slot.step) for slot in scheduler.active}
    moves = {move.slot.task.frame: (move.index, move.rows) for move in scheduler.resize(size)}
    taken: set[tuple[int, int]] = set()
    for slot in scheduler.active:
        index, rows, step = before[slot.task.frame]
        beyond = max(index, *rows) >= size
        assert (slot.task.frame in moves) == beyond
        if beyond:
            assert moves[slot.task.frame] == (index, rows)
        else:
            assert (slot.index, slot.rows) == (index, rows)
        assert slot.step == step
        assert list(slot.rows) == sorted(slot.rows)
        assert len(slot.rows) == slot.task.num_rows
        assert max(slot.index, *slot.rows) < size
        # Copied one after the other, no row overwrites one that is still to be copied.
        assert all(new <= old for new, old in zip(slot.rows, rows, strict=True))
        taken |= {(slot.lane, row) for row in slot.rows}
    assert len(taken) == sum(slot.task.num_rows for slot in scheduler.active)
    assert scheduler.rows_busy == len(taken)


@given(sizes=st.lists(st.integers(3, 16), min_size=1, max_size=20))
def test_every_frame_is_rendered_once_whatever_the_sizes(sizes: list[int]) -> None:
    scheduler = Scheduler(16, 16, max_in_flight=1000)
    tasks = [FrameTask("job", i, 1 + i % 3, 1 + i % 5) for i in range(40)]
    scheduler.submit("job", iter(tasks))
    finished: Counter[int] = Counter()
    for tick in range(400):
        size = sizes[tick % len(sizes)]
        if size >= scheduler.rows_busy:
            scheduler.resize(size)
        scheduler.admit()
        finished.update(slot.task.frame for slot in scheduler.advance())
    assert finished == Counter(range(40))
