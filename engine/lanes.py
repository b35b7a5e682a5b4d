"""The batches that tick side by side, each with the decoder of the frames that leave it.

`pipeline.py` has one `Lanes`, and knows no graph besides. A frame stays in the lane that the
scheduler gave it; lanes share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from giffusion.engine.batch import DenoiseBatch, Steps
from giffusion.engine.conditioning import Condition
from giffusion.engine.jobs import FrameSink
from giffusion.engine.model import Model, latent_size
from giffusion.engine.runtimes.base import Fetch, Runtime
from giffusion.engine.scheduler import Move, Slot

Work = TypeVar("Work")
Result = TypeVar("Result")
Finished = tuple[Slot, FrameSink]
"""A slot whose frame took its last step, and who takes the frame."""


class Lanes:
    """As many batches as the runtime runs side by side.

    Args:
        model: the model to run.
        runtime: what runs it.
        size: (width, height) in pixels.
        num_rows: rows of each batch.
    """

    def __init__(
        self, model: Model, runtime: Runtime, *, size: tuple[int, int], num_rows: int
    ) -> None:
        self._lanes: list[Lane] = []
        with ExitStack() as loaded:
            for _ in range(runtime.num_lanes):
                self._lanes.append(Lane(model, runtime, size=size, num_rows=num_rows))
                loaded.callback(self._lanes[-1].close)
            self._loaded = loaded.pop_all()
        self._numbers = range(runtime.num_lanes)
        self._threads = ThreadPoolExecutor(runtime.num_lanes, "giffusion-lane")
        self.latent_shape = self._lanes[0].denoiser.latent_shape

    @property
    def num_rows(self) -> int:
        """Rows that each batch computes now."""
        return self._lanes[0].denoiser.num_rows

    def load(self, slot: Slot, condition: Condition, steps: Steps, seed: int) -> None:
        """Puts a frame's start into its slot; `seed` is the job's, for step noise."""
        self._lanes[slot.lane].denoiser.load(slot, condition, steps, seed)

    def free(self, slot: Slot) -> None:
        """Empties a slot."""
        self._lanes[slot.lane].denoiser.free(slot)

    def denoise(self, active: Collection[Slot]) -> None:
        """Takes every active slot one step further."""
        shares = [[slot for slot in active if slot.lane == lane] for lane in self._numbers]
        self._side_by_side(Lane.denoise, shares)

    def finish(self, frames: Collection[Finished]) -> list[tuple[Slot, Fetch]]:
        """Frees slots and decodes their frames, each as its sink takes it."""
        shares = [[frame for frame in frames if frame[0].lane == lane] for lane in self._numbers]
        return [pair for pairs in self._side_by_side(Lane.finish, shares) for pair in pairs]

    def resize(self, num_rows: int, moves: Collection[Move]) -> None:
        """Changes the rows and slots of every batch; see `Scheduler.resize`."""
        for number, lane in zip(self._numbers, self._lanes, strict=True):
            lane.denoiser.resize(num_rows, [move for move in moves if move.slot.lane == number])

    def close(self) -> None:
        """Ends the threads and frees the graphs."""
        self._threads.shutdown(cancel_futures=True)
        self._loaded.close()

    def _side_by_side(
        self, work: Callable[[Lane, list[Work]], Result], shares: list[list[Work]]
    ) -> list[Result]:
        """Does work in every lane that has a share of it; waits for all of them."""
        busy = [(lane, share) for lane, share in zip(self._lanes, shares, strict=True) if share]
        if len(busy) == 1:
            return [work(lane, share) for lane, share in busy]
        return list(self._threads.map(lambda pair: work(*pair), busy))


class Lane:
    """One batch and the decoder of the frames that leave it.

    Args:
        model: the model to run.
        runtime: what runs it.
        size: (width, height) in pixels.
        num_rows: rows of the batch.
    """

    def __init__(
        self, model: Model, runtime: Runtime, *, size: tuple[int, int], num_rows: int
    ) -> None:
        height, width = latent_size(size)
        self._num_images = decode_batch(runtime, num_rows)
        path = model.graph_path("decode", runtime.graph_dtype)
        axes = {"images": self._num_images, "h": height, "w": width}
        with ExitStack() as loaded:
            self.denoiser = DenoiseBatch(model, runtime, size=size, num_rows=num_rows)
            loaded.callback(self.denoiser.close)
            self._decode = runtime.load(path, model.spec("decode"), axes)
            loaded.callback(self._decode.close)
            self._loaded = loaded.pop_all()

    def denoise(self, active: Collection[Slot]) -> None:
        """Takes every active slot one step further."""
        self.denoiser.stage(active)
        self.denoiser.graph.run()

    def finish(self, frames: Sequence[Finished]) -> list[tuple[Slot, Fetch]]:
        """Frees slots and decodes their frames, each as its sink takes it."""
        starts = range(0, len(frames), self._num_images)
        batches = (frames[start : start + self._num_images] for start in starts)
        return [pair for batch in batches for pair in self._decoded(batch)]

    def close(self) -> None:
        """Frees the graphs."""
        self._loaded.close()

    def _decoded(self, frames: Sequence[Finished]) -> list[tuple[Slot, Fetch]]:
        for image, (slot, _) in enumerate(frames):
            self.denoiser.free(slot)
            self._decode.copy("latents", image, self.denoiser.graph, "state", (slot.index, 0))
        self._decode.run()
        return [
            (slot, self._decode.fetch(sink.pixel_format.tensor, image, on_device=sink.on_device))
            for image, (slot, sink) in enumerate(frames)
        ]


def decode_batch(runtime: Runtime, num_rows: int) -> int:
    """Returns the pictures that are decoded in one run, of a batch with a number of rows.

    One where the runtime's number is never reached: pictures that nobody needs cost as much.
    """
    return runtime.decode_batch if num_rows >= runtime.decode_batch else 1
