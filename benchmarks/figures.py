"""Three figures of every contestant, measured in turn, and where the engine's time goes.

The UNet alone; latents to frames, dropped; latents to a closed MP4 whose frames are then counted.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ours import Ours
from benchmarks.workload import (
    Contestant,
    Discard,
    Keep,
    Workload,
    count_frames,
    open_file,
    write_file,
)
from giffusion.engine.frames import PixelFormat

FIGURES = {
    "denoise": "UNet alone, rows/s",
    "frames": "latents to frames, frames/s",
    "file": "latents to a closed mp4, frames/s",
}
Values = dict[str, dict[str, list[float]]]
"""Of each figure and contestant, one value a repeat."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of the engine's time from the first tick to the closed file; they sum to 1.

    Args:
        denoise: in the denoise graph.
        decode: in the decode graph.
        close: finishing the file after the last frame.
        host: the rest, between graphs.
    """

    denoise: float
    decode: float
    close: float
    host: float


def measure(
    contestants: Sequence[Contestant],
    work: Workload,
    folder: Path,
    *,
    repeats: int,
    window_s: float,
) -> Values:
    """Measures all figures; each repeat has every contestant in turn.

    Args:
        contestants: warmed up, of different names.
        work: what they render.
        folder: where files are written.
        repeats: values of each.
        window_s: least time that the UNet is run for.
    """
    values: Values = {figure: {c.name: [] for c in contestants} for figure in FIGURES}
    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", flush=True)
        for figure, of_contestants in values.items():
            for contestant in contestants:
                value = _measure_one(figure, contestant, work, folder, window_s)
                of_contestants[contestant.name].append(value)
    return values


def encode_rate(contestant: Contestant, work: Workload, path: Path) -> float:
    """Returns the frames a second of the encoder alone, to a closed file, on rendered frames."""
    kept = Keep(PixelFormat.NV12)
    contestant.render(kept)
    began = time.perf_counter()
    with open_file(work, path) as writer:
        for index, frame in enumerate(kept.frames):
            writer.write(index, frame)
    return work.num_frames / (time.perf_counter() - began)


def profile(ours: Ours, work: Workload, path: Path) -> Profile:
    """Renders once to a file and says where the time went."""
    before = ours.stats
    with open_file(work, path) as writer:
        began = time.perf_counter()
        ours.render(writer)
        rendered_s = time.perf_counter() - began
    total_s = time.perf_counter() - began
    denoise_s = ours.stats.denoise_s - before.denoise_s
    decode_s = ours.stats.decode_s - before.decode_s
    return Profile(
        denoise_s / total_s,
        decode_s / total_s,
        (total_s - rendered_s) / total_s,
        (rendered_s - denoise_s - decode_s) / total_s,
    )


def _measure_one(
    figure: str, contestant: Contestant, work: Workload, folder: Path, window_s: float
) -> float:
    if figure == "denoise":
        return contestant.denoise_rate(window_s)
    path = folder / "benchmark.mp4"
    began = time.perf_counter()
    if figure == "frames":
        contestant.render(Discard())
    else:
        write_file(contestant, work, path)
    elapsed_s = time.perf_counter() - began
    if figure == "file" and (found := count_frames(path)) != work.num_frames:
        raise RuntimeError(f"{contestant.name} wrote {found} frames: expected {work.num_frames}")
    return work.num_frames / elapsed_s
