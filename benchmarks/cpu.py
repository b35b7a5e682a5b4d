"""`python -m benchmarks.cpu`: the engine against diffusers on the CPU, text to closed MP4.

Checks first that all contestants make the same pictures. Then every repeat runs all of them in
turn, and ratios are taken within a repeat, so that a machine that slows down slows all alike.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path

from benchmarks import comparison, limits
from benchmarks.cold import cold_starts
from benchmarks.figures import encode_rate, measure, profile
from benchmarks.machine import machine, write_result
from benchmarks.ours import Ours, works
from benchmarks.peers import Diffusers, conditions
from benchmarks.report import output_path, parser
from benchmarks.tuning import best_batch, tune_peer
from benchmarks.workload import Contestant, Workload, make_workload
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.settings import DEFAULT_BATCH

RUNTIMES = (("openvino", "bf16"), ("openvino", "fp32"), ("onnxruntime", "fp32"))
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Args:
        repeats: of every figure.
        batches: frames that the batches hold which are tried.
        window_s: least time that a graph or product is run for.
        sides: of the square matrices that find the limit.
        cold_repeats: starts of the command line.
    """

    repeats: int = 5
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    window_s: float = 2.0
    sides: tuple[int, ...] = (512, 1024, 2048, 4096)
    cold_repeats: int = 5


_QUICK = Scale(repeats=1, batches=(1, 4), window_s=0.2, sides=(512,), cold_repeats=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = _options(arguments)
    found = machine()
    scale = replace(_QUICK if options.quick else Scale(), repeats=options.repeats)
    work = make_workload(options.frames, steps=options.steps)
    peers = [Diffusers(work, precision) for precision in PRECISIONS]
    cost = limits.count(work, peers[0].pipeline)
    bounds = _limits(scale)
    runtimes = [pair for pair in RUNTIMES if works(*pair)]
    ours, tuning = _tune(work, peers, runtimes, scale)
    everyone: list[Contestant] = [*ours, *peers]
    agreements = comparison.agree(everyone, reference=peers[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "benchmark.mp4"
        values = measure(everyone, work, folder, repeats=scale.repeats, window_s=scale.window_s)
        # Once more at the end, since other work may have held the machine back at the start.
        bounds = {
            p: max(bounds[p], after, key=attrgetter("tflops"))
            for p, after in _limits(scale).items()
        }
        result = {
            "benchmark": "cpu",
            "machine": found,
            "settings": _settings(work, scale),
            "flop": asdict(cost),
            "limits": {name: asdict(bound) for name, bound in bounds.items()},
            "tuning_frames_per_s": tuning,
            "agreement": agreements,
            "figures": comparison.figures(everyone, values, work, cost, bounds),
            "ratios": comparison.all_ratios(ours, peers, values),
            "encoder_frames_per_s": encode_rate(ours[0], work, path),
            "shares": comparison.profiles({o.name: profile(o, work, path) for o in ours}),
            "cold_start_s": cold_starts(work, path, runtimes, scale.cold_repeats),
        }
    print(f"encoder alone: {result['encoder_frames_per_s']:.0f} frames/s")
    write_result(output_path("cpu", options), result)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser("cpu", "Compares the engine with diffusers on the CPU.")
    made.add_argument("--frames", type=int, help="frames of the job (default: 61; 9 with --quick)")
    made.add_argument("--steps", type=int, help="steps a frame (default: 12; 4 with --quick)")
    made.add_argument("--repeats", type=int, help="of every figure (default: 5; 1 with --quick)")
    options = made.parse_args(arguments)
    options.frames = options.frames or (9 if options.quick else 61)
    options.steps = options.steps or (4 if options.quick else 12)
    options.repeats = options.repeats or (1 if options.quick else 5)
    return options


def _limits(scale: Scale) -> dict[str, limits.Limit]:
    return {
        precision: limits.measure(precision, sides=scale.sides, window_s=scale.window_s / 4)
        for precision in PRECISIONS
    }


def _settings(work: Workload, scale: Scale) -> dict[str, object]:
    return {
        "model": work.model.manifest.name,
        "fingerprint": work.model.fingerprint,
        "prompts": work.text,
        "num_frames": work.num_frames,
        "size": work.size,
        "steps": work.settings.steps,
        "sampler": work.settings.sampler,
        "guidance": work.settings.guidance,
        **asdict(scale),
    }


def _tune(
    work: Workload,
    peers: Sequence[Diffusers],
    runtimes: Sequence[tuple[str, str]],
    scale: Scale,
) -> tuple[list[Ours], dict[str, float]]:
    tuning: dict[str, float] = {}
    given = conditions(work, peers[0].pipeline)
    for peer in peers:
        peer.prepare(given)
        tuning |= tune_peer(peer, work, scale.batches)
    ours: list[Ours] = []
    for runtime, precision in runtimes:
        ours += _tune_ours(work, runtime, precision, given[0], scale, tuning)
    return ours, tuning


def _tune_ours(
    work: Workload,
    runtime: str,
    precision: str,
    example: Condition,
    scale: Scale,
    tuning: dict[str, float],
) -> list[Ours]:
    def make(batch: int) -> Ours:
        return Ours(work, runtime, precision, batch, example)

    best, rates = best_batch(make, work, scale.batches)
    tuning |= rates
    return [make(batch) for batch in sorted({DEFAULT_BATCH, best})]


if __name__ == "__main__":
    main()
