"""The thin CUDA module: what it calls, how it fails, and that the real bindings take its arguments.

Its functions are replaced by a recording double here; the last tests call the real ones, which
answer on any machine, with or without a driver.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from giffusion.engine.errors import DeviceError, DeviceMemoryError, RuntimeUnavailableError
from giffusion.engine.runtimes.cuda.bindings import BoundCuda, open_cuda
from giffusion.engine.runtimes.cuda.protocol import Cuda
from giffusion.engine.runtimes.cuda.resources import Event, PinnedMemory, Stream
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda


class Status(IntEnum):
    """The statuses of CUDA that the module tells apart, and one that it does not."""

    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700


class Bindings:
    """Stands in for `cuda.bindings.runtime`: notes calls, and answers what it is told to."""

    cudaError_t = Status
    cudaHostAllocDefault = 0
    cudaStreamNonBlocking = 1
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2
    cudaMemcpyKind = SimpleNamespace(
        cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
    )
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaDeviceAttr = SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(self, **answers: tuple[Any, ...]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, tuple[Any, ...]] = {
            "cudaDriverGetVersion": (0, 13020),
            "cudaRuntimeGetVersion": (0, 13040),
            "cudaGetDeviceCount": (0, 2),
            "cudaGetDeviceProperties": (0, SimpleNamespace(name=b"NVIDIA L4")),
            "cudaMemGetInfo": (0, 3 << 20, 24 << 30),
            **answers,
        }

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append((name, *arguments))
            if name == "cudaGetErrorString":
                return 0, f"words for {arguments[0].name}".encode()
            if name == "cudaDeviceGetAttribute":
                return 0, {75: 8, 76: 9}[arguments[0]]
            creates = ("Create", "Malloc", "HostAlloc", "EndCapture", "Instantiate")
            made = (0, 4096) if any(word in name for word in creates) else (0,)
            status, *values = self.answers.get(name, made)
            return Status(status), *values

        return call


def install(monkeypatch: pytest.MonkeyPatch, bindings: Bindings | None) -> None:
    """Makes `from cuda.bindings import runtime` find a double, or nothing."""
    package = ModuleType("cuda.bindings")
    package.runtime = bindings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    # None makes an import fail, whether or not the real package was imported before.
    monkeypatch.setitem(sys.modules, "cuda.bindings", package if bindings else None)


def test_a_device_is_opened_and_described(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = Bindings()
    install(monkeypatch, bindings)
    cuda = open_cuda(1)
    assert ("cudaSetDevice", 1) in bindings.calls
    assert cuda.device_name == "NVIDIA L4"
    assert cuda.compute_capability == "sm89"
    assert cuda.dlpack_device == (2, 1)
    assert cuda.memory_bytes() == (3 << 20, 24 << 30)


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (
            {"cudaDriverGetVersion": (0, 0)},
            "no NVIDIA driver is loaded here: CUDA 13 needs driver 580 or newer",
        ),
        (
            {"cudaDriverGetVersion": (0, 12040)},
            "the NVIDIA driver supports only CUDA 12.4: CUDA 13 needs driver 580 or newer; "
            "update the driver",
        ),
        (
            {"cudaDriverGetVersion": (0, 11080), "cudaRuntimeGetVersion": (0, 12090)},
            "the NVIDIA driver supports only CUDA 11.8: CUDA 12 needs driver 525 or newer; "
            "update the driver",
        ),
        (
            {"cudaGetDeviceCount": (100, None)},
            "CUDA finds no devices, expected number 0 among them: check nvidia-smi and "
            "CUDA_VISIBLE_DEVICES",
        ),
    ],
)
def test_what_is_missing_is_one_line(
    answers: dict[str, tuple[Any, ...]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A status that the double does not know stands for any.
    known = {name: (min(status, 35), *rest) for name, (status, *rest) in answers.items()}
    install(monkeypatch, Bindings(**known))
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_cuda()
    assert str(caught.value) == message


def test_an_older_driver_of_the_same_version_of_cuda_will_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, Bindings(cudaDriverGetVersion=(0, 13000)))
    assert open_cuda().compute_capability == "sm89"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Bindings())
    with pytest.raises(RuntimeUnavailableError, match="finds 2 devices, expected number 2"):
        open_cuda(2)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    with pytest.raises(RuntimeUnavailableError) as caught:
        open_cuda()
    assert str(caught.value).startswith("CUDA cannot be called from Python: ")
    assert str(caught.value).endswith("; pip install 'giffusion[tensorrt-rtx]'")


CALLS: tuple[tuple[Callable[[Cuda], object], tuple[Any, ...]], ...] = (
    (lambda cuda: cuda.allocate(640), ("cudaMalloc", 640)),
    (lambda cuda: cuda.free(64), ("cudaFree", 64)),
    (lambda cuda: cuda.allocate_host(640), ("cudaHostAlloc", 640, 0)),
    (lambda cuda: cuda.free_host(64), ("cudaFreeHost", 64)),
    (lambda cuda: cuda.zero(64, 16, 7), ("cudaMemsetAsync", 64, 0, 16, 7)),
    (lambda cuda: cuda.upload(64, 128, 16, 7), ("cudaMemcpyAsync", 64, 128, 16, 1, 7)),
    (lambda cuda: cuda.download(64, 128, 16, 7), ("cudaMemcpyAsync", 64, 128, 16, 2, 7)),
    (lambda cuda: cuda.copy(64, 128, 16, 7), ("cudaMemcpyAsync", 64, 128, 16, 3, 7)),
    (lambda cuda: cuda.create_stream(), ("cudaStreamCreateWithFlags", 1)),
    (lambda cuda: cuda.destroy_stream(7), ("cudaStreamDestroy", 7)),
    (lambda cuda: cuda.synchronize(7), ("cudaStreamSynchronize", 7)),
    (lambda cuda: cuda.create_event(), ("cudaEventCreateWithFlags", 3)),
    (lambda cuda: cuda.destroy_event(9), ("cudaEventDestroy", 9)),
    (lambda cuda: cuda.record(9, 7), ("cudaEventRecord", 9, 7)),
    (lambda cuda: cuda.wait(9), ("cudaEventSynchronize", 9)),
    (lambda cuda: cuda.is_done(9), ("cudaEventQuery", 9)),
    (lambda cuda: cuda.stream_wait(7, 9), ("cudaStreamWaitEvent", 7, 9, 0)),
    (lambda cuda: cuda.begin_capture(7), ("cudaStreamBeginCapture", 7, 1)),
    (lambda cuda: cuda.end_capture(7), ("cudaStreamEndCapture", 7)),
    (lambda cuda: cuda.instantiate(5), ("cudaGraphInstantiate", 5, 0)),
    (lambda cuda: cuda.destroy_graph(5), ("cudaGraphDestroy", 5)),
    (lambda cuda: cuda.destroy_executable(5), ("cudaGraphExecDestroy", 5)),
    (lambda cuda: cuda.launch(5, 7), ("cudaGraphLaunch", 5, 7)),
)
NAMES = [expected[0] for _, expected in CALLS]


@pytest.mark.parametrize(("call", "expected"), CALLS, ids=NAMES)
def test_each_method_is_one_call(call: Callable[[Cuda], object], expected: tuple[Any, ...]) -> None:
    bindings = Bindings()
    result = call(BoundCuda(bindings, 0))
    assert bindings.calls == [("cudaSetDevice", 0), expected]
    assert result in (None, 4096, True)


def test_every_method_that_can_fail_is_tried_here() -> None:
    methods = {name for name, _ in inspect.getmembers(Cuda, inspect.isfunction)}
    others = {"make_current", "memory_bytes"}
    called = {name for call, _ in CALLS for name in call.__code__.co_names}
    assert {name for name in methods if not name.startswith("_")} == called | others


@pytest.mark.parametrize(("call", "expected"), CALLS, ids=NAMES)
def test_a_failure_is_one_line_in_cudas_words(
    call: Callable[[Cuda], object], expected: tuple[Any, ...]
) -> None:
    name = expected[0]
    cuda = BoundCuda(Bindings(**{name: (700, None)}), 0)
    with pytest.raises(DeviceError) as caught:
        call(cuda)
    assert not isinstance(caught.value, DeviceMemoryError)
    assert str(caught.value) == (
        f"{name} failed: words for cudaErrorIllegalAddress (CUDA error 700); this process must "
        "end, start it again"
    )


def test_a_full_memory_is_told_with_sizes() -> None:
    bindings = Bindings(cudaMalloc=(2, None), cudaGraphInstantiate=(2, None))
    cuda = BoundCuda(bindings, 0)
    with pytest.raises(DeviceMemoryError) as caught:
        cuda.allocate(700 << 20)
    assert str(caught.value) == (
        "the device's memory is used up: 700 MiB asked for, 3 MiB free; lower --batch or --size"
    )
    # Otherwise the next call would report the error again.
    assert ("cudaGetLastError",) in bindings.calls
    with pytest.raises(DeviceMemoryError, match="lower --batch or --size"):
        cuda.instantiate(5)
    with pytest.raises(DeviceMemoryError, match="the host's memory is used up: 64 MiB to pin"):
        BoundCuda(Bindings(cudaHostAlloc=(2, None)), 0).allocate_host(64 << 20)


def test_an_event_that_is_not_ready_is_no_failure() -> None:
    assert not BoundCuda(Bindings(cudaEventQuery=(600,)), 0).is_done(9)


def test_each_thread_is_given_the_device_once() -> None:
    bindings = Bindings()
    cuda = BoundCuda(bindings, 3)

    def use() -> None:
        cuda.synchronize(7)
        cuda.is_done(9)

    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert bindings.calls.count(("cudaSetDevice", 3)) == 2


def test_what_is_owned_is_freed_once_and_in_order() -> None:
    bindings = Bindings()
    cuda = BoundCuda(bindings, 0)
    with Stream(cuda), Event(cuda) as event:
        event.close()
    destroyed = [name for name, *_ in bindings.calls if "Destroy" in name]
    assert destroyed == ["cudaEventDestroy", "cudaStreamDestroy", "cudaEventDestroy"]


def test_a_stream_that_cannot_be_made_leaves_no_event() -> None:
    bindings = Bindings(cudaStreamCreateWithFlags=(700, None))
    with pytest.raises(DeviceError):
        Stream(BoundCuda(bindings, 0))
    assert bindings.calls.count(("cudaEventDestroy", 4096)) == 1


def test_pinned_memory_is_an_array_of_bytes() -> None:
    cuda = SimulatedCuda()
    with PinnedMemory(cuda, 300) as memory:
        memory.array[:] = 7
        assert cuda.view(memory.address, 300).tolist() == [7] * 300
    assert cuda.live == {}


def real_bindings() -> Any:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    _, driver = runtime.cudaDriverGetVersion()
    if driver:
        pytest.skip("this machine has a CUDA driver: made-up handles would reach it")
    return runtime


@pytest.mark.parametrize(("call", "expected"), CALLS, ids=NAMES)
def test_the_real_functions_take_these_arguments(
    call: Callable[[Cuda], object], expected: tuple[Any, ...]
) -> None:
    cuda = BoundCuda(real_bindings(), 0)
    # As on a thread whose device was set: otherwise that would be the call that fails.
    cuda._thread.is_current = True
    with pytest.raises(DeviceError) as caught:
        call(cuda)
    assert str(caught.value) == (
        f"{expected[0]} failed: CUDA driver version is insufficient for CUDA runtime version "
        "(CUDA error 35); this process must end, start it again"
    )


def test_this_machine_says_what_it_lacks() -> None:
    real_bindings()
    with pytest.raises(RuntimeUnavailableError, match=r"^no NVIDIA driver is loaded here: CUDA \d"):
        open_cuda()
