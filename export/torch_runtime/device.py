"""The thin layer over torch.cuda: streams, events, pinned memory, capture, and its errors.

`graph.py` orders everything through it; tests put a double in its place that
runs on the CPU. The invariant: nothing here waits for the device except `Event.synchronize`.
"""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from giffusion.engine.errors import (
    DeviceError,
    DeviceMemoryError,
    RuntimeUnavailableError,
    one_line,
)

WARM_UP_RUNS = 3
"""Runs before a capture: libraries load kernels and reserve workspace in their first ones."""
_MEMORY_SIGNS = ("out of memory", "ALLOC_FAILED")
_DEVICE_SIGNS = ("CUDA", "cuDNN", "CUBLAS", "CUDNN", "NVML")

Stream = Any
Work = Callable[[], None]


class Event(Protocol):
    """A point in a stream's work."""

    def query(self) -> bool:
        """Whether everything before it is done."""

    def synchronize(self) -> None:
        """Waits until everything before it is done."""


class CudaDevice:
    """The current CUDA device and the streams that all graphs of a runtime share.

    Denoising, decoding and encoding are queued in one stream, one after the other, since each
    fills the device. Texts are encoded on a stream of their own, from another thread, and frames
    leave on a third, so that neither waits for the work that is queued.

    Args:
        cuda_graphs: whether `capture` captures, or only returns the work.
    """

    def __init__(self, *, cuda_graphs: bool = True) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        cuda: Any = torch.cuda  # whose classes have no types
        self.main, self.text, self.copies = (cuda.Stream() for _ in range(3))
        self._cuda_graphs = cuda_graphs
        self._captured: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        """Returns zeroed device memory, flat, that work on any stream sees as zero."""
        zeros = torch.zeros(count, dtype=dtype, device=self.device)
        torch.cuda.current_stream().synchronize()
        return zeros

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Returns host memory that the device copies from and to on its own."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def use(self, stream: Stream) -> AbstractContextManager[None]:
        """Queues what is done inside of it in a stream."""
        return torch.cuda.stream(stream)

    def record(self, stream: Stream) -> Event:
        """Marks the end of what is queued in a stream."""
        # Waiting for it sleeps: a thread that spins would take a core from the encoder.
        cuda: Any = torch.cuda
        event: Event = cuda.Event(blocking=True)
        stream.record_event(event)
        return event

    def wait(self, stream: Stream, event: Event) -> None:
        """Lets a stream's later work begin after an event, without waiting here."""
        stream.wait_event(event)

    def keep(self, tensor: Tensor, stream: Stream) -> None:
        """Keeps a tensor's memory from being reused before a stream's queued work is done."""
        tensor.record_stream(stream)

    def capture(self, stream: Stream, warm_up: Work, work: Work) -> Work:
        """Returns what queues `work` in the stream as one launch.

        Args:
            stream: never the default one.
            warm_up: does the same as the work, but leaves the inputs as they are.
            work: reads and writes tensors that stay where they are; may keep no tensor it makes.
        """
        if not self._cuda_graphs:
            return work
        with self.use(stream):
            for _ in range(WARM_UP_RUNS):
                warm_up()
        graph = torch.cuda.CUDAGraph()
        # Thread-local: a text may be encoded in another thread meanwhile.
        captured = torch.cuda.graph(
            graph, pool=self._pool(), stream=stream, capture_error_mode="thread_local"
        )
        with captured:
            work()
        self._captured.add(graph)

        def replay() -> None:
            graph.replay()

        return replay

    def _pool(self) -> Any:
        """Returns the memory that all captured graphs use, or a new one where there is none.

        Graphs of one stream never run at once and keep nothing in it between their runs. Torch
        refuses a pool all of whose graphs are gone, so the handle is not kept.
        """
        alive = next(iter(self._captured), None)
        return torch.cuda.graph_pool_handle() if alive is None else alive.pool()


def is_cuda_there() -> bool:
    """Returns whether there is a CUDA device.

    Raises:
        RuntimeUnavailableError: there is a driver, and it does not work with this torch.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    # Without a driver or a device torch says nothing.
    reasons = [text for text in (str(each.message) for each in caught) if "CUDA" in text]
    if not found and reasons:
        raise RuntimeUnavailableError(
            f"runtime 'torch' does not work here: {_sentence(reasons[0])}; mend the GPU's driver, "
            "or choose another runtime"
        )
    return found


class device_errors:
    """Turns torch's errors of the device into the engine's.

    Not a generator: from Python 3.12 on its frame would be in the error's traceback and hold the
    frame that called it, a ring that keeps what the failed call had on the device.

    Args:
        doing: what is done inside of it, for the message.

    Raises:
        DeviceMemoryError: the device's memory is used up.
        DeviceError: the device failed otherwise.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, RuntimeError):
            return
        # No local name holds a link of the chain: this frame is in its traceback, and what it holds
        # on the device would wait for the garbage collector.
        if any(map(_is_memory, _chain(error))):
            _clear_frames(error)
            raise DeviceMemoryError(
                f"the GPU's memory is used up while {self._doing}: a smaller --batch or --size "
                f"needs less ({_sentence(error)})"
            ) from error
        if any(map(_is_device, _chain(error))):
            raise DeviceError(
                f"the GPU failed while {self._doing}: {_sentence(error)}; start again, and see its "
                "driver's log if it fails again"
            ) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it arose from: leaving a capture raises a second error."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def _clear_frames(error: BaseException) -> None:
    """Lets go of the failed call's tensors: they live in its frames as long as the error does."""
    for link in _chain(error):
        traceback.clear_frames(link.__traceback__)


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return _is_device(error) and any(sign in str(error) for sign in _MEMORY_SIGNS)


def _is_device(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _DEVICE_SIGNS)


def _sentence(error: object) -> str:
    """Returns the first line of torch's text: advice for its own developers follows."""
    return one_line(str(error).partition("\n")[0]).rstrip(".")
