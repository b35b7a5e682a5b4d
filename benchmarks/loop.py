"""`python -m benchmarks.loop`: what the engine's loop costs besides its graphs.

Overhead in time; rows kept busy when jobs of different lengths and widths mix; and whether a
second run gives the same bits.
"""

from __future__ import annotations

import hashlib
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.cold import render_command
from benchmarks.machine import machine, write_result
from benchmarks.report import Summary, output_path, parser, print_table, to_dicts
from benchmarks.workload import Digest, Discard, Workload, make_workload
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.errors import GiffusionError
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import DEFAULT_BATCH, RenderSettings
from giffusion.engine.stats import EngineStats
from giffusion.engine.timelines.timeline import Timeline

RUNTIMES = (("openvino", None), ("openvino", "fp32"), ("onnxruntime", "fp32"))
BATCHES = (16, 32)
NUM_JOBS = 20
STEPS = (4, 30)
SHAPES = (
    (1.0, "a picture of a corgi"),
    (5.0, "a picture of a lion"),
    (5.0, "a red apple | a green background"),
)
"""Guidance and prompt of mixed jobs, which make 1, 2 and 3 rows a frame."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Args:
        repeats: renders of each overhead.
        num_frames: frames of a render.
        steps: of each of its frames.
        fake_frames: least and most frames of a mixed job on the fake runtime.
        real_frames: the same on a real one.
        size: of the frames, or None for the model's.
    """

    repeats: int = 5
    num_frames: int = 61
    steps: int = 12
    fake_frames: tuple[int, int] = (20, 60)
    real_frames: tuple[int, int] = (3, 9)
    size: tuple[int, int] | None = None


_QUICK = Scale(
    repeats=1, num_frames=6, steps=2, fake_frames=(5, 15), real_frames=(1, 2), size=(64, 64)
)

_MIXED_SIZE = (64, 64)
"""Of the frames of mixed jobs: which rows are busy does not hang on it."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Share of the batch's rows that held a condition.

    Args:
        while_waiting: over the ticks at which frames waited.
        with_drain: over all ticks, the last frames' too.
        num_ticks: all ticks.
        num_drain_ticks: those at which no frame waited any more.
    """

    while_waiting: float
    with_drain: float
    num_ticks: int
    num_drain_ticks: int

    @classmethod
    def of(cls, stats: EngineStats, num_rows: int) -> Busy:
        """Reads an engine's totals."""
        return cls(
            stats.rows_busy_full / (stats.num_full_ticks * num_rows),
            stats.rows_busy / (stats.num_ticks * num_rows),
            stats.num_ticks,
            stats.num_ticks - stats.num_full_ticks,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parser("loop", "Measures the engine's loop.").parse_args(arguments)
    scale = _QUICK if options.quick else Scale()
    found = machine()
    work = make_workload(scale.num_frames, steps=scale.steps, size=scale.size)
    runtimes = _runtimes()
    result = {
        "benchmark": "loop",
        "machine": found,
        "settings": {"batch": DEFAULT_BATCH, "mixed_jobs": NUM_JOBS, **asdict(scale)},
        "overhead": _overheads(work, [*runtimes, FakeRuntime()], scale.repeats),
        "rows_busy": _rows_busy(work.model, runtimes[0], scale),
        "same_bits": _same_bits(work, runtimes),
    }
    write_result(output_path("loop", options), result)


def _runtimes() -> list[Runtime]:
    opened: dict[tuple[str, str], Runtime] = {}
    for name, precision in RUNTIMES:
        with suppress(GiffusionError):
            runtime = open_runtime(name, precision)
            opened.setdefault((runtime.name, runtime.precision), runtime)
    return list(opened.values())


def _overheads(
    work: Workload, runtimes: Sequence[Runtime], repeats: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Compares the time of a render with that inside its graphs, frames dropped."""
    summaries = {_label(runtime): _overhead(work, runtime, repeats) for runtime in runtimes}
    header = ["host work between graphs", "wall / graphs", "ms a frame", "ms a tick"]
    print_table("Loop overhead", header, [[name, *s.values()] for name, s in summaries.items()])
    return {name: to_dicts(of_runtime) for name, of_runtime in summaries.items()}


def _overhead(work: Workload, runtime: Runtime, repeats: int) -> dict[str, Summary]:
    values: dict[str, list[float]] = {"wall_over_graphs": [], "ms_frame": [], "ms_tick": []}
    with Engine(work.model, runtime, size=work.size) as engine:
        _render(engine, work, Discard())
        for _ in range(repeats):
            engine.stats = stats = EngineStats()
            began = time.perf_counter()
            _render(engine, work, Discard())
            wall_s = time.perf_counter() - began
            graphs_s = stats.denoise_s + stats.decode_s
            host_ms = 1000 * (wall_s - graphs_s)
            values["wall_over_graphs"].append(wall_s / graphs_s)
            values["ms_frame"].append(host_ms / stats.num_frames)
            values["ms_tick"].append(host_ms / stats.num_ticks)
    return {name: Summary.of(of_repeats) for name, of_repeats in values.items()}


def _rows_busy(model: Model, real: Runtime, scale: Scale) -> dict[str, dict[str, float]]:
    """Renders many jobs of mixed lengths and widths at once."""
    runs = [(FakeRuntime(), batch, scale.fake_frames) for batch in BATCHES]
    shares = {
        f"{_label(runtime)} batch {batch}": _mixed(model, runtime, batch, num_frames)
        for runtime, batch, num_frames in [*runs, (real, DEFAULT_BATCH, scale.real_frames)]
    }
    rows = [
        [name, f"{b.while_waiting:.2%}", f"{b.with_drain:.2%}", b.num_ticks, b.num_drain_ticks]
        for name, b in shares.items()
    ]
    header = ["rows busy", "frames waiting", "with the drain", "ticks", "of them drain"]
    print_table(f"{NUM_JOBS} jobs of {STEPS[0]} to {STEPS[1]} steps, 1 to 3 rows", header, rows)
    return {name: asdict(busy) for name, busy in shares.items()}


def _mixed(model: Model, runtime: Runtime, batch: int, num_frames: tuple[int, int]) -> Busy:
    drawn = random.Random(0)
    with Engine(model, runtime, size=_MIXED_SIZE, batch=batch) as engine:
        for number in range(NUM_JOBS):
            guidance, prompt = SHAPES[number % len(SHAPES)]
            settings = RenderSettings(
                steps=drawn.randint(*STEPS),
                guidance=guidance,
                size=_MIXED_SIZE,
                num_frames=drawn.randint(*num_frames),
            )
            timeline = Timeline(parse_prompts(f"0: {prompt}"), settings)
            engine.submit(f"job {number}", timeline, settings, Discard())
        engine.run()
        return Busy.of(engine.stats, engine.num_rows)


def _same_bits(work: Workload, runtimes: Sequence[Runtime]) -> dict[str, bool]:
    """Renders twice in engines of their own, and twice in processes of their own."""
    same = {
        f"frames, {_label(runtime)}": len({_frames_hash(work, runtime) for _ in range(2)}) == 1
        for runtime in runtimes
    }
    same |= {
        f"mp4 files, {_label(runtime)}": len({_file_hash(work, runtime) for _ in range(2)}) == 1
        for runtime in runtimes
    }
    rows = [[name, "equal" if equal else "DIFFERENT"] for name, equal in same.items()]
    print_table("Two runs", ["sha256", "result"], rows)
    return same


def _frames_hash(work: Workload, runtime: Runtime) -> str:
    sink = Digest()
    with Engine(work.model, runtime, size=work.size) as engine:
        _render(engine, work, sink)
    return sink.hexdigest()


def _file_hash(work: Workload, runtime: Runtime) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmark.mp4"
        options = ("--runtime", runtime.name, "--precision", runtime.precision)
        command = render_command(work.text, path, "--steps", work.settings.steps, *options)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _render(engine: Engine, work: Workload, sink: FrameSink) -> None:
    job = engine.submit("benchmark", work.timeline, work.settings, sink)
    engine.run()
    if job.error is not None:
        raise job.error


def _label(runtime: Runtime) -> str:
    return f"{runtime.name} {runtime.precision}"


if __name__ == "__main__":
    main()
