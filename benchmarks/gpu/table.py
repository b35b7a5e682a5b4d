"""Measuring a row of the GPU table in turn, and its results as tables and JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.agreement import check, compare
from benchmarks.gpu.columns import COMPILE, EAGER, LAUNCHED, Entry
from benchmarks.gpu.contest import FIGURES, Contestant, Job, check_file, open_file, write_file
from benchmarks.gpu.machine import limit_tflops
from benchmarks.gpu.networks import Cost
from benchmarks.report import Summary, print_table, ratios, to_dicts
from benchmarks.workload import Keep
from giffusion.engine.frames import PixelFormat

Json = dict[str, object]
Values = dict[str, dict[str, list[float]]]
"""Of each figure and contestant, one value a repeat."""
WARM_UP_TICKS = 10
BASES = (EAGER, COMPILE, LAUNCHED)
"""Columns that others are compared with."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How long is measured.

    Args:
        repeats: of every figure.
        graph_s: that a graph alone runs for.
        render_s: that a render is to take, about.
        agreement_frames: pictures that are compared.
    """

    repeats: int = 5
    graph_s: float = 0.3
    render_s: float = 1.0
    agreement_frames: int = 4

    def measuring_s(self, batch_s: float) -> float:
        """Returns the seconds that a contestant is measured for, about, its warm-up included.

        Args:
            batch_s: seconds that it takes for a batch of frames.
        """
        rounds = 1.2 * (self.repeats + 1)
        return rounds * 2 * (self.graph_s + max(self.render_s, batch_s))


def measured(job: Job, entries: Sequence[Entry], cost: Cost, scale: Scale) -> Json:
    """Compares, warms up, measures and prints a row; nothing where nobody is there.

    Raises:
        RuntimeError: contestants in fp32 do not make the same pictures.
    """
    if not entries:
        return {}
    agreements = agreement(job, entries, scale)
    lengths = run_lengths(job, entries, scale)
    values = measure(job, entries, lengths, scale)
    rendering = [e.contestant for e in entries if "file" in e.contestant.figures]
    encoder = {}
    if rendering:
        length = lengths[rendering[-1].name]
        encoder["encoder_frames_per_s"] = round(encoder_rate(job, rendering[-1], length), 2)
        print(f"software encoder alone: {encoder['encoder_frames_per_s']} frames/s")
    return {
        "contestants": {
            entry.contestant.name: {
                "column": entry.column,
                "frames_held": entry.contestant.frames,
                "frames_rendered": lengths.get(entry.contestant.name),
                "frames_on_device": entry.contestant.on_device,
                "cold_s": asdict(entry.cold),
            }
            for entry in entries
        },
        "agreement": agreements,
        "figures": figures(values, cost),
        "ratios": comparisons(values, entries),
        "graphs_share_of_file": overheads(job, values),
        **encoder,
    }


def agreement(job: Job, entries: Sequence[Entry], scale: Scale) -> Json:
    """Compares what contestants render, and refuses to time others in fp32 that differ.

    The reference is diffusers, or the first that renders where it is not among them.

    Raises:
        RuntimeError: pictures in fp32 differ.
    """
    rendering = [entry for entry in entries if "file" in entry.contestant.figures]
    if not rendering:
        return {}
    reference = next((e for e in rendering if e.column == EAGER), rendering[0])
    num_frames = min(scale.agreement_frames, job.row.max_frames)
    pictures = {entry.contestant.name: Keep() for entry in rendering}
    for entry in rendering:
        entry.contestant.render(pictures[entry.contestant.name], num_frames)
    expected = pictures[reference.contestant.name].frames
    agreements = {name: compare(kept.frames, expected) for name, kept in pictures.items()}
    rows = [
        [name, f"{a.mean_levels:.4f}", a.max_levels, f"{a.psnr_db:.1f}" if a.psnr_db else "equal"]
        for name, a in agreements.items()
    ]
    header = [f"against {reference.contestant.name}", "mean", "largest", "PSNR dB"]
    print_table("Differences in steps of 8-bit colour", header, rows)
    if job.networks.precision == "fp32":
        check(agreements)
    return {name: asdict(found) for name, found in agreements.items()}


def run_lengths(job: Job, entries: Sequence[Entry], scale: Scale) -> dict[str, int]:
    """Warms every contestant up, and returns how many frames its renders are to have."""
    lengths = {}
    for entry in entries:
        contestant, row = entry.contestant, job.row
        contestant.denoise_rate(scale.graph_s)
        contestant.decode_rate(scale.graph_s)
        if "device" not in contestant.figures:
            continue
        held = contestant.frames
        for _ in range(math.ceil(WARM_UP_TICKS / row.steps)):
            contestant.to_device(held)
        began = time.perf_counter()
        contestant.to_device(held)
        wanted = scale.render_s / (time.perf_counter() - began) * held
        # Whole batches, so that no rest is timed that a longer render has only once.
        lengths[contestant.name] = min(max(1, round(wanted / held)) * held, row.max_frames)
    return lengths


def measure(job: Job, entries: Sequence[Entry], lengths: Mapping[str, int], scale: Scale) -> Values:
    """Measures all figures; each repeat has every contestant in turn."""
    values: Values = {
        figure: {e.contestant.name: [] for e in entries if figure in e.contestant.figures}
        for figure in FIGURES
    }
    for repeat in range(scale.repeats):
        print(f"repeat {repeat + 1} of {scale.repeats}", flush=True)
        for figure, of_contestants in values.items():
            for entry in entries:
                if (name := entry.contestant.name) in of_contestants:
                    length = lengths.get(name, 0)
                    of_contestants[name].append(_one(figure, job, entry, length, scale))
    return values


def encoder_rate(job: Job, contestant: Contestant, num_frames: int) -> float:
    """Returns the frames a second of the software encoder alone, on a contestant's frames."""
    kept = Keep(PixelFormat.NV12)
    contestant.render(kept, num_frames)
    began = time.perf_counter()
    with open_file(job, num_frames, on_device=False) as writer:
        for index, frame in enumerate(kept.frames):
            writer.write(index, frame)
    return num_frames / (time.perf_counter() - began)


def figures(values: Values, cost: Cost) -> Json:
    """Prints and returns every figure with its TFLOP/s and its share of the GPU's limit."""
    operations = {
        "denoise": cost.row,
        "decode": cost.frame_decode,
        "device": cost.frame,
        "file": cost.frame,
    }
    limit, result = limit_tflops(), dict[str, object]()
    for figure, text in FIGURES.items():
        rows: list[list[object]] = []
        entries: Json = {}
        for name, of_contestant in values[figure].items():
            summary = Summary.of(of_contestant)
            tflops = summary.median * operations[figure] / 1e12
            share = None if limit is None else tflops / limit
            rows.append([name, summary, f"{tflops:.4g}", "-" if share is None else f"{share:.0%}"])
            rates: Json = {
                "tflops": round(tflops, 4),
                "share_of_limit": None if share is None else round(share, 4),
            }
            entries[name] = rates | summary.to_dict() | {"values": of_contestant}
        print_table(text, ["contestant", "median [range]", "TFLOP/s", "of limit"], rows)
        result[figure] = entries
    return result


def comparisons(values: Values, entries: Sequence[Entry]) -> Json:
    """Prints and returns how much faster each is than diffusers and than launching kernels.

    Those of one frame are compared, and those of each column's best batch.
    """
    result: Json = {}
    best = {entry.column: entry.contestant.name for entry in entries}
    single = {e.column: e.contestant.name for e in entries if e.contestant.frames == 1}
    for label, names in (("batch 1", single), ("best batch", best)):
        for figure, text in FIGURES.items():
            of_figure = {c: values[figure][n] for c, n in names.items() if n in values[figure]}
            table = {
                mine: {
                    other: ratios(of_figure[mine], of_figure[other])
                    for other in BASES
                    if other in of_figure and other != mine
                }
                for mine in of_figure
                if mine != EAGER
            }
            rows = [
                [f"{mine} over {other}", ratio]
                for mine, of_others in table.items()
                for other, ratio in of_others.items()
            ]
            if rows:
                print_table(f"Ratios at {label}: {text}", ["", "median [range]"], rows)
            result[f"{figure} at {label}"] = {n: to_dicts(others) for n, others in table.items()}
    return result


def overheads(job: Job, values: Values) -> Json:
    """Prints and returns what share of the time to a closed file the graphs alone would take."""
    result: Json = {}
    evaluations = job.row.rows_per_frame * job.row.steps
    for name, rates in values["file"].items():
        parts = zip(values["denoise"][name], values["decode"][name], rates, strict=True)
        result[name] = [
            round(file * (evaluations / denoise + 1 / decode), 4) for denoise, decode, file in parts
        ]
    rows = [[name, Summary.of(shares)] for name, shares in result.items()]  # type: ignore[arg-type]
    print_table("Graphs' own time in the time to a closed file", ["contestant", "share"], rows)
    return result


def _one(figure: str, job: Job, entry: Entry, num_frames: int, scale: Scale) -> float:
    contestant = entry.contestant
    if figure == "denoise":
        return contestant.denoise_rate(scale.graph_s)
    if figure == "decode":
        return contestant.decode_rate(scale.graph_s)
    began = time.perf_counter()
    if figure == "device":
        contestant.to_device(num_frames)
    else:
        write_file(job, contestant, num_frames)
    elapsed_s = time.perf_counter() - began
    if figure == "file":
        check_file(job, contestant, num_frames)
    return num_frames / elapsed_s
