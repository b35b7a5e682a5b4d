"""`python -m benchmarks.plan`: how long planning takes, and whether memory grows with the frames.

Plans short and long jobs, with a schedule for everything that takes one, each in a fresh process:
the timeline alone, and `giffusion plan`, which prints every frame as JSON. The peer is the shorter
job: memory is flat where their peaks of resident memory (VmHWM) are alike.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, write_result
from benchmarks.report import output_path, parser, print_table

NUM_FRAMES = (10_000, 100_000)
QUICK_FRAMES = (100, 1000)
NUM_KEYS = 50
SCHEDULES = {
    "guidance": "0:(4), max_f:(4+2*sin(t/5))",
    "steps": "12 + 4*sin(t/50)",
    "strength": "0:(0.5), max_f/2:(1), max_f:(0.5)",
    "noise": "1 + 0.05*cos(2*pi*t/fps)",
    "seed": "t/100",
}
_CHILD = "--child"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parser("plan", "Times the planning of long renders.").parse_args(arguments)
    lengths = QUICK_FRAMES if options.quick else NUM_FRAMES
    rows: list[list[object]] = []
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for mode in ("timeline", "command"):
        measured = {num_frames: _measure(mode, num_frames) for num_frames in lengths}
        short = measured[lengths[0]]["peak_bytes"]
        for num_frames, found in measured.items():
            mib = found["peak_bytes"] / 2**20
            ratio = f"{found['peak_bytes'] / short:.3f}"
            rows.append([mode, num_frames, f"{found['seconds']:.2f}", f"{mib:.1f}", ratio])
        figures[mode] = {str(num_frames): found for num_frames, found in measured.items()}
    print_table("Planning", ["", "frames", "seconds", "peak MiB", "ratio"], rows)
    settings = {"num_frames": lengths, "num_keys": NUM_KEYS, "schedules": SCHEDULES}
    result = {"benchmark": "plan", "machine": machine(), "settings": settings, "figures": figures}
    write_result(output_path("plan", options), result)


def _measure(mode: str, num_frames: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.plan", _CHILD, mode, str(num_frames)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    figures: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    return figures


def _child(mode: str, num_frames: int) -> None:
    """Plans in this process, and prints seconds and the peak of memory on standard error."""
    keys = range(0, num_frames, num_frames // NUM_KEYS)
    text = "".join(f"{key}: a cat | a house::0.5 --neg fog --ease in-out\n" for key in keys)
    began = time.perf_counter()
    if mode == "timeline":
        _plan(text, num_frames)
    else:
        _command(text, num_frames)
    seconds = round(time.perf_counter() - began, 4)
    # Unlike getrusage's, this peak belongs to the program and not to the one that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"(?m)^VmHWM:\s*(\d+) kB$", status)
    if peak is None:
        sys.exit("the system does not count VmHWM: this benchmark needs Linux")
    print(json.dumps({"seconds": seconds, "peak_bytes": 1024 * int(peak[1])}), file=sys.stderr)


def _plan(text: str, num_frames: int) -> None:
    from giffusion.engine.settings import RenderSettings
    from giffusion.engine.timelines.timeline import Timeline

    schedules: dict[str, Any] = {**SCHEDULES}
    settings = RenderSettings(num_frames=num_frames, interpolation="sine", **schedules)
    found = sum(1 for _ in Timeline.from_text(text, settings))
    assert found == num_frames


def _command(text: str, num_frames: int) -> None:
    from giffusion.server.cli import main as giffusion

    schedules = [word for name, text in SCHEDULES.items() for word in (f"--{name}", text)]
    words = ["--frames", str(num_frames), "--interpolation", "sine", "--json", *schedules]
    if giffusion(["plan", "--prompts", text, *words]) != 0:
        sys.exit("planning failed")


if __name__ == "__main__":
    if sys.argv[1:2] == [_CHILD]:
        _child(sys.argv[2], int(sys.argv[3]))
    else:
        main()
