"""`python -m benchmarks.gpu`: the whole table of GPU figures, one command, one JSON.

Rows are workloads of real shapes with random weights, columns are diffusers and the engine on its
runtimes, each at one frame and at its best batch. A column or batch that is not measured is in the
result with its reason. The result is written after every row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import torch
import transformers

from benchmarks.gpu.columns import (
    COMPILE,
    EAGER,
    LAUNCHED,
    OPENING_S,
    TORCH,
    Entry,
    Make,
    SkipError,
    best_batch,
    columns,
    maker,
    opened,
    release,
    skipping,
    title,
)
from benchmarks.gpu.contest import FIGURES, Job, make_job
from benchmarks.gpu.machine import gpu_machine, limit_tflops, result_path
from benchmarks.gpu.networks import Networks
from benchmarks.gpu.ours import UNRENDERED
from benchmarks.gpu.rows import QUICK_ROWS, ROWS, Row
from benchmarks.gpu.table import Json, Scale, measured
from benchmarks.machine import write_result

DEFAULT_COLUMNS = (EAGER, TORCH, LAUNCHED, "tensorrt", "tensorrt-rtx", COMPILE)
BUDGET_S = 570.0
ROW_S = 150.0
"""Seconds that a compilation leaves to every row after it; a guess."""
_QUICK = Scale(repeats=2, graph_s=0.02, render_s=0.05, agreement_frames=2)


@dataclass(frozen=True, slots=True)
class Clock:
    """How much of the time that the benchmark may take is left.

    Args:
        deadline: when everything is to be done, by `time.perf_counter`.
        budget_s: what was given.
        scale: how long is measured.
    """

    deadline: float
    budget_s: float
    scale: Scale

    def left_s(self, row: Row, column: str, entries: Sequence[Entry], rows_after: int) -> float:
        """Returns the seconds in which a column has to be opened.

        What is set aside for measuring it and those that are open, and for a compilation what
        later rows take, is not among them.

        Raises:
            SkipError: they are fewer than it takes.
        """
        each = [self.scale.measuring_s(entry.batch_s) for entry in entries]
        aside_s = sum(each) + 2 * max(each, default=self.scale.measuring_s(0.0))
        if column == COMPILE:
            aside_s += rows_after * ROW_S
        left_s = self.deadline - time.perf_counter() - aside_s
        if left_s < OPENING_S.get(column, 0.0):
            raise SkipError(
                f"{left_s + aside_s:.0f} s of {self.budget_s:.0f} were left, {aside_s:.0f} of them "
                f"for measuring: python -m benchmarks.gpu --rows {row.key} --columns {column}"
            )
        return left_s


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = _options(arguments)
    began = time.perf_counter()
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not options.quick:
        raise SystemExit("torch finds no CUDA device: run on one, or give --quick for small shapes")
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    device, precision = ("cuda", "fp16") if on_gpu else ("cpu", "fp32")
    scale = _QUICK if options.quick else Scale(repeats=options.repeats)
    clock = Clock(began + options.budget_s, options.budget_s, scale)
    chosen = [r for r in (QUICK_ROWS if options.quick else ROWS) if r.key in options.rows]
    result: Json = {
        "benchmark": "gpu",
        "machine": gpu_machine(),
        "settings": {
            "quick": options.quick,
            "precision": precision,
            "weights": "random in every row",
            "limit_tflops": limit_tflops(),
            **asdict(scale),
        },
    }
    print(f"weights are random in every row: {', '.join(row.title for row in chosen)}")
    output = _output(options)
    rows = _earlier_rows(output, result)
    for number, row in enumerate(chosen):
        rows_after = len(chosen) - number - 1
        rows[row.key] = _row(row, device, precision, options.columns, clock, rows_after)
        release()
        write_result(output, result | {"rows": rows})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description="Measures the engine and diffusers on a GPU."
    )
    keys = [row.key for row in ROWS]
    made.add_argument("--rows", nargs="+", choices=keys, default=keys, help="default: all")
    made.add_argument(
        "--columns",
        nargs="+",
        choices=columns(),
        help=f"default: {' '.join(DEFAULT_COLUMNS)}; with --quick: {EAGER} {TORCH}",
    )
    made.add_argument("--repeats", type=int, default=5, help="of every figure (default: 5)")
    made.add_argument(
        "--budget-s",
        type=float,
        default=BUDGET_S,
        help=f"seconds that all may take, about; the rest is skipped (default: {BUDGET_S:.0f})",
    )
    made.add_argument("--quick", action="store_true", help="small shapes, also on the CPU")
    made.add_argument(
        "--output",
        type=Path,
        help=f"result file (default: results/{result_path().name}; none with --quick)",
    )
    options = made.parse_args(arguments)
    # Compiled last, since how long it takes is not known.
    wanted = options.columns or ((EAGER, TORCH) if options.quick else DEFAULT_COLUMNS)
    options.columns = sorted(wanted, key=lambda column: column == COMPILE)
    return options


def _output(options: argparse.Namespace) -> Path | None:
    if options.output is not None:
        return Path(options.output)
    return None if options.quick else result_path()


def _earlier_rows(output: Path | None, result: Json) -> dict[str, Json]:
    """Returns the rows of the file, where it is of the same machine, versions and settings."""
    if output is None or not output.is_file():
        return {}
    earlier = json.loads(output.read_text(encoding="utf-8"))
    if _made_by(earlier) != _made_by(json.loads(json.dumps(result))):
        return {}
    rows: dict[str, Json] = earlier["rows"]
    print(f"kept from an earlier run, unless measured again: {', '.join(rows)}")
    return rows


def _made_by(result: Json) -> tuple[object, object]:
    machine = result["machine"]
    assert isinstance(machine, dict)
    return {key: machine[key] for key in machine if key != "load"}, result["settings"]


def _row(
    row: Row,
    device: str,
    precision: str,
    wanted: Sequence[str],
    clock: Clock,
    rows_after: int,
) -> Json:
    """Opens a row's columns, measures them in turn, and returns what was found."""
    began = time.perf_counter()
    print(f"\n== {row.title}", flush=True)
    networks = Networks(row, precision, device)
    cost = networks.cost()
    result: Json = {"title": row.title, "weights": "random", "flop": asdict(cost)}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        job = make_job(row, networks, Path(name))
        entries, tuning = _open(job, wanted, clock, rows_after, skipped)
        try:
            with skipping():
                result |= measured(job, entries, cost, clock.scale)
        except SkipError as error:
            skipped["all"] = str(error)
        for entry in entries:
            entry.contestant.close()
    if COMPILE in wanted:
        torch.compiler.reset()  # it keeps what it compiled, and its memory
    for column, reason in skipped.items():
        print(f"skipped: {column}: {reason}")
    return result | {
        "tuning_rows_per_s": tuning,
        "skipped": skipped,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _open(
    job: Job, wanted: Sequence[str], clock: Clock, rows_after: int, skipped: dict[str, str]
) -> tuple[list[Entry], Json]:
    """Opens every column at one frame and at its best batch; notes what is skipped, and why."""
    entries: list[Entry] = []
    tuning: Json = {}
    best: dict[str, int] = {}
    for column in wanted:
        frames, began = 1, time.perf_counter()
        try:
            limit_s = clock.left_s(job.row, column, entries, rows_after)
            make = maker(column, job, (1, *job.row.batches))
            entries.append(_opened(column, make, frames, began, limit_s, skipped))
            if column in (COMPILE, LAUNCHED):
                # Trying batches would compile each; the launched graph is compared with the other.
                like = EAGER if column == COMPILE else TORCH
                best[column] = best.get(like, job.row.batches[-1])
            else:
                best[column], tuning[column] = best_batch(column, make, job)
            frames, began = best[column], time.perf_counter()
            limit_s = clock.left_s(job.row, column, entries, rows_after)
            if frames > 1:
                entries.append(_opened(column, make, frames, began, limit_s, skipped))
        except SkipError as error:
            skipped[f"{title(column)}, batch {frames}"] = str(error)
    return entries, tuning


def _opened(
    column: str, make: Make, frames: int, began: float, limit_s: float, skipped: dict[str, str]
) -> Entry:
    entry = opened(column, make, frames, began, limit_s)
    contestant = entry.contestant
    place = "on the GPU" if contestant.on_device else "copied to the host"
    print(f"open: {contestant.name}, frames {place}: {entry.cold}", flush=True)
    missing = [figure for figure in FIGURES if figure not in contestant.figures]
    if missing:
        skipped[f"{contestant.name}: {', '.join(missing)}"] = UNRENDERED
    return entry


if __name__ == "__main__":
    main()
