"""The order of what a graph on CUDA queues, driven through a double of the device on the CPU.

The double's streams do nothing until somebody waits for them: each keeps its work in a queue and
does it, in order, as late as it may. So a value that is overwritten too early, a copy that does
not wait for another stream, or an upload that is left out changes a result here.
"""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import DeviceError, DeviceMemoryError, RuntimeUnavailableError
from giffusion.engine.runtimes.cuda.staging import merged
from giffusion.export.torch_runtime import graph as graph_module
from giffusion.export.torch_runtime.buffers import flat_range
from giffusion.export.torch_runtime.device import (
    CudaDevice,
    Work,
    device_errors,
    is_cuda_there,
)
from giffusion.export.torch_runtime.graph import CudaTorchGraph
from giffusion.export.torch_runtime.host import HostTorchGraph

Array = NDArray[Any]


class LateStream:
    """Work that waits until it has to be done."""

    def __init__(self, device: LateDevice) -> None:
        self.device = device
        self.queue: list[Callable[[], object]] = []
        self.num_done = 0

    def reach(self, count: int) -> None:
        """Does what was queued up to a point; nothing of it is queued again."""
        queueing, self.device.current = self.device.current, None
        while self.num_done < count:
            self.num_done += 1
            self.queue[self.num_done - 1]()
        self.device.current = queueing


class LateEvent:
    def __init__(self, stream: LateStream) -> None:
        self._stream, self._count = stream, len(stream.queue)

    def query(self) -> bool:
        return self._stream.num_done >= self._count

    def synchronize(self) -> None:
        self._stream.reach(self._count)


class LateDevice(CudaDevice):
    """Runs on the CPU, late; `copy_`, `clone` and launches are queued by way of `LateTensor`."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.main, self.text, self.copies = (LateStream(self) for _ in range(3))
        self.current: LateStream | None = None
        self.num_captures = 0
        self.num_uploaded = 0

    def zeros(self, count: int, dtype: torch.dtype) -> Tensor:
        return LateTensor.of(self, torch.zeros(count, dtype=dtype))

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        # Whatever was there before, which must never be seen.
        return LateTensor.of(self, torch.full(shape, 77, dtype=dtype))

    @contextmanager
    def use(self, stream: Any) -> Iterator[None]:
        assert self.current is None
        self.current = stream
        yield
        self.current = None

    def record(self, stream: Any) -> LateEvent:
        return LateEvent(stream)

    def wait(self, stream: Any, event: Any) -> None:
        stream.queue.append(event.synchronize)

    def keep(self, tensor: Tensor, stream: Any) -> None:
        pass

    def capture(self, stream: Any, warm_up: Work, work: Work) -> Work:
        self.num_captures += 1
        stream.reach(len(stream.queue))
        warm_up()
        return self.late(work)

    def late(self, work: Callable[[], object]) -> Work:
        def queue() -> None:
            assert self.current is not None, "outside of a stream"
            self.current.queue.append(work)

        return queue


class LateTensor(Tensor):
    """A tensor whose copies are queued in the device's current stream."""

    late: LateDevice

    @classmethod
    def of(cls, device: LateDevice, plain: Tensor) -> LateTensor:
        made = plain.as_subclass(cls)
        made.late = device
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device = next((a.late for a in args if isinstance(a, LateTensor)), None)
        plain: list[Any] = [a.as_subclass(Tensor) if isinstance(a, LateTensor) else a for a in args]
        options = kwargs or {}
        if device is None or device.current is None:
            result = func(*plain, **options)
        elif func is Tensor.copy_:
            if options.get("non_blocking"):
                device.num_uploaded += plain[0].numel()
            device.late(lambda: plain[0].copy_(plain[1]))()
            return args[0]
        elif func is Tensor.clone:
            result = torch.full_like(plain[0], 77)
            device.late(lambda: result.copy_(plain[0]))()
        elif func is Tensor.to:
            device.current.reach(len(device.current.queue))
            result = func(*plain, **options)
        else:
            result = func(*plain, **options)
        views = isinstance(result, Tensor) and device is not None and func is not Tensor.to
        return cls.of(device, result) if views and device is not None else result


class Sums(nn.Module):
    """A stand-in for the denoise graph: state' = 2 · state + Σ mix · cond."""

    def __init__(self) -> None:
        super().__init__()
        self.num_runs = 0

    def forward(self, state: Tensor, cond: Tensor, mix: Tensor) -> Tensor:
        self.num_runs += 1
        return 2 * state + mix @ cond


DENOISE = GraphSpec(
    "denoise",
    (
        TensorSpec("state", "float32", ("slots", 3)),
        TensorSpec("cond", "float32", ("rows", 3)),
        TensorSpec("mix", "float32", ("slots", "rows")),
    ),
    (TensorSpec("next_state", "float32", ("slots", 3)),),
)
TEXT = GraphSpec(
    "text",
    (TensorSpec("ids", "int32", ("prompts", 3)),),
    (TensorSpec("embeds", "float32", ("prompts", 3)),),
)
DECODE = GraphSpec(
    "decode",
    (TensorSpec("latents", "float32", ("images", 3)),),
    (TensorSpec("rgb", "uint8", ("images", 3)),),
)
FED = {"next_state": "state"}


class Embed(nn.Module):
    def forward(self, ids: Tensor) -> Tensor:
        return ids.float() + 0.5


class Bytes(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return latents.clamp(0, 255).to(torch.uint8)


@pytest.fixture
def device() -> LateDevice:
    return LateDevice()


def denoiser(device: LateDevice, slots: int = 4, rows: int = 4) -> CudaTorchGraph:
    return CudaTorchGraph(device, Sums(), DENOISE, {"slots": slots, "rows": rows}, FED)


def test_any_order_of_calls_gives_what_the_host_graph_gives(device: LateDevice) -> None:
    graph = denoiser(device)
    expected = HostTorchGraph(Sums(), DENOISE, {"slots": 4, "rows": 4}, FED)
    random = np.random.default_rng(0)
    indices: dict[str, list[Any]] = {
        "state": [None, 0, 3, (1, 2)],
        "cond": [None, 2],
        "mix": [None, 1, (3, 3), (0, 1)],
    }
    shapes = {"state": (4, 3), "cond": (4, 3), "mix": (4, 4)}
    seen = set()
    for _ in range(400):
        call = random.choice(["write", "write", "run", "copy", "read"])
        name = str(random.choice(list(indices)))
        index = indices[name][random.integers(len(indices[name]))]
        seen.add((call, name, index))
        if call == "write":
            shape = np.empty(shapes[name])[... if index is None else index].shape
            value = random.integers(-3, 4, shape).astype(np.float32)
            for each in (graph, expected):
                each.write(name, value, index)
            value += 9  # the caller's own again
        elif call == "run":
            for each in (graph, expected):
                each.run()
        elif call == "copy" and name != "mix":
            source = int(random.integers(4))
            graph.copy(name, 1, graph, "state", source)
            expected.copy(name, 1, expected, "state", source)
        else:
            assert np.array_equal(graph.read(name, index), expected.read(name, index))
    assert len(seen) > 30


def test_only_what_was_written_is_uploaded(device: LateDevice) -> None:
    graph = denoiser(device)
    graph.run()
    assert device.num_uploaded == 0
    graph.write("cond", np.ones(3), 2)
    graph.write("cond", np.zeros(3), 2)
    graph.write("mix", np.array(5), (0, 3))
    graph.run()
    assert device.num_uploaded == 3 + 1
    graph.run()
    assert device.num_uploaded == 3 + 1
    graph.write("state", np.zeros((4, 3)))
    graph.write("state", np.ones(3), 1)
    graph.run()
    assert device.num_uploaded == 3 + 1 + 12


def test_capturing_leaves_the_state_and_runs_once_a_launch(device: LateDevice) -> None:
    module = Sums()
    graph = CudaTorchGraph(device, module, DENOISE, {"slots": 2, "rows": 2}, FED)
    graph.write("state", np.full((2, 3), 1.5))
    assert (device.num_captures, module.num_runs) == (1, 1)
    assert (graph.read("state") == 1.5).all()
    graph.run()
    assert (graph.read("state") == 3).all()
    assert (device.num_captures, module.num_runs) == (1, 2)


def test_resizing_keeps_entries_and_captures_each_size_once(device: LateDevice) -> None:
    graph = denoiser(device)
    states = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph.write("state", states)
    conditions = -states
    graph.write("cond", conditions)
    for size, captures in ((2, 2), (4, 2), (2, 2)):
        graph.resize({"slots": size, "rows": size})
        graph.write("mix", np.eye(size))
        assert np.array_equal(graph.read("state"), states[:size])
        graph.run()
        assert device.num_captures == captures
        states[:size] = 2 * states[:size] + conditions[:size]
        assert np.array_equal(graph.read("state"), states[:size])
    with pytest.raises(ValueError, match="more than the 12 values"):
        graph.resize({"slots": 8, "rows": 8})


class Gather(nn.Module):
    """Each row's own slot, which has to be there: a device that finds none fails for good."""

    def forward(self, state: Tensor, row_slot: Tensor) -> Tensor:
        return state.index_select(0, row_slot)


GATHER = GraphSpec(
    "denoise",
    (TensorSpec("state", "float32", ("slots", 3)), TensorSpec("row_slot", "int32", ("rows",))),
    (TensorSpec("next_state", "float32", ("rows", 3)),),
)


def test_a_resized_graph_is_not_run_before_its_inputs_are_written(device: LateDevice) -> None:
    graph = CudaTorchGraph(device, Gather(), GATHER, {"slots": 4, "rows": 4}, None)
    states = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph.write("state", states)
    graph.write("row_slot", np.array([3, 2, 1, 0]))
    graph.run()
    graph.resize({"slots": 2, "rows": 2})
    graph.write("row_slot", np.array([1, 0]))
    graph.run()
    assert np.array_equal(graph.read("next_state"), states[[1, 0]])


@pytest.mark.parametrize("first", ["text", "main"])
def test_a_copy_between_streams_waits_for_both(device: LateDevice, first: str) -> None:
    text = CudaTorchGraph(device, Embed(), TEXT, {"prompts": 1}, None)
    graph = denoiser(device)
    text.write("ids", np.array([1, 2, 3]), 0)
    text._launches = {size: device.late(launch) for size, launch in text._launches.items()}
    text.run()
    graph.copy("cond", 1, text, "embeds", 0)
    # Queued behind the copy, though on another stream.
    text.write("ids", np.array([7, 8, 9]), 0)
    text.run()
    ahead = getattr(device, first)
    ahead.reach(len(ahead.queue))
    assert graph.read("cond", 1).tolist() == [1.5, 2.5, 3.5]
    assert text.read("embeds", 0).tolist() == [7.5, 8.5, 9.5]


def test_a_copy_takes_what_was_written_to_its_source(device: LateDevice) -> None:
    source, graph = denoiser(device), denoiser(device)
    source.write("cond", np.array([1.5, 2.5, 3.5]), 3)
    graph.copy("state", 2, source, "cond", 3)
    assert graph.read("state", 2).tolist() == [1.5, 2.5, 3.5]


def test_a_copy_from_the_host_is_written(device: LateDevice) -> None:
    graph = denoiser(device)
    host = HostTorchGraph(Embed(), TEXT, {"prompts": 1}, None)
    host.write("ids", np.array([1, 2, 3]), 0)
    host.run()
    graph.copy("state", 2, host, "embeds", 0)
    assert graph.read("state", 2).tolist() == [1.5, 2.5, 3.5]


@pytest.mark.parametrize("on_device", [False, True])
def test_a_fetched_frame_is_of_its_own_run(device: LateDevice, on_device: bool) -> None:
    graph = CudaTorchGraph(device, Bytes(), DECODE, {"images": 2}, None)
    fetches = []
    for value in (10, 20, 30):
        graph.write("latents", np.full((2, 3), value))
        graph.run()
        fetches.append(graph.fetch("rgb", 1, on_device=on_device))
    assert not any(fetch.done for fetch in fetches)
    if on_device:
        device.main.reach(len(device.main.queue))
    for value, fetch in zip((10, 20, 30), fetches, strict=True):
        frame: Any = fetch.result()
        assert fetch.done
        assert np.asarray(frame).tolist() == [value] * 3
    assert np.asarray(frame).dtype == np.uint8


def test_a_closed_graph_has_done_its_work_and_holds_nothing(device: LateDevice) -> None:
    module = Sums()
    graph = CudaTorchGraph(device, module, DENOISE, {"slots": 2, "rows": 2}, FED)
    graph.run()
    graph.close()
    assert device.main.num_done == len(device.main.queue)
    assert module.num_runs == 2
    assert module not in vars(graph).values()


def test_ranges_are_those_of_numpys_entries() -> None:
    shape = (3, 4, 5)
    places = np.arange(60).reshape(shape)
    for index in (None, 0, 2, (1, 3), (2, 0, 4), (0,)):
        start, stop = flat_range(shape, index)
        assert places[... if index is None else index].ravel().tolist() == [*range(start, stop)]
    assert merged([(8, 9), (0, 2), (2, 4), (3, 5), (1, 2)]) == [(0, 5), (8, 9)]


class Failing(nn.Module):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, latents: Tensor) -> Tensor:
        raise self.error


OUT = "CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 7 GiB"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError(OUT), DeviceMemoryError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), DeviceMemoryError),
        (RuntimeError("CUDA error: out of memory\nCompile with"), DeviceMemoryError),
        (RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors"), DeviceError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceError),
        (torch.AcceleratorError("anything"), DeviceError),
    ],
)
def test_errors_of_the_device_end_in_a_line(
    device: LateDevice, error: Exception, kind: type[Exception]
) -> None:
    with pytest.raises(DeviceError) as caught:
        CudaTorchGraph(device, Failing(error), DECODE, {"images": 1}, None).run()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert "decode" in str(caught.value)


def test_an_error_while_a_capture_is_left_does_not_hide_a_lack_of_memory() -> None:
    def fail() -> None:
        try:
            raise torch.OutOfMemoryError(OUT)
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error")

    with pytest.raises(DeviceMemoryError), device_errors("a test runs"):
        fail()


class Large:
    """Something that memory is short of."""


def test_a_lack_of_memory_does_not_keep_the_memory() -> None:
    held: list[Callable[[], object]] = []

    def fail() -> None:
        large = Large()
        held.append(weakref.ref(large))
        raise torch.OutOfMemoryError(OUT)

    with pytest.raises(DeviceMemoryError), device_errors("a test runs"):
        fail()
    assert held[0]() is None


@pytest.mark.parametrize("text", [OUT, "CUDA error: an illegal memory access"])
def test_what_a_failed_call_held_goes_with_its_error(text: str) -> None:
    """Without the garbage collector, which knows nothing of a device's memory."""
    held: list[Callable[[], object]] = []

    def load() -> None:
        large = Large()
        held.append(weakref.ref(large))
        with device_errors("a test runs"):
            raise torch.OutOfMemoryError(text) if text == OUT else RuntimeError(text)

    gc.disable()
    try:
        with contextlib.suppress(DeviceError):
            load()
        assert held[0]() is None
    finally:
        gc.enable()


def test_a_failed_device_is_told_of_while_a_frame_is_awaited(
    device: LateDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(event: LateEvent) -> bool:
        raise torch.AcceleratorError("CUDA error: an illegal memory access")

    graph = CudaTorchGraph(device, Bytes(), DECODE, {"images": 1}, None)
    graph.run()
    fetch = graph.fetch("rgb", 0)
    monkeypatch.setattr(LateEvent, "query", fail)
    monkeypatch.setattr(LateEvent, "synchronize", fail)
    with pytest.raises(DeviceError, match="a frame is fetched"):
        _ = fetch.done
    with pytest.raises(DeviceError, match="a frame is fetched"):
        fetch.result()
    # The failure was told; closing what is left adds nothing to it.
    graph.close()


class Captures:
    """torch.cuda's graphs, without a device: like torch, refuses a pool whose graphs are gone."""

    def __init__(self) -> None:
        self.num_pools = 0
        self.alive: dict[int, int] = {}
        outer = self

        class CUDAGraph:
            def __init__(self) -> None:
                self.used: int | None = None

            def pool(self) -> int | None:
                return self.used

            def replay(self) -> None:
                pass

            def __del__(self) -> None:
                if self.used is not None:
                    outer.alive[self.used] -= 1

        @contextmanager
        def graph(made: CUDAGraph, *, pool: int, **options: Any) -> Iterator[None]:
            assert self.alive.get(pool) != 0, "use_count > 0 INTERNAL ASSERT FAILED"
            self.alive[pool] = self.alive.get(pool, 0) + 1
            made.used = pool
            yield

        self.CUDAGraph, self.graph = CUDAGraph, graph

    def graph_pool_handle(self) -> int:
        self.num_pools += 1
        return self.num_pools

    def stream(self, stream: Any) -> Any:
        return nullcontext()

    def current_device(self) -> int:
        return 0

    def Stream(self) -> object:
        return object()


def test_captures_share_memory_and_begin_anew_when_all_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Captures()
    monkeypatch.setattr(torch, "cuda", cuda)
    device = CudaDevice()

    def captured() -> Work:
        return device.capture(device.main, lambda: None, lambda: None)

    launches = [captured() for _ in range(3)]
    assert cuda.alive == {1: 3}
    del launches[0]
    launches.append(captured())
    assert cuda.alive == {1: 3}
    launches.clear()
    launches.append(captured())
    assert cuda.alive == {1: 0, 2: 1}


def test_a_gpu_that_does_not_work_is_no_reason_to_take_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def warned() -> bool:
        warnings.warn("CUDA initialization: The NVIDIA driver is too old.\nSee", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", warned)
    with pytest.raises(RuntimeUnavailableError, match="driver is too old; mend") as caught:
        is_cuda_there()
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not is_cuda_there()


def test_other_errors_are_not_the_devices() -> None:
    with pytest.raises(RuntimeError, match="shapes"), device_errors("a test runs"):
        raise RuntimeError("shapes cannot be multiplied")


def test_rare_stages_are_not_captured(device: LateDevice) -> None:
    CudaTorchGraph(device, Embed(), TEXT, {"prompts": 1}, None)
    assert device.num_captures == 0
    assert graph_module.CAPTURED == ("denoise", "decode")
