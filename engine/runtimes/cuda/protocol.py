"""CUDA's runtime API behind one protocol: memory, streams, events and captured graphs.

`bindings.py` is the real one and `resources.py` owns what is made through it; tests replace it
by host memory that executes late. Every call that fails raises one line in CUDA's own words; after
any but a full memory only a new process is clean.
"""

from __future__ import annotations

from typing import Protocol

from giffusion.engine.errors import DeviceError, DeviceMemoryError


class Cuda(Protocol):
    """One device. Addresses, streams, events and graphs are numbers, as CUDA hands them out.

    Work on a stream is queued and executed in order, later; the host waits only in `wait` and
    `synchronize`.
    """

    @property
    def device_name(self) -> str:
        """What the device is called, such as `NVIDIA L4`."""

    @property
    def compute_capability(self) -> str:
        """Its architecture, such as `sm89`."""

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """DLPack's type and number of the device."""

    def make_current(self) -> None:
        """Makes the device the calling thread's, for libraries that ask CUDA for it."""

    def memory_bytes(self) -> tuple[int, int]:
        """Returns the bytes of device memory that are free, and all of them."""

    def allocate(self, num_bytes: int) -> int:
        """Returns the address of new device memory, of any content.

        Raises:
            DeviceMemoryError: there is not that much left.
        """

    def free(self, address: int) -> None:
        """Frees device memory that nothing queued uses."""

    def allocate_host(self, num_bytes: int) -> int:
        """Returns the address of new pinned host memory, of any content; raises as `allocate`."""

    def free_host(self, address: int) -> None:
        """Frees pinned host memory that nothing queued uses."""

    def zero(self, address: int, num_bytes: int, stream: int) -> None:
        """Queues device memory to be filled with zeros."""

    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queues a copy from pinned host memory, which is read when it is executed."""

    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queues a copy to pinned host memory."""

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queues a copy within device memory."""

    def create_stream(self) -> int:
        """Returns a new stream, which does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None:
        """Destroys a stream."""

    def synchronize(self, stream: int) -> None:
        """Waits until all that is queued on a stream is done."""

    def create_event(self) -> int:
        """Returns a new event, which is done until it is recorded."""

    def destroy_event(self, event: int) -> None:
        """Destroys an event."""

    def record(self, event: int, stream: int) -> None:
        """Makes an event stand for all that is queued on a stream now."""

    def wait(self, event: int) -> None:
        """Waits on the host until an event is done."""

    def is_done(self, event: int) -> bool:
        """Whether an event is done."""

    def stream_wait(self, stream: int, event: int) -> None:
        """Queues a stream to wait until an event is done."""

    def begin_capture(self, stream: int) -> None:
        """Records what this thread queues on a stream from now on, instead of executing it."""

    def end_capture(self, stream: int) -> int:
        """Ends a capture and returns it as a graph."""

    def instantiate(self, graph: int) -> int:
        """Returns a graph made ready to launch; raises as `allocate`."""

    def destroy_graph(self, graph: int) -> None:
        """Destroys a graph; what was instantiated of it stays."""

    def destroy_executable(self, executable: int) -> None:
        """Destroys an instantiated graph."""

    def launch(self, executable: int, stream: int) -> None:
        """Queues an instantiated graph on a stream."""


def memory_error(asked_bytes: int, free_bytes: int) -> DeviceMemoryError:
    """Returns the error of device memory that does not fit."""
    asked, free = (f"{num_bytes / 2**20:.0f} MiB" for num_bytes in (asked_bytes, free_bytes))
    return DeviceMemoryError(
        f"the device's memory is used up: {asked} asked for, {free} free; lower --batch or --size"
    )


def pinned_memory_error(asked_bytes: int) -> DeviceMemoryError:
    """Returns the error of pinned host memory that cannot be had."""
    return DeviceMemoryError(
        f"the host's memory is used up: {asked_bytes / 2**20:.0f} MiB to pin asked for; lower "
        "--batch or --size"
    )


def device_error(action: str, reason: str) -> DeviceError:
    """Returns the error of anything else that the device refuses."""
    return DeviceError(f"{action} failed: {reason}; this process must end, start it again")
