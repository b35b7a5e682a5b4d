"""The best batch, and for peers the best options, found on short runs before anything is compared.

Each setting renders a few frames once to warm up and then twice; the faster run counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from benchmarks.ours import Ours
from benchmarks.peers import OPTIONS, Diffusers
from benchmarks.workload import Contestant, Discard, Workload

MIN_FRAMES = 8
"""Frames of a short run, or a whole batch where that is more."""


def tune_peer(peer: Diffusers, work: Workload, batches: Sequence[int]) -> dict[str, float]:
    """Leaves the peer at its best options and batch; returns all frame rates that were seen.

    Options are tried one after another at a middle batch, then batches, each as the best so far.
    """
    rates: dict[str, float] = {}

    def rate() -> float:
        rates[peer.name] = _rate(peer, work, peer.batch)
        return rates[peer.name]

    peer.configure(())
    peer.batch = batches[len(batches) // 2]
    best = rate()
    for option in OPTIONS:
        before = peer.options
        peer.configure([*before, option])
        if (found := rate()) > best:
            best = found
        else:
            peer.configure(before)
    by_batch = {peer.batch: best}
    for batch in sorted({*batches} - {peer.batch}):
        peer.batch = batch
        by_batch[batch] = rate()
    peer.batch = max(by_batch, key=by_batch.__getitem__)
    return rates


def best_batch(
    make: Callable[[int], Ours], work: Workload, frames: Sequence[int]
) -> tuple[int, dict[str, float]]:
    """Finds the engine's best batch.

    Args:
        make: opens an engine of a number of rows.
        work: what to render.
        frames: numbers of frames that the batches hold.

    Returns:
        Its rows, and all frame rates that were seen.
    """
    by_rows: dict[int, float] = {}
    rates: dict[str, float] = {}
    for held in frames:
        ours = make(held * work.rows_per_frame)
        by_rows[ours.batch] = rates[ours.name] = _rate(ours, work, held)
        ours.close()
    return max(by_rows, key=by_rows.__getitem__), rates


def _rate(contestant: Contestant, work: Workload, batch: int) -> float:
    # Whole batches, so that none is judged by a rest that the real run has only once.
    num_frames = min(-(-MIN_FRAMES // batch) * batch, work.num_frames)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        contestant.render(Discard(), range(num_frames))
        times.append(time.perf_counter() - began)
    rate = num_frames / min(times[1:])
    print(f"tuning: {contestant.name}: {rate:.3g} frames/s", flush=True)
    return rate
