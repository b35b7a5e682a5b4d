"""What an engine has done so far, in frames, rows and seconds.

`pipeline.py` counts; front ends and benchmarks read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class EngineStats:
    """Totals since the engine was made.

    Args:
        num_frames: frames decoded.
        num_ticks: denoise runs.
        num_full_ticks: those of them at which frames were waiting: all but the last drain.
        rows_busy: rows that held a condition, summed over all ticks.
        rows_busy_full: the same, summed over the full ticks.
        denoise_s: seconds inside the denoise graph; on a device, queueing it.
        decode_s: seconds inside the decode graph; on a device, queueing it.
        wait_s: seconds of waiting for a device's frames.
    """

    num_frames: int = 0
    num_ticks: int = 0
    num_full_ticks: int = 0
    rows_busy: int = 0
    rows_busy_full: int = 0
    denoise_s: float = 0.0
    decode_s: float = 0.0
    wait_s: float = 0.0

    @contextmanager
    def timed(self, total: str) -> Iterator[None]:
        """Adds the seconds that a block takes to one of the totals, by its name."""
        began = time.perf_counter()
        yield
        setattr(self, total, getattr(self, total) + time.perf_counter() - began)
