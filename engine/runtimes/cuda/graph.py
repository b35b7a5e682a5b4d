"""A graph on a CUDA device: fixed buffers, staged inputs, and one launch a run.

A runtime that compiles for a device gives it an `Executor` for each set of shapes; the engine
sees a `Graph`. Everything is queued on one stream in the order of the calls: what was written is
uploaded before the next run, and before the next `copy`, `fetch` or `read` of that tensor, so a
later write never overtakes what was queued before it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Protocol

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import DeviceError
from giffusion.engine.runtimes.base import Array, Fetch, Graph, Index
from giffusion.engine.runtimes.cuda.landing import MAX_DEVICE_SLOTS, MAX_HOST_SLOTS, Landing
from giffusion.engine.runtimes.cuda.resources import CapturedGraph, DeviceMemory, Resource, Stream
from giffusion.engine.runtimes.cuda.staging import Span, Staging, lay_out, total_bytes


class Executor(Protocol):
    """A network compiled for one set of shapes."""

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Takes the addresses and shapes of all tensors, which then stay; called once."""

    def enqueue(self, stream: int) -> None:
        """Queues the network on a stream; the second call may be captured.

        Raises:
            DeviceError: the device or the network failed.
        """

    def close(self) -> None:
        """Frees it, when nothing queued uses it."""


OpenExecutor = Callable[[Mapping[str, int]], Executor]
"""Returns the executor for sizes of all named axes; raises `ModelError` if there is none."""


class _Bucket(Resource):
    """The graph at one set of shapes: eager at the first run, replayed from then on.

    Args:
        stream: where it runs.
        executor: the network, bound; owned from here on.
        feedback: (target, source, bytes) of the copies that end a run.
        cuda_graphs: whether to capture.
    """

    def __init__(
        self,
        stream: Stream,
        executor: Executor,
        feedback: list[tuple[int, int, int]],
        *,
        cuda_graphs: bool,
    ) -> None:
        super().__init__(stream.cuda)
        self._stream = stream
        self._executor = executor
        self._feedback = feedback
        self._cuda_graphs = cuda_graphs
        self._captured: CapturedGraph | None = None

    def run(self) -> None:
        if self._captured is not None:
            self._captured.launch(self._stream)
            return
        self._enqueue()
        if self._cuda_graphs:
            # What a network does once, such as compiling kernels, cannot be captured.
            self._stream.synchronize()
            self._captured = CapturedGraph(self._stream, self._enqueue)

    def _enqueue(self) -> None:
        self._executor.enqueue(self._stream.handle)
        for target, source, num_bytes in self._feedback:
            self.cuda.copy(target, source, num_bytes, self._stream.handle)

    def _free(self) -> None:
        if self._captured is not None:
            self._captured.close()
        self._executor.close()


class DeviceGraph:
    """A loaded graph on a device; see `Graph`.

    Args:
        stream: where its work is queued; graphs of one thread share it.
        spec: its contract.
        axes: the size of every named axis, the largest that it is resized to.
        feedback: outputs that are copied to inputs after each run, by name.
        open_executor: compiles or finds the network for some sizes.
        cuda_graphs: whether runs are captured and replayed; off only to compare.
        max_host_slots: entries that wait in pinned memory; see `landing.py`.
        max_device_slots: frames that are held on the device.

    Raises:
        DeviceMemoryError: the device's memory does not suffice; nothing stays allocated.
        ModelError: there is no network for these sizes.
    """

    def __init__(
        self,
        stream: Stream,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
        open_executor: OpenExecutor,
        *,
        cuda_graphs: bool = True,
        max_host_slots: int = MAX_HOST_SLOTS,
        max_device_slots: int = MAX_DEVICE_SLOTS,
    ) -> None:
        self._stream = stream
        self._spec = spec
        self._axes = dict(axes)
        self._feedback = dict(feedback or {})
        self._open_executor = open_executor
        self._cuda_graphs = cuda_graphs
        self._inputs = frozenset(tensor.name for tensor in spec.inputs)
        # Inputs come first, so that staging need not be as long as all buffers.
        self._places = lay_out((*spec.inputs, *spec.outputs), axes)
        self._spans = self._places
        with ExitStack() as owned:
            self._memory = owned.enter_context(DeviceMemory(stream.cuda, total_bytes(self._places)))
            address = self._memory.address
            inputs = {name: self._places[name] for name in self._inputs}
            self._staging = owned.enter_context(Staging(stream, address, total_bytes(inputs)))
            self._landing = owned.enter_context(
                Landing(
                    stream,
                    address,
                    max_host_slots=max_host_slots,
                    max_device_slots=max_device_slots,
                )
            )
            stream.cuda.zero(address, self._memory.num_bytes, stream.handle)
            # Closed first, whatever fails from here on: nothing is freed that queued work uses.
            self._buckets: dict[tuple[tuple[str, int], ...], _Bucket] = {}
            self._owned = owned.enter_context(ExitStack())
            owned.callback(stream.synchronize)
            self._bucket = self._open_bucket(self._axes, self._spans)
            self._end = weakref.finalize(self, _close_quietly, owned.pop_all())

    def write(self, name: str, value: Array, index: Index | None = None) -> None:
        self._staging.write(self._input(name), value, index)

    def run(self) -> None:
        # The network calls CUDA by itself, and this may be another thread than the last time.
        self._stream.cuda.make_current()
        self._staging.flush()
        self._bucket.run()

    def read(self, name: str, index: Index | None = None) -> Array:
        return self._landing.to_host(self._settled(name).entry(index)).land()

    def fetch(self, name: str, index: Index, *, on_device: bool = False) -> Fetch:
        span = self._settled(name).entry(index)
        return self._landing.to_device(span) if on_device else self._landing.to_host(span)

    def copy(
        self, name: str, index: Index, source: Graph, source_name: str, source_index: Index
    ) -> None:
        self._input(name)
        if not isinstance(source, DeviceGraph):
            self.write(name, source.read(source_name, source_index), index)
            return
        taken = source._settled(source_name).entry(source_index)
        given = self._settled(name).entry(index)
        if (taken.dtype, taken.shape) != (given.dtype, given.shape):
            raise ValueError(
                f"{source_name} {taken.dtype}{list(taken.shape)} cannot be copied to "
                f"{name} {given.dtype}{list(given.shape)}"
            )
        addresses = self._address(given), source._address(taken)
        self._stream.wait_for(source._stream)
        self._stream.cuda.copy(*addresses, given.num_bytes, self._stream.handle)
        source._stream.wait_for(self._stream)

    def resize(self, axes: Mapping[str, int]) -> None:
        sizes = {**self._axes, **axes}
        resolved = {
            tensor.name: tensor.resolve(sizes)
            for tensor in (*self._spec.inputs, *self._spec.outputs)
        }
        spans = {
            name: Span(place.offset, place.dtype, resolved[name])
            for name, place in self._places.items()
        }
        if any(spans[name].num_bytes > place.num_bytes for name, place in self._places.items()):
            raise ValueError(f"a graph is resized to what it was loaded for or less: got {sizes}")
        self._staging.flush()
        self._stream.synchronize()
        self._bucket = self._open_bucket(sizes, spans)
        self._axes, self._spans = sizes, spans

    def close(self) -> None:
        """Waits for what is queued and frees everything; frames that are held stay till read."""
        self._end()

    def _open_bucket(self, axes: Mapping[str, int], spans: Mapping[str, Span]) -> _Bucket:
        key = tuple(sorted(axes.items()))
        if key not in self._buckets:
            executor = self._open_executor(axes)
            copies = [
                (
                    self._address(spans[target]),
                    self._address(spans[output]),
                    spans[target].num_bytes,
                )
                for output, target in self._feedback.items()
            ]
            bucket = _Bucket(self._stream, executor, copies, cuda_graphs=self._cuda_graphs)
            with ExitStack() as opening:
                opening.enter_context(bucket)
                executor.bind(
                    {name: self._address(span) for name, span in spans.items()},
                    {name: span.shape for name, span in spans.items()},
                )
                self._owned.push(opening.pop_all())
            self._buckets[key] = bucket
        return self._buckets[key]

    def _input(self, name: str) -> Span:
        if name not in self._inputs:
            raise KeyError(name)
        return self._spans[name]

    def _settled(self, name: str) -> Span:
        """Returns where a tensor lies, with the upload queued of what was written to it."""
        span = self._spans[name]
        if name in self._inputs and self._staging.touches(span):
            self._staging.flush()
        return span

    def _address(self, span: Span) -> int:
        return self._memory.address + span.offset


def _close_quietly(owned: ExitStack) -> None:
    # What a failed device holds is freed with its process, and the failure was told.
    with suppress(DeviceError):
        owned.close()
