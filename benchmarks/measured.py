"""A command in a process of its own: how long it takes, and the memory at its peaks.

The invariant: peaks are those of the process that was started, read from /proc/PID/status, and not
of the one that started it.
"""

from __future__ import annotations

import re
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import IO

PERIOD_S = 0.02
_FIELDS = re.compile(r"(?m)^(VmHWM|RssAnon):\s*(\d+) kB$")


@dataclass(frozen=True, slots=True)
class Measured:
    """What one command took.

    Args:
        seconds: from its start to its end.
        cpu_s: of all cores together, which other work on the machine changes little.
        peak_rss_bytes: the largest resident memory; pages of mapped files count, which the system
            takes back whenever it likes.
        peak_anon_bytes: the largest part of it that belongs to no file, as far as it was seen at
            intervals of `PERIOD_S`.
        lines: what it printed, each with the seconds since its start.
    """

    seconds: float
    cpu_s: float
    peak_rss_bytes: int
    peak_anon_bytes: int
    lines: tuple[tuple[float, str], ...] = field(repr=False)


def run_measured(command: Sequence[object], *, env: Mapping[str, str], cwd: Path) -> Measured:
    """Runs a command to its end.

    Args:
        command: its words.
        env: its environment.
        cwd: where it runs.

    Raises:
        RuntimeError: it failed, with the last that it printed; or the system does not count
            memory as Linux does.
    """
    words = [str(word) for word in command]
    peaks = {"VmHWM": 0, "RssAnon": 0}
    lines: list[tuple[float, str]] = []
    before_s, began = _cpu_s(), time.perf_counter()
    with subprocess.Popen(
        words, env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        reader = Thread(target=_read, args=(process.stdout, lines, began))
        reader.start()
        try:
            while process.poll() is None:
                _sample(process.pid, peaks)
                time.sleep(PERIOD_S)
        finally:
            process.kill()  # one that has ended is left alone
        seconds = time.perf_counter() - began
        reader.join()
    if process.returncode:
        said = lines[-1][1] if lines else "nothing"
        raise RuntimeError(f"{' '.join(words)} exited with {process.returncode}: {said}")
    if not peaks["VmHWM"]:
        raise RuntimeError("the system does not count VmHWM: this benchmark needs Linux")
    cpu_s = _cpu_s() - before_s
    return Measured(seconds, cpu_s, peaks["VmHWM"], peaks["RssAnon"], tuple(lines))


def _cpu_s() -> float:
    """Returns the time of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _read(stream: IO[str], lines: list[tuple[float, str]], began: float) -> None:
    for line in stream:
        lines.append((time.perf_counter() - began, line.rstrip("\n")))


def _sample(pid: int, peaks: dict[str, int]) -> None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return
    for name, kilobytes in _FIELDS.findall(status):
        peaks[name] = max(peaks[name], 1024 * int(kilobytes))
