"""The batches that tick side by side, each with the decoder of the frames that leave it.

`pipeline.py` has one `Lanes`, and knows no graph besides. A frame stays in the lane that the
scheduler gave it; lanes share nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.batch import DenoiseBatch, Steps
from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.batching.scheduler import Move, Slot
from giffusion.engine.conditions.conditioning import Condition
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model, latent_size
from giffusion.engine.runtimes.base import Fetch, Runtime

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Finished:
    """A frame that took its last step.

    Args:
        slot: where it lies.
        sink: who takes it.
        is_followed: whether the next frame starts from its picture.
    """

    slot: Slot
    sink: FrameSink
    is_followed: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """A decoded frame on its way.

    Args:
        slot: where it lay.
        frame: as its sink takes it.
        picture: in RGB, on the host; None where it is not followed, or where the frame is that.
        is_followed: whether the next frame starts from its picture.
    """

    slot: Slot
    frame: Fetch
    picture: Fetch | None = None
    is_followed: bool = False

    @property
    def done(self) -> bool:
        """Whether `result` would not wait."""
        return self.frame.done and (self.picture is None or self.picture.done)

    def result(self) -> tuple[Frame, NDArray[np.uint8] | None]:
        """Waits for the frame, and for its picture in RGB if the next frame starts from it."""
        frame = self.frame.result()
        if not self.is_followed:
            return frame, None
        picture = frame if self.picture is None else self.picture.result()
        assert isinstance(picture, np.ndarray), "pictures are fetched to the host"
        return frame, picture


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

    def finish(self, frames: Collection[Finished]) -> list[Arrival]:
        """Frees slots and decodes their frames, each as its sink takes it."""
        shares = [[frame for frame in frames if frame.slot.lane == lane] for lane in self._numbers]
        return list(chain.from_iterable(self._side_by_side(Lane.finish, shares)))

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

    def finish(self, frames: Sequence[Finished]) -> list[Arrival]:
        """Frees slots and decodes their frames, each as its sink takes it."""
        starts = range(0, len(frames), self._num_images)
        batches = (frames[start : start + self._num_images] for start in starts)
        return [arrival for batch in batches for arrival in self._decoded(batch)]

    def close(self) -> None:
        """Frees the graphs."""
        self._loaded.close()

    def _decoded(self, frames: Sequence[Finished]) -> list[Arrival]:
        for image, frame in enumerate(frames):
            index = frame.slot.index
            self.denoiser.free(frame.slot)
            self._decode.copy("latents", image, self.denoiser.graph, "state", (index, 0))
        self._decode.run()
        return [self._fetched(image, frame) for image, frame in enumerate(frames)]

    def _fetched(self, image: int, frame: Finished) -> Arrival:
        sink, rgb = frame.sink, PixelFormat.RGB24
        fetch = self._decode.fetch(sink.pixel_format.tensor, image, on_device=sink.on_device)
        if not frame.is_followed or (sink.pixel_format is rgb and not sink.on_device):
            return Arrival(frame.slot, fetch, is_followed=frame.is_followed)
        picture = self._decode.fetch(rgb.tensor, image)
        return Arrival(frame.slot, fetch, picture, is_followed=True)


def decode_batch(runtime: Runtime, num_rows: int) -> int:
    """Returns the pictures that are decoded in one run, of a batch with a number of rows.

    One where the runtime's number is never reached: pictures that nobody needs cost as much.
    """
    return runtime.decode_batch if num_rows >= runtime.decode_batch else 1
