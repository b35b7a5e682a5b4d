"""Whether a device computes the same frame in every slot of the batch.

`giffusion engines verify` calls it on the GPU that the engines are for. What a frame looks like
must not depend on where it lies or on what lies beside it; if it does, an engine is broken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from giffusion.engine.batching.batch import sampler_steps
from giffusion.engine.batching.lanes import Finished, Lane
from giffusion.engine.batching.queues import FrameTask
from giffusion.engine.batching.scheduler import Slot
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.conditions.embedder import PromptEmbedder
from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Runtime

SAMPLER, NUM_STEPS = "euler", 4
PROMPT = "a house by the sea"


class _Sink:
    """Says what frames are read as; nothing is written to it."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def write(self, index: int, frame: object) -> None:
        raise AssertionError("frames are read where they are decoded")


def compare_slots(
    model: Model, runtime: Runtime, *, size: tuple[int, int], batch: int
) -> list[int]:
    """Renders one frame alone, and then in every slot at once.

    Args:
        model: the model.
        runtime: what runs its graphs.
        size: (width, height) in pixels.
        batch: rows of the denoise graph.

    Returns:
        The slots whose frame is not, byte for byte, the one that was rendered alone.
    """
    embedder = PromptEmbedder(model, runtime)
    lane = Lane(model, runtime, size=size, num_rows=batch)
    try:
        condition = Condition(
            initial_noise(1, lane.denoiser.latent_shape),
            embedder.embed(PROMPT)[None],
            np.ones(1, np.float32),
            pooled=embedder.pool(PROMPT)[None] if embedder.pools else None,
        )
        (alone,) = _hashes(lane, condition, model, [0])
        together = _hashes(lane, condition, model, range(batch))
        return [slot for slot, digest in enumerate(together) if digest != alone]
    finally:
        embedder.close()
        lane.close()


def _hashes(lane: Lane, condition: Condition, model: Model, places: Sequence[int]) -> list[str]:
    steps = sampler_steps(model, SAMPLER, NUM_STEPS)
    slots = [Slot(i, (i,), FrameTask("verify", 0, 1, NUM_STEPS)) for i in places]
    for slot in slots:
        lane.denoiser.load(slot, condition, steps, 0)
    for step in range(NUM_STEPS):
        for slot in slots:
            slot.step = step
        lane.denoise(slots)
    fetches = [arrival.frame for arrival in lane.finish([Finished(s, _Sink()) for s in slots])]
    return [hashlib.sha256(np.asarray(fetch.result()).tobytes()).hexdigest() for fetch in fetches]
