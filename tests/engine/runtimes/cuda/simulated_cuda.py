"""CUDA on a machine without it: host memory as the device's, and streams that execute late.

Every operation on a stream waits until the host asks for it: a `synchronize` or `wait` executes
what that needs and nothing else, so whoever forgets to wait sees old bytes, and uploads read
pinned memory when they are executed, so whoever overwrites it too early sees wrong ones. With a
seed, operations of any stream are also executed ahead, one at a time, as a device would.

What CUDA forbids fails the test: memory used outside of an allocation, after it was freed or
freed while queued work needs it, and waiting or allocating on a thread that captures.

`SimulatedRuntime` is a whole runtime on it, with the fake runtime's networks.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from math import prod
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import DeviceError
from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Array, OnPrepare
from giffusion.engine.runtimes.cuda.dlpack import CPU
from giffusion.engine.runtimes.cuda.graph import DeviceGraph
from giffusion.engine.runtimes.cuda.protocol import device_error, memory_error, pinned_memory_error
from giffusion.engine.runtimes.cuda.resources import Stream
from giffusion.engine.runtimes.fake import compute

GARBAGE = 0xCD
"""What new memory holds."""
Work = Callable[[], None]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class SimulationError(AssertionError):
    """Something that would corrupt memory or hang on a device."""


@dataclass(frozen=True, eq=False)
class Block:
    """An allocation; its bytes stay addressable after it was freed, so that no other takes them."""

    kind: str
    bytes: NDArray[np.uint8]

    @property
    def address(self) -> int:
        return self.bytes.ctypes.data


@dataclass(frozen=True)
class Operation:
    """Something queued: what it is, what it needs done first, and the memory that it uses."""

    name: str
    work: Work
    needs: Point | None = None
    uses: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Point:
    """How many operations of a stream are to be done."""

    stream: int
    num_operations: int


@dataclass
class Queue:
    """One stream: what waits, how much is done, and what is captured if anything is."""

    waiting: deque[Operation] = field(default_factory=deque)
    num_queued: int = 0
    num_done: int = 0
    captured: list[Operation] | None = None
    captured_by: int | None = None


def locked(method: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Makes a method of the device one that any thread may call."""

    @wraps(method)
    def call(*arguments: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        device: Any = arguments[0]
        with device.lock:
            return method(*arguments, **keywords)

    return call


class SimulatedCuda:
    """A `Cuda` without a device.

    Args:
        seed: of what is executed ahead of need; None for nothing.
        fail_allocation: number of the allocation that finds no memory, from 0.
        memory: bytes of device memory in all.
    """

    device_name = "Simulated"
    compute_capability = "sm89"
    dlpack_device = CPU

    def __init__(
        self, *, seed: int | None = None, fail_allocation: int | None = None, memory: int = 2**32
    ) -> None:
        self._ahead = None if seed is None else random.Random(seed)
        self.fail_allocation = fail_allocation
        self.lock = threading.RLock()
        self.total = memory
        self.num_allocations = 0
        self.blocks: dict[int, Block] = {}
        self._freed: list[Block] = []
        self._queues: dict[int, Queue] = {}
        self._events: dict[int, Point | None] = {}
        self._graphs: dict[int, list[Operation]] = {}
        self._executables: dict[int, list[Operation]] = {}
        self._next_handle = 1
        self.calls: list[str] = []
        """What the host asked for, in order."""
        self.executed: list[str] = []
        """What the device did, in order."""
        self.failures: dict[str, str] = {}
        """By the name of an operation, CUDA's words when it is executed; cleared, all is well."""
        self._lost: str | None = None

    @property
    def live(self) -> dict[str, int]:
        """What is allocated or made and not yet freed, by kind."""
        counts = {
            "device": sum(block.kind == "device" for block in self.blocks.values()),
            "pinned": sum(block.kind == "pinned" for block in self.blocks.values()),
            "streams": len(self._queues),
            "events": len(self._events),
            "graphs": len(self._graphs) + len(self._executables),
        }
        return {kind: count for kind, count in counts.items() if count}

    def make_current(self) -> None:
        """Nothing to do: there is one device."""

    @locked
    def memory_bytes(self) -> tuple[int, int]:
        used = sum(len(block.bytes) for block in self.blocks.values() if block.kind == "device")
        return self.total - used, self.total

    @locked
    def allocate(self, num_bytes: int) -> int:
        self.calls.append(f"allocate {num_bytes}")
        free, _ = self.memory_bytes()
        if self._exhausted() or num_bytes > free:
            raise memory_error(num_bytes, free)
        return self._new_block("device", num_bytes)

    @locked
    def free(self, address: int) -> None:
        self._free("device", address)

    @locked
    def allocate_host(self, num_bytes: int) -> int:
        self.calls.append(f"allocate_host {num_bytes}")
        if self._exhausted():
            raise pinned_memory_error(num_bytes)
        return self._new_block("pinned", num_bytes)

    @locked
    def free_host(self, address: int) -> None:
        self._free("pinned", address)

    @locked
    def zero(self, address: int, num_bytes: int, stream: int) -> None:
        def work() -> None:
            self.view(address, num_bytes)[:] = 0

        self.submit(stream, f"zero {num_bytes}", work, (address, num_bytes))

    @locked
    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        self._copy("upload", ("device", target), ("pinned", source), num_bytes, stream)

    @locked
    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        self._copy("download", ("pinned", target), ("device", source), num_bytes, stream)

    @locked
    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        if abs(target - source) < num_bytes:
            raise SimulationError("a copy within device memory overlaps itself")
        self._copy("copy", ("device", target), ("device", source), num_bytes, stream)

    @locked
    def create_stream(self) -> int:
        stream = self._handle()
        self._queues[stream] = Queue()
        return stream

    @locked
    def destroy_stream(self, stream: int) -> None:
        if self._queues[stream].waiting:
            raise SimulationError("a stream is destroyed with work on it")
        del self._queues[stream]

    @locked
    def synchronize(self, stream: int) -> None:
        self.calls.append("synchronize")
        self._not_capturing()
        self._not_lost()
        self._run_ahead()
        self._reach(Point(stream, self._queues[stream].num_queued))

    @locked
    def create_event(self) -> int:
        event = self._handle()
        self._events[event] = None
        return event

    @locked
    def destroy_event(self, event: int) -> None:
        del self._events[event]

    @locked
    def record(self, event: int, stream: int) -> None:
        self.calls.append("record")
        if self._queues[stream].captured is not None:
            raise SimulationError("an event of the host's is recorded under capture")
        assert event in self._events
        self._events[event] = Point(stream, self._queues[stream].num_queued)

    @locked
    def wait(self, event: int) -> None:
        self.calls.append("wait")
        self._not_capturing()
        self._not_lost()
        self._run_ahead()
        point = self._events[event]
        if point is not None:
            self._reach(point)

    @locked
    def is_done(self, event: int) -> bool:
        self._not_capturing()
        point = self._events[event]
        if point is None or self._is_reached(point):
            return True
        # Time passes while the host looks: one operation more is done, and asking ends at last.
        self._advance(point.stream)
        return False

    @locked
    def stream_wait(self, stream: int, event: int) -> None:
        self.calls.append("stream_wait")
        point = self._events[event]
        self._enqueue(stream, Operation("stream_wait", lambda: None, point))

    @locked
    def begin_capture(self, stream: int) -> None:
        self.calls.append("begin_capture")
        self._not_capturing()
        queue = self._queues[stream]
        queue.captured, queue.captured_by = [], threading.get_ident()

    @locked
    def end_capture(self, stream: int) -> int:
        self.calls.append("end_capture")
        queue = self._queues[stream]
        assert queue.captured is not None
        graph = self._handle()
        self._graphs[graph], queue.captured = queue.captured, None
        return graph

    @locked
    def instantiate(self, graph: int) -> int:
        self.calls.append("instantiate")
        if self._exhausted():
            raise memory_error(0, self.memory_bytes()[0])
        executable = self._handle()
        self._executables[executable] = list(self._graphs[graph])
        return executable

    @locked
    def destroy_graph(self, graph: int) -> None:
        del self._graphs[graph]

    @locked
    def destroy_executable(self, executable: int) -> None:
        del self._executables[executable]

    @locked
    def launch(self, executable: int, stream: int) -> None:
        self.calls.append("launch")
        operations = self._executables[executable]
        uses = tuple(block for operation in operations for block in operation.uses)

        def work() -> None:
            for operation in operations:
                self._execute(operation)

        self._enqueue(stream, Operation("launch", work, None, uses))

    @locked
    def submit(self, stream: int, name: str, work: Work, *memory: tuple[int, int]) -> None:
        """Queues what a network does, with the memory (address, bytes) that it uses."""
        self.calls.append(name)
        uses = tuple(self._block(*place) for place in memory)
        self._enqueue(stream, Operation(name, work, None, uses))

    @locked
    def captures(self, stream: int) -> bool:
        """Whether what is queued on a stream is captured."""
        return self._queues[stream].captured is not None

    @locked
    def view(self, address: int, num_bytes: int) -> NDArray[np.uint8]:
        """Returns memory that is allocated now, as its bytes."""
        block = self._block(address, num_bytes)
        start = address - block.address
        return block.bytes[start : start + num_bytes]

    @locked
    def close(self) -> None:
        """Executes what waits, and checks that everything was freed."""
        for stream in self._queues:
            self.synchronize(stream)
        assert self.live == {}

    def _copy(
        self,
        name: str,
        target: tuple[str, int],
        source: tuple[str, int],
        num_bytes: int,
        stream: int,
    ) -> None:
        for kind, address in (target, source):
            if self._block(address, num_bytes).kind != kind:
                raise SimulationError(f"{name} with memory that is not {kind}")

        def work() -> None:
            self.view(target[1], num_bytes)[:] = self.view(source[1], num_bytes)

        self.submit(
            stream, f"{name} {num_bytes}", work, (target[1], num_bytes), (source[1], num_bytes)
        )

    def _enqueue(self, stream: int, operation: Operation) -> None:
        queue = self._queues[stream]
        if queue.captured is not None:
            queue.captured.append(operation)
            return
        queue.waiting.append(operation)
        queue.num_queued += 1
        self._run_ahead()

    def _reach(self, point: Point) -> None:
        while not self._is_reached(point):
            self._advance(point.stream)

    def _is_reached(self, point: Point) -> bool:
        queue = self._queues.get(point.stream)  # one that was destroyed had no work left
        return queue is None or queue.num_done >= point.num_operations

    def _advance(self, stream: int) -> None:
        """Executes the next operation of a stream, or one that it waits for."""
        queue = self._queues[stream]
        needs = queue.waiting[0].needs
        if needs is not None and not self._is_reached(needs):
            self._advance(needs.stream)
            return
        operation = queue.waiting.popleft()
        queue.num_done += 1
        self._execute(operation)

    def _execute(self, operation: Operation) -> None:
        for block in operation.uses:
            if self.blocks.get(block.address) is not block:
                raise SimulationError(f"{operation.name} uses memory that was freed")
        reason = self.failures.get(operation.name.split()[0])
        if reason is not None:
            self._lose(reason)
        operation.work()
        self.executed.append(operation.name)

    def _lose(self, reason: str) -> None:
        """Ends the device: nothing that is queued is ever done, and whoever waits is told."""
        self._lost = reason
        for queue in self._queues.values():
            queue.waiting.clear()
            queue.num_done = queue.num_queued
        raise device_error("cudaStreamSynchronize", reason)

    def _not_lost(self) -> None:
        if self._lost is not None and self.failures:
            raise device_error("cudaStreamSynchronize", self._lost)

    def _run_ahead(self) -> None:
        """Executes operations of any streams, some or none."""
        if self._ahead is None:
            return
        busy = [stream for stream, queue in self._queues.items() if queue.waiting]
        while busy and self._ahead.random() < 0.5:
            self._advance(self._ahead.choice(busy))
            busy = [stream for stream, queue in self._queues.items() if queue.waiting]

    def _new_block(self, kind: str, num_bytes: int) -> int:
        self._not_capturing()
        # As aligned as CUDA's, for which NumPy's own memory is not enough.
        spacious = np.full(num_bytes + 256, GARBAGE, np.uint8)
        start = -spacious.ctypes.data % 256
        block = Block(kind, spacious[start : start + num_bytes])
        self.blocks[block.address] = block
        return block.address

    def _block(self, address: int, num_bytes: int) -> Block:
        for block in self.blocks.values():
            start = address - block.address
            if start >= 0 and start + num_bytes <= len(block.bytes):
                return block
        raise SimulationError(f"{num_bytes} bytes at {address:#x} are in no allocation")

    def _free(self, kind: str, address: int) -> None:
        self.calls.append(f"free {kind}")
        self._not_capturing()
        block = self.blocks[address]
        if block.kind != kind:
            raise SimulationError(f"{block.kind} memory is freed as {kind}")
        for queue in self._queues.values():
            for operation in queue.waiting:
                if block in operation.uses:
                    raise SimulationError(f"memory is freed that {operation.name} still needs")
        del self.blocks[address]
        self._freed.append(block)

    def _exhausted(self) -> bool:
        number = self.num_allocations
        self.num_allocations += 1
        return number == self.fail_allocation

    def _not_capturing(self) -> None:
        here = threading.get_ident()
        capturing = (queue for queue in self._queues.values() if queue.captured is not None)
        if any(queue.captured_by == here for queue in capturing):
            raise device_error("cudaStreamBeginCapture", "not permitted while a stream captures")

    def _handle(self) -> int:
        self._next_handle += 1
        return self._next_handle


class SimulatedExecutor:
    """An `Executor` that computes a stage of the fake model when its turn comes."""

    def __init__(
        self, cuda: SimulatedCuda, spec: GraphSpec, num_runs: dict[str, int] | None = None
    ) -> None:
        self._cuda = cuda
        self._spec = spec
        self._num_runs = num_runs if num_runs is not None else {}
        self._tensors: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]] = {}
        self._scratch = cuda.allocate(256)

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        assert not self._tensors, "bound twice"
        assert all(address % 256 == 0 for address in addresses.values())
        self._cuda.calls.append(f"bind {self._spec.name}")
        for tensor in (*self._spec.inputs, *self._spec.outputs):
            place = addresses[tensor.name], np.dtype(tensor.dtype), shapes[tensor.name]
            self._tensors[tensor.name] = place

    def enqueue(self, stream: int) -> None:
        memory = [
            (address, prod(shape) * dtype.itemsize)
            for address, dtype, shape in self._tensors.values()
        ]
        self._cuda.submit(
            stream, f"enqueue {self._spec.name}", self._compute, *memory, (self._scratch, 256)
        )

    def close(self) -> None:
        self._cuda.calls.append(f"close {self._spec.name}")
        self._cuda.free(self._scratch)

    def _compute(self) -> None:
        self._num_runs[self._spec.name] = self._num_runs.get(self._spec.name, 0) + 1
        inputs = {tensor.name: self._array(tensor.name) for tensor in self._spec.inputs}
        outputs = {tensor.name: self._array(tensor.name) for tensor in self._spec.outputs}
        compute(self._spec.name, inputs, outputs)

    def _array(self, name: str) -> Array:
        address, dtype, shape = self._tensors[name]
        view = self._cuda.view(address, prod(shape) * dtype.itemsize)
        return view.view(dtype).reshape(shape)


class SimulatedRuntime:
    """A `Runtime` on simulated CUDA: `FakeRuntime`'s networks, so its frames bit for bit.

    Args:
        precision: kept, and otherwise without meaning.
        cuda: the device; one without surprises if None.
        cuda_graphs: whether runs are captured.
        batches: rows that denoise graphs can have.
    """

    name = "simulated"
    version = "1"
    num_lanes = 1
    decode_batch = 4
    graph_dtype = "fp32"
    on_device = True

    def __init__(
        self,
        precision: str | None = None,
        *,
        cuda: SimulatedCuda | None = None,
        cuda_graphs: bool = True,
        batches: tuple[int, ...] = (2, 8, 16, 32),
    ) -> None:
        self.precision = precision or "fp32"
        self.cuda = cuda or SimulatedCuda()
        self.num_runs: dict[str, int] = {}
        self.graphs: list[DeviceGraph] = []
        self._cuda_graphs = cuda_graphs
        self._batches = batches
        self._stream = Stream(self.cuda)
        # The engine runs the text graph in a thread of its own.
        self._text_stream = Stream(self.cuda)

    @property
    def numerics(self) -> dict[str, Any]:
        return {"runtime": self.name, "runtime_version": self.version, "precision": self.precision}

    def smaller(self, batch: int) -> tuple[int, ...]:
        return tuple(known for known in self._batches if known < batch)

    def prepare(
        self, model: Model, *, size: tuple[int, int], batch: int, on_progress: OnPrepare
    ) -> None:
        """Nothing is missing."""

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> DeviceGraph:
        graph = DeviceGraph(
            self._text_stream if spec.name == "text" else self._stream,
            spec,
            axes,
            feedback,
            lambda sizes: SimulatedExecutor(self.cuda, spec, self.num_runs),
            cuda_graphs=self._cuda_graphs,
        )
        self.graphs.append(graph)
        return graph

    def close(self) -> None:
        """Frees everything; what is still allocated fails the test."""
        for graph in self.graphs:
            graph.close()
        self._stream.close()
        self._text_stream.close()
        assert self.cuda.live == {}


def failing(cuda: SimulatedCuda, operation: str, words: str) -> type[DeviceError]:
    """Makes every operation of a kind fail from now on; returns the error to expect."""
    cuda.failures[operation] = words
    return DeviceError
