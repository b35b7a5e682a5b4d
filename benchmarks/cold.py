"""Cold start: how long the real command line takes from its start to a first frame and a file."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks.report import Summary, print_table, to_dicts
from benchmarks.workload import Workload

COMMAND = Path(sys.executable).with_name("giffusion")


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Seconds from the start of the process, with its files in the page cache.

    Args:
        first_frame_s: until the tick that finished the first frames, a batch of them, was reported.
        closed_s: until the file was finished and published.
        exit_s: until the process had ended.
    """

    first_frame_s: float
    closed_s: float
    exit_s: float


def render_command(prompts: str, output: Path, *options: object) -> list[str]:
    """Returns the words of a `giffusion render` that prints JSON lines."""
    words = [str(option) for option in options]
    return [str(COMMAND), "render", "--prompts", prompts, "-o", str(output), "--json", *words]


def cold_start(prompts: str, output: Path, *options: object) -> ColdStart:
    """Renders once in a process of its own.

    Raises:
        RuntimeError: the command failed.
    """
    events: dict[str, float] = {}
    began = time.perf_counter()
    command = render_command(prompts, output, "--force", *options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("done") != 0:  # a bar at its start is no frame
                events.setdefault(event["event"], time.perf_counter() - began)
    exit_s = time.perf_counter() - began
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {process.returncode}")
    return ColdStart(events["progress"], events["done"], exit_s)


def run_time(words: Sequence[str]) -> float:
    """Returns the seconds that `giffusion WORDS` takes."""
    began = time.perf_counter()
    subprocess.run([COMMAND, *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def cold_starts(
    work: Workload, path: Path, runtimes: Sequence[tuple[str, str]], repeats: int
) -> dict[str, object]:
    """Starts the command line on every runtime in turn, and prints a table.

    The first round, which fills the page cache, is not counted.

    Args:
        work: what to render.
        path: the file that is written, again and again.
        runtimes: names and precisions.
        repeats: counted rounds.
    """
    settings = ("--steps", work.settings.steps, "--guidance", work.settings.guidance)
    starts: dict[str, list[ColdStart]] = {f"{name} {p}": [] for name, p in runtimes}
    helps = [run_time(["--help"]) for _ in range(repeats + 1)][1:]
    for repeat in range(repeats + 1):
        for name, precision in runtimes:
            chosen = ("--runtime", name, "--precision", precision, *settings)
            start = cold_start(work.text, path, *chosen)
            if repeat:
                starts[f"{name} {precision}"].append(start)
    summaries = {name: _summarise(of_runtime) for name, of_runtime in starts.items()}
    title = f"Cold start; giffusion --help takes {Summary.of(helps)} s"
    header = ["giffusion render, s", "first frame", "closed file", "exit"]
    print_table(title, header, [[name, *s.values()] for name, s in summaries.items()])
    return {"help": Summary.of(helps).to_dict()} | {
        name: to_dicts(s) for name, s in summaries.items()
    }


def _summarise(starts: Sequence[ColdStart]) -> dict[str, Summary]:
    names = [field.name for field in fields(ColdStart)]
    return {name: Summary.of([getattr(start, name) for start in starts]) for name in names}
