"""The real CUDA: the functions of `cuda.bindings.runtime`, on one device.

The only module that imports `cuda`, when a device is opened. Every method is one call site; see
`Cuda` for what they do.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

from giffusion.engine.errors import RuntimeUnavailableError
from giffusion.engine.runtimes.cuda.protocol import (
    Cuda,
    device_error,
    memory_error,
    pinned_memory_error,
)

_DRIVERS = {12: "525", 13: "580"}
"""The first driver of each major version of CUDA; later runtimes of that version run on it too."""


def open_cuda(ordinal: int = 0) -> Cuda:
    """Opens a device.

    Args:
        ordinal: its number among those that the process may see.

    Raises:
        RuntimeUnavailableError: the package is missing, no driver is loaded or one that is too
            old, or there is no such device.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"CUDA cannot be called from Python: {error}; pip install 'giffusion[tensorrt-rtx]'"
        ) from None
    _check_driver(runtime)
    _, count = runtime.cudaGetDeviceCount()
    if not count or ordinal >= count:
        raise RuntimeUnavailableError(
            f"CUDA finds {count or 'no'} devices, expected number {ordinal} among them: check "
            "nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
    device = BoundCuda(runtime, ordinal)
    device.make_current()
    return device


def _check_driver(runtime: Any) -> None:
    _, driver = runtime.cudaDriverGetVersion()
    _, needed = runtime.cudaRuntimeGetVersion()
    major = needed // 1000
    expected = f"CUDA {major} needs driver {_DRIVERS.get(major, 'of its own release')} or newer"
    if not driver:
        raise RuntimeUnavailableError(f"no NVIDIA driver is loaded here: {expected}")
    if driver // 1000 < major:
        there = f"{driver // 1000}.{driver % 1000 // 10}"
        raise RuntimeUnavailableError(
            f"the NVIDIA driver supports only CUDA {there}: {expected}; update the driver"
        )


class BoundCuda:
    """`Cuda` over the functions of `cuda.bindings.runtime`, on one device.

    Args:
        runtime: that module.
        ordinal: the device's number.
    """

    def __init__(self, runtime: Any, ordinal: int) -> None:
        self._runtime = runtime
        self._ordinal = ordinal
        self._thread = threading.local()

    @cached_property
    def device_name(self) -> str:
        properties = self._call("cudaGetDeviceProperties", self._ordinal)
        return str(properties.name.decode())

    @cached_property
    def compute_capability(self) -> str:
        attributes = self._runtime.cudaDeviceAttr
        major, minor = (
            self._call("cudaDeviceGetAttribute", attribute, self._ordinal)
            for attribute in (
                attributes.cudaDevAttrComputeCapabilityMajor,
                attributes.cudaDevAttrComputeCapabilityMinor,
            )
        )
        return f"sm{major}{minor}"

    @property
    def dlpack_device(self) -> tuple[int, int]:
        return 2, self._ordinal

    def make_current(self) -> None:
        self._check("cudaSetDevice", *self._runtime.cudaSetDevice(self._ordinal))
        self._thread.is_current = True

    def memory_bytes(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return free, total

    def allocate(self, num_bytes: int) -> int:
        return int(self._call("cudaMalloc", num_bytes, asked_bytes=num_bytes))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_host(self, num_bytes: int) -> int:
        flags = self._runtime.cudaHostAllocDefault
        return int(self._call("cudaHostAlloc", num_bytes, flags, asked_bytes=num_bytes))

    def free_host(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def zero(self, address: int, num_bytes: int, stream: int) -> None:
        self._call("cudaMemsetAsync", address, 0, num_bytes, stream)

    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, stream)

    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, stream)

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, stream)

    def create_stream(self) -> int:
        flags = self._runtime.cudaStreamNonBlocking
        return int(self._call("cudaStreamCreateWithFlags", flags))

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def create_event(self) -> int:
        # Waiting must not take a core from the encoders.
        flags = self._runtime.cudaEventDisableTiming | self._runtime.cudaEventBlockingSync
        return int(self._call("cudaEventCreateWithFlags", flags))

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def is_done(self, event: int) -> bool:
        status, _ = self._invoke("cudaEventQuery", event)
        if status == self._runtime.cudaError_t.cudaErrorNotReady:
            return False
        self._check("cudaEventQuery", status)
        return True

    def stream_wait(self, stream: int, event: int) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def begin_capture(self, stream: int) -> None:
        # Thread-local: another thread may allocate while this one captures.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        return int(self._call("cudaStreamEndCapture", stream))

    def instantiate(self, graph: int) -> int:
        return int(self._call("cudaGraphInstantiate", graph, 0))

    def destroy_graph(self, graph: int) -> None:
        self._call("cudaGraphDestroy", graph)

    def destroy_executable(self, executable: int) -> None:
        self._call("cudaGraphExecDestroy", executable)

    def launch(self, executable: int, stream: int) -> None:
        self._call("cudaGraphLaunch", executable, stream)

    def _call(self, name: str, *arguments: object, asked_bytes: int = 0) -> Any:
        """Calls a function on this device and returns its value, a tuple if it has several."""
        status, values = self._invoke(name, *arguments)
        self._check(name, status, asked_bytes)
        return values[0] if len(values) == 1 else tuple(values)

    def _invoke(self, name: str, *arguments: object) -> tuple[Any, list[Any]]:
        if not getattr(self._thread, "is_current", False):
            self.make_current()
        status, *values = getattr(self._runtime, name)(*arguments)
        return status, values

    def _check(self, name: str, status: Any, asked_bytes: int = 0) -> None:
        errors = self._runtime.cudaError_t
        if status == errors.cudaErrorMemoryAllocation:
            # CUDA keeps an error until it is asked for.
            self._runtime.cudaGetLastError()
            if name == "cudaHostAlloc":
                raise pinned_memory_error(asked_bytes)
            raise memory_error(asked_bytes, self.memory_bytes()[0])
        if status != errors.cudaSuccess:
            _, text = self._runtime.cudaGetErrorString(status)
            raise device_error(name, f"{text.decode()} (CUDA error {int(status)})")
