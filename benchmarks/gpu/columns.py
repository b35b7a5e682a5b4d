"""The columns of the GPU table: each opens its contestants, or says why it cannot."""

from __future__ import annotations

import contextlib
import gc
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.contest import Contestant, Job
from benchmarks.gpu.machine import synchronize
from benchmarks.gpu.ours import UNRENDERED, Ours
from benchmarks.gpu.peers import Peer, Pipeline
from giffusion.engine.errors import GiffusionError, one_line
from giffusion.engine.model import Model
from giffusion.engine.runtimes import open_runtime, runtime_names
from giffusion.engine.runtimes.base import Runtime
from giffusion.export.torch_runtime.runtime import TorchRuntime

EAGER, COMPILE = "eager", "compile"
TORCH, LAUNCHED = "torch", "torch-launched"
TITLES = {
    EAGER: "diffusers eager",
    COMPILE: "diffusers torch.compile",
    TORCH: "giffusion torch",
    LAUNCHED: "giffusion torch, no CUDA graphs",
}
OPENING_S = {COMPILE: 150.0, "tensorrt": 240.0, "tensorrt-rtx": 240.0}
"""Seconds that have to be left before a column is opened, where it is long; a guess."""
TUNING_WINDOW_S = 0.3
_ALARM_S = 5.0
"""Between two tries to end what swallows the first."""


@dataclass(frozen=True, slots=True)
class Cold:
    """Seconds until a contestant's first frames, in a process where others may have run before.

    Args:
        open_s: making weights, building and capturing graphs; those of a column's first contestant
            include what its others share.
        first_frames_s: from there until its first batch of frames is on the device; torch compiles
            within it. None for what does not render.
    """

    open_s: float
    first_frames_s: float | None

    def __str__(self) -> str:
        first = self.first_frames_s
        return f"{self.open_s:.2f} s" + ("" if first is None else f", first frames {first:.2f} s")


@dataclass(frozen=True, slots=True)
class Entry:
    """A contestant that is open, and what it took.

    Args:
        column: its column.
        contestant: it.
        cold: what opening it took.
        batch_s: seconds from one batch's latents to its frames; 0 for what does not render.
    """

    column: str
    contestant: Contestant
    cold: Cold
    batch_s: float


class SkipError(Exception):
    """A column or one of its batches is not measured; the text is the reason."""


Make = Callable[[int], Contestant]


def columns() -> tuple[str, ...]:
    """Returns the names of all columns."""
    names = (EAGER, TORCH, LAUNCHED, *runtime_names(), COMPILE)
    return tuple(dict.fromkeys(names))


def title(column: str) -> str:
    """Returns how tables call a column."""
    return TITLES.get(column, f"giffusion {column}")


def maker(column: str, job: Job, frames: Sequence[int]) -> Make:
    """Returns what opens a column's contestants.

    Args:
        column: one of `columns()`.
        job: what to render.
        frames: all numbers of frames that batches will hold.

    Raises:
        SkipError: the column cannot be measured here, or not on this row.
    """
    on_gpu = torch.cuda.is_available()
    if column in (EAGER, COMPILE):
        if column == COMPILE and not on_gpu:
            raise SkipError("its mode is for GPUs, and there is none here")
        with skipping():
            pipeline = Pipeline(job, compiled=column == COMPILE)
        return lambda held: Peer(pipeline, title(column), held)
    if column == LAUNCHED and not on_gpu:
        raise SkipError("there are no CUDA graphs on the CPU to switch off")
    if column in (TORCH, LAUNCHED):
        runtime: Runtime = TorchRuntime(
            job.networks.precision,
            cuda_graphs=column == TORCH,
            load_stage=job.networks.load_stage,
        )
        (job.folder / column).mkdir()
        model = job.networks.model(job.folder / column)
        return lambda held: Ours(job, title(column), model, runtime, held)
    with skipping():
        runtime = open_runtime(column, job.networks.precision)
        model = _exported(column, job, runtime, frames)
    return lambda held: Ours(job, title(column), model, runtime, held)


def opened(column: str, make: Make, frames: int, began: float, limit_s: float) -> Entry:
    """Opens a contestant and renders its first frames.

    Args:
        column: its column.
        make: what opens it.
        frames: frames that its batch holds.
        began: when it began, by `time.perf_counter`.
        limit_s: seconds after which a compilation is given up.

    Raises:
        SkipError: it cannot be opened or fails.
    """
    compiles = column == COMPILE
    limit = _time_limit(limit_s) if compiles else contextlib.nullcontext()
    with skipping(anything=compiles), limit, contextlib.ExitStack() as opening:
        contestant = make(frames)
        opening.callback(contestant.close)
        synchronize()
        open_s = time.perf_counter() - began
        if "device" not in contestant.figures:
            entry = Entry(column, contestant, Cold(open_s, None), 0.0)
        else:
            first_frames_s, batch_s = (_batch_s(contestant) for _ in range(2))
            entry = Entry(column, contestant, Cold(open_s, first_frames_s), batch_s)
        opening.pop_all()
        return entry


def best_batch(column: str, make: Make, job: Job) -> tuple[int, dict[int, float | str]]:
    """Finds the batch at which the denoising network does the most rows a second.

    Returns:
        The frames that it holds, and rows a second of all that were tried, or why one failed.

    Raises:
        SkipError: none works.
    """
    rates: dict[int, float | str] = {}
    for frames in job.row.batches:
        try:
            with skipping(), contextlib.closing(make(frames)) as contestant:
                rates[frames] = contestant.denoise_rate(TUNING_WINDOW_S)
        except SkipError as error:
            rates[frames] = str(error)
        release()
        found = rates[frames]
        text = f"{found:.4g} rows/s" if isinstance(found, float) else found
        print(f"tuning: {title(column)}, batch {frames}: {text}", flush=True)
    working = {frames: rate for frames, rate in rates.items() if isinstance(rate, float)}
    if not working:
        raise SkipError(f"no batch works: {rates[job.row.batches[0]]}")
    return max(working, key=working.__getitem__), rates


def release() -> None:
    """Gives memory that nobody uses back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _batch_s(contestant: Contestant) -> float:
    began = time.perf_counter()
    contestant.to_device(contestant.frames)
    return time.perf_counter() - began


def _exported(column: str, job: Job, runtime: Runtime, frames: Sequence[int]) -> Model:
    if job.row.text is None:
        raise SkipError(f"{UNRENDERED}, nor export them")
    folder = job.folder / column
    folder.mkdir()
    model = job.networks.exported(folder, runtime.graph_dtype)
    for held in frames:
        batch = held * job.row.rows_per_frame
        runtime.prepare(model, size=job.row.size, batch=batch, on_progress=_printed)
    return model


def _printed(label: str, done: int, total: int) -> None:
    if done in (0, total):
        print(f"{label}: {done} of {total}", flush=True)


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Ends what takes longer by a `TimeoutError`, at its next step in Python; Unix only."""

    def end(number: int, frame: object) -> None:
        raise TimeoutError(f"it took more than the {limit_s:.0f} s that were left")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, limit_s, _ALARM_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def skipping(*, anything: bool = False) -> Iterator[None]:
    """Turns what can go wrong with one contestant into a reason to go on without it.

    Args:
        anything: whatever is raised; compilers fail in many ways.
    """
    kinds: Any = (Exception,) if anything else (GiffusionError, torch.OutOfMemoryError)
    try:
        yield
    except kinds as error:
        lines = str(error).splitlines() or [""]
        raise SkipError(f"{type(error).__name__}: {one_line(lines[0])[:300]}") from error
