"""Where a graph's tensors lie, and the pinned memory through which the host writes inputs.

Called by `graph.py`. Device buffers and both staging halves have one layout, so a range of bytes
means the same in all of them. The invariant: bytes that the host writes are never bytes whose
upload is still queued, since each half waits for the event behind its last upload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod

import numpy as np

from giffusion.engine.contract import TensorSpec
from giffusion.engine.runtimes.base import Array, Index
from giffusion.engine.runtimes.cuda.resources import Event, PinnedMemory, Resource, Stream

Range = tuple[int, int]
"""Where something begins, and the place behind its end."""
ALIGNMENT = 256
"""Bytes that tensors are aligned to, as TensorRT asks for."""


@dataclass(frozen=True, slots=True)
class Span:
    """A dense part of a graph's memory.

    Args:
        offset: its first byte.
        dtype: type of its values.
        shape: their shape.
    """

    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Its length."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def stop(self) -> int:
        """The byte behind its last."""
        return self.offset + self.num_bytes

    def entry(self, index: Index | None) -> Span:
        """Returns one entry along the leading axes, all of it for None.

        Raises:
            IndexError: there is no such entry.
        """
        span = self
        for position in () if index is None else _as_tuple(index):
            if not span.shape or not 0 <= position < span.shape[0]:
                raise IndexError(f"no entry {index} in a tensor of shape {self.shape}")
            rest = Span(span.offset, self.dtype, span.shape[1:])
            span = Span(span.offset + position * rest.num_bytes, self.dtype, rest.shape)
        return span


def lay_out(tensors: Iterable[TensorSpec], axes: Mapping[str, int]) -> dict[str, Span]:
    """Places tensors one behind the other, aligned.

    Args:
        tensors: what to place.
        axes: the size of every named axis.
    """
    spans, offset = {}, 0
    for tensor in tensors:
        span = Span(offset, np.dtype(tensor.dtype), tensor.resolve(axes))
        spans[tensor.name] = span
        offset = _aligned(span.stop)
    return spans


def total_bytes(spans: Mapping[str, Span]) -> int:
    """Returns the length of the memory that holds all spans with their padding."""
    return max(_aligned(span.stop) for span in spans.values())


class Staging(Resource):
    """Two halves of pinned memory: one is written while the other's upload is queued.

    Args:
        stream: where uploads are queued.
        target: address of the device memory that has the same layout.
        num_bytes: its length.

    Raises:
        DeviceMemoryError: so much memory cannot be pinned.
    """

    def __init__(self, stream: Stream, target: int, num_bytes: int) -> None:
        super().__init__(stream.cuda)
        self._stream = stream
        self._target = target
        with ExitStack() as stack:
            self._halves = [
                (
                    stack.enter_context(PinnedMemory(self.cuda, num_bytes)),
                    stack.enter_context(Event(self.cuda)),
                )
                for _ in range(2)
            ]
            self._owned = stack.pop_all()
        self._dirty: list[Range] = []

    def write(self, span: Span, value: Array, index: Index | None) -> None:
        """Sets a tensor or one entry of it; takes effect on the device at the next `flush`."""
        memory, uploaded = self._halves[0]
        if not self._dirty:
            uploaded.wait()
        entry = span.entry(index)
        place = memory.array[entry.offset : entry.stop].view(entry.dtype).reshape(entry.shape)
        place[...] = value
        # The padding belongs to nobody: taken along, it joins the ranges of neighbours.
        stop = _aligned(entry.stop) if entry.stop == span.stop else entry.stop
        self._dirty.append((entry.offset, stop))

    def touches(self, span: Span) -> bool:
        """Whether some of a tensor was written since the last `flush`."""
        return any(start < span.stop and span.offset < stop for start, stop in self._dirty)

    def flush(self) -> None:
        """Queues the upload of what was written since the last one, and of nothing else."""
        if not self._dirty:
            return
        memory, uploaded = self._halves[0]
        for start, stop in merged(self._dirty):
            target, source = self._target + start, memory.address + start
            self.cuda.upload(target, source, stop - start, self._stream.handle)
        self._stream.record(uploaded)
        self._dirty.clear()
        self._halves.reverse()

    def _free(self) -> None:
        self._owned.close()


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Returns what ranges cover in as few as can be, ascending."""
    result: list[Range] = []
    for start, stop in sorted(ranges):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((start, stop))
    return result


def _as_tuple(index: Index) -> tuple[int, ...]:
    return index if isinstance(index, tuple) else (index,)


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT
