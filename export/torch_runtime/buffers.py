"""The tensors of a graph at fixed addresses, and what was written to them and is not yet there.

`graph.py` has one `Buffer` for each tensor and one `Staging` for its inputs.
The invariant: pinned memory that the device may still be reading is never written to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from giffusion.engine.contract import TensorSpec
from giffusion.engine.runtimes.base import Array, Index
from giffusion.engine.runtimes.cuda.staging import Range, merged
from giffusion.export.torch_runtime.device import CudaDevice, Event, Stream

TORCH_DTYPES = {"float32": torch.float32, "int32": torch.int32, "uint8": torch.uint8}


class Buffer:
    """One tensor in device memory, as large as it ever gets.

    Smaller shapes are views of its first values, so that they have the same address, and entries
    along an axis that alone changes stay where they are.

    Args:
        device: where it lies.
        spec: the tensor.
        axes: the largest size of every named axis.

    Attributes:
        tensor: the values in the present shape.
    """

    def __init__(self, device: CudaDevice, spec: TensorSpec, axes: Mapping[str, int]) -> None:
        self._spec = spec
        self._flat = device.zeros(math.prod(spec.resolve(axes)), TORCH_DTYPES[spec.dtype])
        self.resize(axes)

    def resize(self, axes: Mapping[str, int]) -> None:
        """Views the memory in another shape.

        Raises:
            ValueError: the shape is larger than the memory.
        """
        self.tensor = _viewed(self._flat, self._spec.resolve(axes))

    def entry(self, index: Index | None) -> Tensor:
        """Returns one entry along the leading axes, or all, over the same memory."""
        return self.tensor[... if index is None else index]

    def load(self, source: Tensor, ranges: list[Range]) -> None:
        """Queues copies of ranges of flat host memory to the same places."""
        for start, stop in ranges:
            self._flat[start:stop].copy_(source[start:stop], non_blocking=True)


class Staging:
    """Pinned copies of a graph's inputs, twice: one is written while the other is uploaded.

    Args:
        device: what uploads.
        stream: where uploads are queued.
        inputs: the buffers that are written to.
        specs: their tensors, by name.
        axes: the largest size of every named axis.
    """

    def __init__(
        self,
        device: CudaDevice,
        stream: Stream,
        inputs: Mapping[str, Buffer],
        specs: Mapping[str, TensorSpec],
        axes: Mapping[str, int],
    ) -> None:
        self._device = device
        self._stream = stream
        self._inputs = inputs
        self._specs = specs
        self._sides = tuple(
            {
                name: device.pinned((math.prod(spec.resolve(axes)),), TORCH_DTYPES[spec.dtype])
                for name, spec in specs.items()
            }
            for _ in range(2)
        )
        self._events: list[Event | None] = [None, None]
        self._side = 0
        self._dirty: dict[str, list[Range]] = {}
        self.resize(axes)

    def resize(self, axes: Mapping[str, int]) -> None:
        """Takes values of other shapes from now on; nothing may be waiting to be uploaded."""
        assert not self._dirty
        shapes = {name: spec.resolve(axes) for name, spec in self._specs.items()}
        self._arrays: tuple[dict[str, NDArray[Any]], ...] = tuple(
            {name: _viewed(side[name], shape).numpy() for name, shape in shapes.items()}
            for side in self._sides
        )

    def write(self, name: str, value: Array, index: Index | None) -> None:
        """Notes a value, or one entry along the leading axes, for the next upload."""
        event = self._events[self._side]
        if event is not None:
            event.synchronize()
            self._events[self._side] = None
        array = self._arrays[self._side][name]
        array[... if index is None else index] = value
        self._dirty.setdefault(name, []).append(flat_range(array.shape, index))

    def upload(self) -> None:
        """Queues the upload of what was written since the last one, and of nothing else."""
        if not self._dirty:
            return
        with self._device.use(self._stream):
            for name, ranges in self._dirty.items():
                self._inputs[name].load(self._sides[self._side][name], merged(ranges))
        self._events[self._side] = self._device.record(self._stream)
        self._dirty = {}
        self._side = 1 - self._side


def flat_range(shape: tuple[int, ...], index: Index | None) -> Range:
    """Returns where an entry along the leading axes begins and ends in flat memory."""
    places = () if index is None else index if isinstance(index, tuple) else (index,)
    place = 0
    for size, axis_place in zip(shape, places, strict=False):
        place = place * size + axis_place % size
    count = math.prod(shape[len(places) :])
    return place * count, (place + 1) * count


def _viewed(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    if count > len(flat):
        raise ValueError(f"shape {shape} has more than the {len(flat)} values that were loaded")
    return flat[:count].view(shape)
