"""A fused module behind the `Graph` protocol on CUDA: fixed addresses, one launch a run.

`runtime.py` makes them. Every call queues its work and returns, except `read` and a
fetch's `result`. The invariant: what is queued takes effect in the order of the calls, also
between graphs on different streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from typing import cast

import torch
from torch import Tensor, nn

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import DeviceError
from giffusion.engine.frames import Frame
from giffusion.engine.runtimes.base import Array, Fetch, Graph, Index
from giffusion.export.torch_runtime.buffers import Buffer, Staging
from giffusion.export.torch_runtime.device import CudaDevice, Event, Work, device_errors
from giffusion.export.torch_runtime.host import as_tuple

CAPTURED = ("denoise", "decode")
"""Stages that run often enough for a capture to pay; the others are launched kernel by kernel."""


class CudaTorchGraph:
    """Runs a module on device memory; see `giffusion.engine.runtimes.base.Graph`.

    Args:
        device: streams and capture, shared by all graphs of a runtime.
        module: on the device; takes the contract's inputs by their names, returns its outputs.
        spec: the contract.
        axes: the size of every named axis, the largest if the graph is to be resized.
        feedback: outputs that become inputs of the next run, by name.

    Raises:
        DeviceMemoryError: the run does not fit into the device's memory.
        DeviceError: the device failed.
    """

    def __init__(
        self,
        device: CudaDevice,
        module: nn.Module,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
    ) -> None:
        self._device = device
        self._module = module
        self._spec = spec
        self._feedback = dict(feedback or {})
        self._axes = dict(axes)
        self._stream = device.text if spec.name == "text" else device.main
        self._launches: dict[tuple[tuple[str, int], ...], Work] = {}
        with self._errors("loaded"):
            self._inputs = {t.name: Buffer(device, t, axes) for t in spec.inputs}
            self._outputs = {t.name: Buffer(device, t, axes) for t in spec.outputs}
            specs = {t.name: t for t in spec.inputs}
            self._staging = Staging(device, self._stream, self._inputs, specs, axes)
            # Here, so that what has no room says so at once; inputs are zero, which indexes nothing
            # that is not there.
            self._prepared()

    def write(self, name: str, value: Array, index: Index | None = None) -> None:
        """Stages a value; uploaded before whatever reads it."""
        with self._errors("written to"):
            self._staging.write(name, value, index)

    def run(self) -> None:
        """Queues uploads and the run."""
        with self._errors("run"):
            self._staging.upload()
            launch = self._prepared()
            with self._device.use(self._stream):
                launch()

    def read(self, name: str, index: Index | None = None) -> Array:
        """Waits for what was queued and returns a copy of a buffer or an entry."""
        with self._errors("read"):
            self._staging.upload()
            with self._device.use(self._stream):
                return self._buffer(name).entry(index).to("cpu", copy=True).numpy()

    def fetch(self, name: str, index: Index, *, on_device: bool = False) -> Fetch:
        """Queues a copy of an entry, which later runs do not change."""
        with self._errors("fetched from"):
            self._staging.upload()
            with self._device.use(self._stream):
                entry = self._buffer(name).entry(index).clone()
            event = self._device.record(self._stream)
            if on_device:
                return _Fetch(entry, event)
            return self._to_host(entry, event)

    def copy(
        self, name: str, index: Index, source: Graph, source_name: str, source_index: Index
    ) -> None:
        """Queues a copy between graphs on the device; from elsewhere the value is written."""
        if not isinstance(source, CudaTorchGraph):
            self.write(name, source.read(source_name, source_index), index)
            return
        with self._errors("copied to"):
            self._staging.upload()
            source._staging.upload()
            self._await(source)
            with self._device.use(self._stream):
                origin = source._buffer(source_name).entry(source_index)
                self._inputs[name].entry(index).copy_(origin)
            # What the source runs next may change the origin.
            source._await(self)

    def resize(self, axes: Mapping[str, int]) -> None:
        """Changes to other sizes; the first run that they occur in is captured anew.

        Not before: what the inputs hold until they are written again may index entries that are no
        more, which a device answers by failing.
        """
        with self._errors("resized"):
            self._staging.upload()
            self._axes |= axes
            for buffer in (*self._inputs.values(), *self._outputs.values()):
                buffer.resize(self._axes)
            self._staging.resize(self._axes)

    def close(self) -> None:
        """Waits for what is queued, which works on the buffers, and frees them."""
        # A failed device was told of, and what it holds is freed with its process.
        with suppress(DeviceError), self._errors("closed"):
            self._device.record(self._stream).synchronize()
        self._launches.clear()
        self._inputs.clear()
        self._outputs.clear()
        # Whoever holds the closed graph holds no weights and no pinned memory.
        del self._module, self._staging

    def _prepared(self) -> Work:
        key = tuple(sorted(self._axes.items()))
        if key not in self._launches:
            self._launches[key] = self._captured()
        return self._launches[key]

    def _captured(self) -> Work:
        # What the launch works on stays the same when the graph is resized again.
        inputs = {name: buffer.tensor for name, buffer in self._inputs.items()}
        outputs = {name: buffer.tensor for name, buffer in self._outputs.items()}

        @torch.inference_mode()
        def compute() -> None:
            results = as_tuple(self._module(**inputs))
            for output, result in zip(outputs.values(), results, strict=True):
                output.copy_(result)

        @torch.inference_mode()
        def work() -> None:
            compute()
            for output, target in self._feedback.items():
                inputs[target].copy_(outputs[output])

        if self._spec.name not in CAPTURED:
            return work
        return self._device.capture(self._stream, compute, work)

    def _buffer(self, name: str) -> Buffer:
        return self._inputs[name] if name in self._inputs else self._outputs[name]

    def _to_host(self, entry: Tensor, event: Event) -> Fetch:
        device = self._device
        device.wait(device.copies, event)
        with device.use(device.copies):
            host = device.pinned(tuple(entry.shape), entry.dtype)
            host.copy_(entry, non_blocking=True)
        device.keep(entry, device.copies)
        return _Fetch(host, device.record(device.copies))

    def _await(self, other: CudaTorchGraph) -> None:
        """Lets what is queued here next begin after what is queued in another graph by now."""
        if other._stream is not self._stream:
            self._device.wait(self._stream, self._device.record(other._stream))

    def _errors(self, done: str) -> AbstractContextManager[None]:
        return device_errors(f"the {self._spec.name} graph is {done}")


class _Fetch:
    """An entry that was copied, on the host or on the device; see `Fetch`."""

    def __init__(self, entry: Tensor, event: Event) -> None:
        self._entry = entry
        self._event = event

    @property
    def done(self) -> bool:
        with device_errors("a frame is fetched"):
            return self._event.query()

    def result(self) -> Frame:
        with device_errors("a frame is fetched"):
            self._event.synchronize()
        return self._entry.numpy() if self._entry.is_cpu else cast(Frame, self._entry)
