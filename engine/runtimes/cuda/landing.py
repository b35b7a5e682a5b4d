"""Entries on their way out of a device graph: pinned or device memory that is used again.

Called by `graph.py`. The invariant: a slot goes back to its pool when nobody can read it any
more, and what is copied into it next is queued on the same stream, behind its last copy.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import RenderError
from giffusion.engine.runtimes.base import Array
from giffusion.engine.runtimes.cuda.dlpack import DlpackFrame
from giffusion.engine.runtimes.cuda.resources import (
    DeviceMemory,
    Event,
    PinnedMemory,
    Resource,
    Stream,
)
from giffusion.engine.runtimes.cuda.staging import Span
from giffusion.engine.settings import MAX_BATCH

MAX_HOST_SLOTS = 64
"""Entries of one size that wait in pinned memory; before another, the oldest is taken out."""
MAX_DEVICE_SLOTS = 4 * MAX_BATCH
"""Frames of one size that may be held on the device: as many as the largest batch has in flight."""


class Slot(Resource):
    """Memory for one entry, and the event behind the copy into it."""

    def __init__(self, memory: DeviceMemory | PinnedMemory) -> None:
        super().__init__(memory.cuda)
        self.memory = memory
        try:
            self.arrived = Event(memory.cuda)
        except BaseException:
            memory.close()
            raise

    def _free(self) -> None:
        self.arrived.close()
        self.memory.close()


class Lease:
    """A slot in use, until this object and all that refers to it are gone, or `end`."""

    def __init__(self, slot: Slot, pool: SlotPool) -> None:
        self.slot = slot
        self.end = weakref.finalize(self, pool.give_back, slot)
        self.end.atexit = False


class SlotPool:
    """Slots of one size, made as they are needed.

    Args:
        make: makes the memory of one.
        max_slots: slots in all.
    """

    def __init__(self, make: Callable[[], DeviceMemory | PinnedMemory], max_slots: int) -> None:
        self._make = make
        self._max_slots = max_slots
        self._num_slots = 0
        # Leases may end in any thread, and in the middle of a call here.
        self._free_slots: deque[Slot] = deque()
        self._closed = False

    def lease(self) -> Lease | None:
        """Returns a free slot, or None where all are in use.

        Raises:
            DeviceMemoryError: there is no memory for another.
        """
        try:
            slot = self._free_slots.pop()
        except IndexError:
            if self._num_slots == self._max_slots:
                return None
            slot = Slot(self._make())
            self._num_slots += 1
        return Lease(slot, self)

    def give_back(self, slot: Slot) -> None:
        """Takes a slot back that nobody reads any more."""
        self._free_slots.append(slot)
        if self._closed:
            self.close()

    def close(self) -> None:
        """Frees the slots, and those in use when they come back."""
        self._closed = True
        # Two leases may end in two threads at once: whoever finds none left is done.
        with suppress(IndexError):
            while True:
                self._free_slots.pop().close()


class HostFetch:
    """An entry that is copied to pinned memory; see `Fetch`."""

    def __init__(self, lease: Lease, span: Span) -> None:
        self._lease: Lease | None = lease
        self._span = span
        self._array: Array | None = None

    @property
    def landed(self) -> bool:
        """Whether it has left its slot."""
        return self._lease is None

    @property
    def done(self) -> bool:
        return self._lease is None or self._lease.slot.arrived.done

    def land(self) -> Array:
        """Waits for the entry and gives its slot back."""
        if self._lease is None:
            assert self._array is not None
            return self._array
        slot = self._lease.slot
        slot.arrived.wait()
        assert isinstance(slot.memory, PinnedMemory)
        landed = slot.memory.array.view(self._span.dtype).reshape(self._span.shape).copy()
        self._array = landed
        self._lease.end()
        self._lease = None
        return landed

    def result(self) -> NDArray[np.uint8]:
        return self.land()


class DeviceFetch:
    """An entry that is copied to device memory of its own; see `Fetch`."""

    def __init__(self, lease: Lease, span: Span, device: tuple[int, int]) -> None:
        self._lease = lease
        self._shape = span.shape
        self._device = device

    @property
    def done(self) -> bool:
        return self._lease.slot.arrived.done

    def result(self) -> DlpackFrame:
        slot = self._lease.slot
        slot.arrived.wait()
        return DlpackFrame(slot.memory.address, self._shape, self._device, self._lease)


class Landing(Resource):
    """Copies spans of a graph's memory out, to slots of its pools.

    Args:
        stream: where the copies are queued.
        source: address of the graph's memory.
        max_host_slots: see `MAX_HOST_SLOTS`.
        max_device_slots: see `MAX_DEVICE_SLOTS`.
    """

    def __init__(
        self,
        stream: Stream,
        source: int,
        *,
        max_host_slots: int = MAX_HOST_SLOTS,
        max_device_slots: int = MAX_DEVICE_SLOTS,
    ) -> None:
        super().__init__(stream.cuda)
        self._stream = stream
        self._source = source
        self._max_host_slots = max_host_slots
        self._max_device_slots = max_device_slots
        self._host_pools: dict[int, SlotPool] = {}
        self._device_pools: dict[int, SlotPool] = {}
        self._on_their_way: deque[weakref.ref[HostFetch]] = deque()

    def to_host(self, span: Span) -> HostFetch:
        """Queues a copy to the host."""
        pool = self._pool(self._host_pools, PinnedMemory, span.num_bytes, self._max_host_slots)
        lease = pool.lease()
        while lease is None:
            self._land_oldest()
            lease = pool.lease()
        self.cuda.download(*self._copy_into(lease.slot, span))
        self._stream.record(lease.slot.arrived)
        fetch = HostFetch(lease, span)
        while self._on_their_way and _has_landed(self._on_their_way[0]):
            self._on_their_way.popleft()
        self._on_their_way.append(weakref.ref(fetch))
        return fetch

    def to_device(self, span: Span) -> DeviceFetch:
        """Queues a copy within the device.

        Raises:
            RenderError: as many frames as it may hold are in use.
        """
        pool = self._pool(self._device_pools, DeviceMemory, span.num_bytes, self._max_device_slots)
        lease = pool.lease()
        if lease is None:
            raise RenderError(
                f"{self._max_device_slots} frames are held on the device and none is released: "
                "fetch frames no faster than they are encoded"
            )
        self.cuda.copy(*self._copy_into(lease.slot, span))
        self._stream.record(lease.slot.arrived)
        return DeviceFetch(lease, span, self.cuda.dlpack_device)

    def _copy_into(self, slot: Slot, span: Span) -> tuple[int, int, int, int]:
        source = self._source + span.offset
        return slot.memory.address, source, span.num_bytes, self._stream.handle

    def _pool(
        self,
        pools: dict[int, SlotPool],
        memory: type[DeviceMemory] | type[PinnedMemory],
        num_bytes: int,
        max_slots: int,
    ) -> SlotPool:
        if num_bytes not in pools:
            pools[num_bytes] = SlotPool(partial(memory, self.cuda, num_bytes), max_slots)
        return pools[num_bytes]

    def _land_oldest(self) -> None:
        fetch = self._on_their_way.popleft()()
        if fetch is not None:
            fetch.land()

    def _free(self) -> None:
        for pool in (*self._host_pools.values(), *self._device_pools.values()):
            pool.close()


def _has_landed(reference: weakref.ref[HostFetch]) -> bool:
    fetch = reference()
    return fetch is None or fetch.landed
