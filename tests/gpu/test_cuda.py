"""What only a device proves of the CUDA module and the device graph, without any engine.

The network here is a copy, so what goes in comes out, by way of staging, capture and feedback.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import pytest

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import DeviceMemoryError
from giffusion.engine.runtimes.cuda.graph import DeviceGraph
from giffusion.engine.runtimes.cuda.protocol import Cuda
from giffusion.engine.runtimes.cuda.resources import (
    CapturedGraph,
    DeviceMemory,
    Event,
    PinnedMemory,
    Stream,
)

pytestmark = pytest.mark.gpu
LATENTS = ("slots", 4, 64, 64)
SPEC = GraphSpec(
    "copy", (TensorSpec("state", "float32", LATENTS),), (TensorSpec("next", "float32", LATENTS),)
)
AXES = {"slots": 8}
BYTES = GraphSpec(
    "bytes",
    (TensorSpec("levels", "uint8", ("images", 96, 64)),),
    (TensorSpec("nv12", "uint8", ("images", 96, 64)),),
)


class Copying:
    """An executor whose network copies its input to its output."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._copy: tuple[int, int, int] | None = None

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        source, target = addresses.values()
        shape = next(iter(shapes.values()))
        itemsize = 1 if len(shape) == 3 else 4
        self._copy = target, source, int(np.prod(shape)) * itemsize

    def enqueue(self, stream: int) -> None:
        assert self._copy is not None
        self._cuda.copy(*self._copy, stream)

    def close(self) -> None:
        self._copy = None


@pytest.fixture
def stream(cuda: Cuda) -> Iterator[Stream]:
    with Stream(cuda) as opened:
        yield opened


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    """Closes graphs before their stream, however the test ends."""
    with ExitStack() as stack:
        yield stack


def open_graph(
    stream: Stream, spec: GraphSpec = SPEC, axes: Mapping[str, int] = AXES, **options: Any
) -> DeviceGraph:
    feedback = {"next": "state"} if spec is SPEC else {}
    return DeviceGraph(stream, spec, axes, feedback, lambda sizes: Copying(stream.cuda), **options)


def test_the_device_says_what_it_is(cuda: Cuda) -> None:
    free, total = cuda.memory_bytes()
    print(f"{cuda.device_name}, {cuda.compute_capability}, {total / 2**30:.1f} GiB")
    assert cuda.device_name
    assert cuda.compute_capability.startswith("sm")
    assert int(cuda.compute_capability[2:]) >= 50
    assert cuda.dlpack_device == (2, 0)
    assert 0 < free <= total


def test_bytes_go_there_and_back_and_zeros_are_zero(cuda: Cuda, stream: Stream) -> None:
    num_bytes = 1 << 20
    with (
        PinnedMemory(cuda, num_bytes) as host,
        PinnedMemory(cuda, num_bytes) as back,
        DeviceMemory(cuda, num_bytes) as first,
        DeviceMemory(cuda, num_bytes) as second,
    ):
        host.array[:] = np.random.default_rng(0).integers(0, 256, num_bytes)
        cuda.upload(first.address, host.address, num_bytes, stream.handle)
        cuda.copy(second.address, first.address, num_bytes, stream.handle)
        cuda.zero(second.address, 1000, stream.handle)
        cuda.download(back.address, second.address, num_bytes, stream.handle)
        stream.synchronize()
        assert not back.array[:1000].any()
        np.testing.assert_array_equal(back.array[1000:], host.array[1000:])


def test_streams_wait_for_each_other(cuda: Cuda, stream: Stream) -> None:
    num_bytes = 64 << 20
    with (
        Stream(cuda) as other,
        Event(cuda) as event,
        PinnedMemory(cuda, num_bytes) as host,
        PinnedMemory(cuda, num_bytes) as back,
        DeviceMemory(cuda, num_bytes) as memory,
    ):
        assert event.done
        for value in range(1, 6):
            host.array[:] = value
            cuda.upload(memory.address, host.address, num_bytes, stream.handle)
            other.wait_for(stream)
            cuda.download(back.address, memory.address, num_bytes, other.handle)
            other.record(event)
            event.wait()
            assert event.done
            assert back.array.min() == back.array.max() == value


def test_what_is_captured_is_done_when_it_is_launched(cuda: Cuda, stream: Stream) -> None:
    with (
        PinnedMemory(cuda, 256) as host,
        PinnedMemory(cuda, 256) as back,
        DeviceMemory(cuda, 256) as memory,
    ):

        def enqueue() -> None:
            cuda.upload(memory.address, host.address, 256, stream.handle)
            cuda.download(back.address, memory.address, 256, stream.handle)

        back.array[:] = 0
        with CapturedGraph(stream, enqueue) as graph:
            stream.synchronize()
            assert not back.array.any()
            for value in (3, 5):
                host.array[:] = value
                graph.launch(stream)
                stream.synchronize()
                assert back.array.tolist() == [value] * 256


def test_more_memory_than_there_is_is_one_line_and_harmless(cuda: Cuda, stream: Stream) -> None:
    _, total = cuda.memory_bytes()
    with pytest.raises(DeviceMemoryError, match=r"MiB asked for, \d+ MiB free; lower --batch"):
        DeviceMemory(cuda, 2 * total)
    with DeviceMemory(cuda, 256) as memory:
        cuda.zero(memory.address, 256, stream.handle)
        stream.synchronize()


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_graph_takes_every_write_and_feeds_back(
    stream: Stream, owned: ExitStack, cuda_graphs: bool
) -> None:
    graph = owned.enter_context(closing(open_graph(stream, cuda_graphs=cuda_graphs)))
    random = np.random.default_rng(1)
    expected = np.zeros((8, 4, 64, 64), np.float32)
    np.testing.assert_array_equal(graph.read("state"), expected)
    for turn in range(50):
        slot = int(random.integers(8))
        expected[slot] = random.standard_normal((4, 64, 64), np.float32)
        graph.write("state", expected[slot], slot)
        graph.run()
        if turn % 7 == 0:
            graph.copy("state", (slot + 1) % 8, graph, "state", slot)
            expected[(slot + 1) % 8] = expected[slot]
    np.testing.assert_array_equal(graph.read("state"), expected)
    graph.copy("state", 0, graph, "state", 7)
    graph.resize({"slots": 2})
    for _ in range(3):
        graph.run()
    np.testing.assert_array_equal(graph.read("state"), expected[[7, 1]])


def test_fetches_are_of_their_moment(stream: Stream, owned: ExitStack) -> None:
    opened = open_graph(stream, BYTES, {"images": 2}, max_host_slots=4)
    graph = owned.enter_context(closing(opened))
    random = np.random.default_rng(2)
    expected, fetches, kept = [], [], []
    for _ in range(20):
        levels = random.integers(0, 256, (2, 96, 64), np.uint8)
        graph.write("levels", levels)
        graph.run()
        expected.append(levels[1])
        fetches.append(graph.fetch("nv12", 1))
        kept.append(graph.fetch("nv12", 1, on_device=True))
    for levels, fetch in zip(expected, fetches, strict=True):
        np.testing.assert_array_equal(fetch.result(), levels)
        assert fetch.done
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA, or finds no GPU")
    for levels, fetch in zip(expected, kept, strict=True):
        frame: Any = fetch.result()
        assert frame.__dlpack_device__() == (2, 0)
        luma, chroma = torch.from_dlpack(frame[:64]), torch.from_dlpack(frame[64:])
        del frame
        np.testing.assert_array_equal(luma.cpu().numpy(), levels[:64])
        np.testing.assert_array_equal(chroma.cpu().numpy(), levels[64:])


def test_graphs_that_are_closed_give_their_memory_back(cuda: Cuda, stream: Stream) -> None:
    def use() -> None:
        graph = open_graph(stream, SPEC, {"slots": 256})
        graph.run()
        graph.run()
        graph.fetch("state", 0).result()
        graph.close()

    use()
    gc.collect()
    before, _ = cuda.memory_bytes()
    for _ in range(20):
        use()
    after, _ = cuda.memory_bytes()
    # One of these graphs holds 33 MB.
    assert before - after < 16 << 20
