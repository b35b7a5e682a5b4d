"""`python -m benchmarks.memory`: whether ten times the frames take more memory.

Renders short and long jobs with few steps, each by the real command line in a fresh process, and
compares the peaks of resident memory that the kernel counted (VmHWM).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import machine, write_result
from benchmarks.report import output_path, parser, print_table
from benchmarks.workload import key_frames

FORMATS = ("mp4", "gif")
NUM_FRAMES = (200, 2000)
QUICK_FRAMES = (10, 20)
OPTIONS = ("--steps", "2", "--guidance", "1", "--size", "128x128")
_CHILD = "--child"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmark."""
    options = parser("memory", "Compares the peak memory of renders.").parse_args(arguments)
    lengths = QUICK_FRAMES if options.quick else NUM_FRAMES
    found = machine()
    rows: list[list[object]] = []
    peaks: dict[str, dict[str, float]] = {}
    for extension in FORMATS:
        short, long = (_peak_bytes(num_frames, extension) for num_frames in lengths)
        ratio = long / short
        peaks[extension] = {"short_bytes": short, "long_bytes": long, "ratio": round(ratio, 4)}
        rows.append([extension, f"{short / 2**20:.1f}", f"{long / 2**20:.1f}", f"{ratio:.3f}"])
    header = ["peak resident memory, MiB", *(f"{n} frames" for n in lengths), "ratio"]
    print_table("Memory", header, rows)
    settings = {"num_frames": lengths, "options": OPTIONS}
    result = {"benchmark": "memory", "machine": found, "settings": settings, "peaks": peaks}
    write_result(output_path("memory", options), result)


def _peak_bytes(num_frames: int, extension: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"benchmark.{extension}"
        command = [sys.executable, "-m", "benchmarks.memory", _CHILD, str(num_frames), str(output)]
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
    return int(done.stdout.splitlines()[-1])


def _child(num_frames: int, output: str) -> None:
    """Renders in this process and prints its peak of resident memory, in bytes."""
    from giffusion.server.cli import main as giffusion

    words = ["render", "--prompts", key_frames(num_frames), "-o", output, "--json", *OPTIONS]
    if giffusion(words) != 0:
        sys.exit("the render failed")
    # Unlike getrusage's, this peak belongs to the program and not to the one that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = re.search(r"(?m)^VmHWM:\s*(\d+) kB$", status)
    if peak is None:
        sys.exit("the system does not count VmHWM: this benchmark needs Linux")
    print(1024 * int(peak[1]))


if __name__ == "__main__":
    if sys.argv[1:2] == [_CHILD]:
        _child(int(sys.argv[2]), sys.argv[3])
    else:
        main()
