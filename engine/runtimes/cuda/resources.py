"""What a device graph owns: memory, streams, events and captured graphs, each freed once.

An owner is closed by whoever made it, after the work that uses it is done. Closing twice is
harmless, so that an `ExitStack` may close what a half-made graph already has.
"""

from __future__ import annotations

import ctypes
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import DeviceError
from giffusion.engine.runtimes.cuda.protocol import Cuda


class Resource(ABC):
    """Something of a device's that is freed by `close`, or at the end of a `with`."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._closed = False

    def close(self) -> None:
        """Frees it, unless that was done."""
        if not self._closed:
            self._closed = True
            self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _free(self) -> None:
        """Frees it; called once."""


class DeviceMemory(Resource):
    """Device memory of any content.

    Raises:
        DeviceMemoryError: there is not that much left.
    """

    def __init__(self, cuda: Cuda, num_bytes: int) -> None:
        super().__init__(cuda)
        self.num_bytes = num_bytes
        self.address = cuda.allocate(num_bytes)

    def _free(self) -> None:
        self.cuda.free(self.address)


class PinnedMemory(Resource):
    """Pinned host memory of any content, as bytes in `array`; see `DeviceMemory`."""

    def __init__(self, cuda: Cuda, num_bytes: int) -> None:
        super().__init__(cuda)
        self.num_bytes = num_bytes
        self.address = cuda.allocate_host(num_bytes)
        memory = (ctypes.c_uint8 * num_bytes).from_address(self.address)
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array(memory)

    def _free(self) -> None:
        self.cuda.free_host(self.address)


class Event(Resource):
    """A point in a stream's work; done until it is first recorded."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda)
        self.handle = cuda.create_event()

    @property
    def done(self) -> bool:
        """Whether everything that was queued before the last `record` is done."""
        return self.cuda.is_done(self.handle)

    def wait(self) -> None:
        """Waits on the host until it is done."""
        self.cuda.wait(self.handle)

    def _free(self) -> None:
        self.cuda.destroy_event(self.handle)


class Stream(Resource):
    """A queue of work, in order; graphs share one, or have one for each thread that runs them."""

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda)
        self._fence = Event(cuda)
        try:
            self.handle = cuda.create_stream()
        except BaseException:
            self._fence.close()
            raise

    def synchronize(self) -> None:
        """Waits on the host until all that is queued is done."""
        self.cuda.synchronize(self.handle)

    def record(self, event: Event) -> None:
        """Makes an event stand for all that is queued now."""
        self.cuda.record(event.handle, self.handle)

    def wait_for(self, other: Stream) -> None:
        """Queues to wait for all that is queued on another stream now."""
        if other is not self:
            other.record(other._fence)
            self.cuda.stream_wait(self.handle, other._fence.handle)

    def _free(self) -> None:
        self.cuda.destroy_stream(self.handle)
        self._fence.close()


class CapturedGraph(Resource):
    """Work that was queued once under capture, ready to be launched as one.

    Args:
        stream: where it is captured.
        enqueue: queues the work on that stream; nothing of it is executed.

    Raises:
        DeviceMemoryError: the device has no memory left for it.
        DeviceError: what `enqueue` did cannot be captured.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[], None]) -> None:
        super().__init__(stream.cuda)
        graph = _capture(stream, enqueue)
        try:
            self.handle = self.cuda.instantiate(graph)
        finally:
            self.cuda.destroy_graph(graph)

    def launch(self, stream: Stream) -> None:
        """Queues the work again."""
        self.cuda.launch(self.handle, stream.handle)

    def _free(self) -> None:
        self.cuda.destroy_executable(self.handle)


def _capture(stream: Stream, enqueue: Callable[[], None]) -> int:
    with _no_collection():
        stream.cuda.begin_capture(stream.handle)
        try:
            enqueue()
        except BaseException:
            # Ended, a stream takes work again; the first error is the one to tell.
            with suppress(DeviceError):
                stream.cuda.destroy_graph(stream.cuda.end_capture(stream.handle))
            raise
        return stream.cuda.end_capture(stream.handle)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps the collector from closing some old graph meanwhile: it would break the capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
