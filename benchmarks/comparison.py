"""Contestants side by side: their agreement, their figures and the ratios, as tables and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import check, compare
from benchmarks.figures import FIGURES, Profile, Values
from benchmarks.limits import Cost, Limit
from benchmarks.report import Summary, print_table, ratios, to_dicts
from benchmarks.workload import Contestant, Keep, Workload

Json = dict[str, object]


def agree(contestants: Sequence[Contestant], reference: Contestant) -> Json:
    """Renders everything once and compares it; also everyone's warm-up.

    Returns:
        Each contestant's agreement with the reference.

    Raises:
        RuntimeError: a contestant in fp32 makes other pictures.
    """
    expected = _frames(reference)
    agreements = {c.name: compare(_frames(c), expected) for c in contestants}
    rows = [
        [name, f"{a.mean_levels:.4f}", a.max_levels, f"{a.psnr_db:.1f}" if a.psnr_db else "equal"]
        for name, a in agreements.items()
    ]
    header = [f"pictures against {reference.name}", "mean", "largest", "PSNR dB"]
    print_table("Differences in steps of 8-bit colour", header, rows)
    check({c.name: agreements[c.name] for c in contestants if c.precision == "fp32"})
    return {name: asdict(agreement) for name, agreement in agreements.items()}


def figures(
    contestants: Sequence[Contestant],
    values: Values,
    work: Workload,
    cost: Cost,
    limits: Mapping[str, Limit],
) -> Json:
    """Prints and returns every figure with its TFLOP/s and its share of the CPU's limit."""
    operations = {"denoise": cost.row, "frames": cost.frame(work), "file": cost.frame(work)}
    result: Json = {}
    for figure, title in FIGURES.items():
        rows: list[list[object]] = []
        entries: Json = {}
        for contestant in contestants:
            summary = Summary.of(values[figure][contestant.name])
            tflops = summary.median * operations[figure] / 1e12
            share = tflops / limits[contestant.precision].tflops
            rows.append([contestant.name, summary, f"{tflops:.3f}", f"{share:.0%}"])
            rates: Json = {"tflops": round(tflops, 5), "share_of_limit": round(share, 5)}
            entries[contestant.name] = rates | summary.to_dict()
        print_table(title, ["contestant", "median [range]", "TFLOP/s", "of limit"], rows)
        result[figure] = entries
    for precision, limit in limits.items():
        print(f"limit {precision}: {limit.tflops:.3f} TFLOP/s, matmul by {limit.by}")
    return result


def all_ratios(ours: Sequence[Contestant], peers: Sequence[Contestant], values: Values) -> Json:
    """Prints and returns how much faster each of ours is than each peer, by figure."""
    result: Json = {}
    for figure, title in FIGURES.items():
        of_figure = values[figure]
        entries = {
            our.name: {p.name: ratios(of_figure[our.name], of_figure[p.name]) for p in peers}
            for our in ours
        }
        header = [title, *(f"over {peer.name}" for peer in peers)]
        rows = [[name, *of_peers.values()] for name, of_peers in entries.items()]
        print_table("Ratios of what was measured in the same repeat", header, rows)
        result[figure] = {name: to_dicts(of_peers) for name, of_peers in entries.items()}
    return result


def profiles(of_engines: Mapping[str, Profile]) -> Json:
    """Prints and returns where each engine's time goes."""
    shares = {name: asdict(profile) for name, profile in of_engines.items()}
    header = ["time to a closed file", *next(iter(shares.values()))]
    rows = [[name, *(f"{share:.1%}" for share in s.values())] for name, s in shares.items()]
    print_table("Where the time goes", header, rows)
    return {
        name: {part: round(share, 5) for part, share in s.items()} for name, s in shares.items()
    }


def _frames(contestant: Contestant) -> list[NDArray[np.uint8]]:
    sink = Keep()
    contestant.render(sink)
    return sink.frames
