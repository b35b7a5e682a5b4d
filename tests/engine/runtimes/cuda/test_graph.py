"""The device graph on simulated CUDA: what is queued, in which order, and what it comes to.

The simulation executes as late as it may, so that a missing wait shows as wrong values, and every
graph here is compared with the fake runtime's on the host, bit for bit.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.contract import GraphSpec, decode_spec, denoise_spec, text_spec
from giffusion.engine.errors import DeviceError, DeviceMemoryError, ModelError, RenderError
from giffusion.engine.frames import DeviceFrame, Frame
from giffusion.engine.runtimes.base import Array, Fetch, Graph, Index
from giffusion.engine.runtimes.cuda.graph import DeviceGraph, Executor
from giffusion.engine.runtimes.cuda.resources import CapturedGraph, Event, Stream
from giffusion.engine.runtimes.cuda.staging import Span, lay_out, total_bytes
from giffusion.engine.runtimes.fake import FakeRuntime
from tests.engine.runtimes.cuda.simulated_cuda import (
    GARBAGE,
    SimulatedCuda,
    SimulatedExecutor,
    SimulationError,
    failing,
)

TEXT, DENOISE, DECODE = text_spec(2, 3), denoise_spec(2, 3, 4), decode_spec()
ROWS = 4
AXES = {"slots": ROWS, "rows": ROWS, "h": 2, "w": 1}
FEEDBACK = {"next_state": "state"}
SPECS: dict[str, tuple[GraphSpec, dict[str, int], dict[str, str]]] = {
    "text": (TEXT, {"prompts": 2}, {}),
    "denoise": (DENOISE, AXES, FEEDBACK),
    "decode": (DECODE, {"images": 2, "h": 2, "w": 1}, {}),
}


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    """A device on which nothing is left behind."""
    device = SimulatedCuda()
    yield device
    gc.collect()
    device.failures.clear()
    device.close()


@pytest.fixture
def stream(cuda: SimulatedCuda) -> Iterator[Stream]:
    with Stream(cuda) as opened:
        yield opened
        gc.collect()


Load = Callable[..., DeviceGraph]


@pytest.fixture
def load(stream: Stream) -> Iterator[Load]:
    """Loads stages on one stream, and closes what a test leaves open."""
    loaded = []

    def load(stage: str, on: Stream = stream, **options: Any) -> DeviceGraph:
        loaded.append(open_graph(on, stage, **options))
        return loaded[-1]

    yield load
    for graph in loaded:
        graph.close()


def open_graph(stream: Stream, stage: str, **options: Any) -> DeviceGraph:
    spec, axes, feedback = SPECS[stage]
    cuda = stream.cuda
    assert isinstance(cuda, SimulatedCuda)
    return DeviceGraph(
        stream, spec, axes, feedback, lambda sizes: SimulatedExecutor(cuda, spec), **options
    )


def on_host(stage: str, axes: Mapping[str, int] | None = None) -> Graph:
    spec, own_axes, feedback = SPECS[stage]
    return FakeRuntime().load(Path(), spec, axes or own_axes, feedback)


def values(spec: GraphSpec, name: str, shape: tuple[int, ...], seed: int) -> Array:
    random = np.random.default_rng(seed)
    if name == "row_slot":  # a slot that every bucket has
        return random.integers(0, 2, shape, np.int32)
    if name == "input_ids":
        return random.integers(0, 100, shape, np.int32)
    return random.standard_normal(shape, np.float32)


def fill(*graphs: Graph, stage: str = "denoise", seed: int = 0) -> None:
    """Writes the same into all inputs of all graphs."""
    spec, axes, _ = SPECS[stage]
    for number, tensor in enumerate(spec.inputs):
        value = values(spec, tensor.name, tensor.resolve(axes), seed + number)
        for graph in graphs:
            graph.write(tensor.name, value)


def same(got: Array, expected: Array) -> None:
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


def as_array(frame: Frame) -> NDArray[np.uint8]:
    return frame if isinstance(frame, np.ndarray) else np.array(np.from_dlpack(frame), np.uint8)


def test_it_is_bound_run_once_captured_and_then_replayed(cuda: SimulatedCuda, load: Load) -> None:
    graph = load("denoise")
    state_bytes = ROWS * 5 * 4 * 2 * 4
    assert cuda.calls[-1] == "bind denoise"
    cuda.calls.clear()
    graph.run()
    run = ["enqueue denoise", f"copy {state_bytes}"]
    capture = ["begin_capture", *run, "end_capture", "instantiate"]
    assert cuda.calls == [*run, "synchronize", *capture]
    assert cuda.executed[-2:] == run
    for _ in range(2):
        cuda.calls.clear()
        graph.run()
        assert cuda.calls == ["launch"]
    graph.read("state")
    assert cuda.executed[-7:-1] == 2 * [*run, "launch"]


def test_nothing_is_captured_when_graphs_are_off(cuda: SimulatedCuda, load: Load) -> None:
    graph, expected = load("denoise", cuda_graphs=False), on_host("denoise")
    fill(graph, expected)
    for _ in range(3):
        graph.run()
        expected.run()
    assert not {"begin_capture", "launch", "synchronize"} & {*cuda.calls}
    same(graph.read("state"), expected.read("state"))


def test_buffers_are_zero_at_first(load: Load) -> None:
    for stage, (spec, axes, _) in SPECS.items():
        graph = load(stage)
        for tensor in (*spec.inputs, *spec.outputs):
            same(graph.read(tensor.name), np.zeros(tensor.resolve(axes), tensor.dtype))


def test_a_run_reads_what_it_wrote_the_last_time(load: Load) -> None:
    graph, expected = load("denoise"), on_host("denoise")
    fill(graph, expected)
    before = graph.read("state")
    for _ in range(4):
        graph.run()
        expected.run()
        same(graph.read("state"), expected.read("state"))
    assert graph.read("state").tobytes() != before.tobytes()
    same(graph.read("next_state"), graph.read("state"))


def test_values_are_broadcast_and_cast_as_numpy_does(load: Load) -> None:
    for graph in (load("denoise"), on_host("denoise")):
        graph.write("scale", np.asarray(2.5))
        graph.write("scale", np.asarray(7, np.int64), 1)
        graph.write("state", np.arange(2.0)[:, None], (2, 1))
        assert graph.read("scale").tolist() == [2.5, 7, 2.5, 2.5]
        assert graph.read("state", (2, 1, 3)).tolist() == [[0.0], [1.0]]
        assert graph.read("state", (2, 0)).max() == 0


def test_only_what_was_written_is_uploaded_and_neighbours_together(
    cuda: SimulatedCuda, load: Load
) -> None:
    graph = load("denoise")
    graph.run()
    cuda.calls.clear()
    fill(graph)
    graph.write("mix", np.zeros((ROWS, ROWS)))
    graph.run()
    assert cuda.calls[-3:] == [f"upload {inputs_bytes()}", "record", "launch"]
    cuda.calls.clear()
    entry = 5 * 4 * 2 * 4
    graph.write("cond", np.ones((2, 3)), 1)
    graph.write("cond", np.ones((2, 3)), 2)
    graph.write("state", np.ones((5, 4, 2, 1)), 0)
    graph.write("state", np.ones((4, 2, 1)), (2, 4))
    graph.run()
    uploads = [call for call in cuda.calls if call.startswith("upload")]
    assert uploads == [f"upload {entry}", f"upload {4 * 2 * 4}", f"upload {2 * 2 * 3 * 4}"]
    cuda.calls.clear()
    graph.run()
    assert cuda.calls == ["launch"]


def inputs_bytes() -> int:
    return total_bytes(lay_out(DENOISE.inputs, AXES))


def stepped(graph: Graph, num_runs: int) -> None:
    """Runs without looking at anything, so that the device may lag by all of it.

    Every run steps from the last one's state, so that one wrong input shows in the end.
    """
    fill(graph)
    for seed in range(num_runs):
        graph.write("table", values(DENOISE, "table", (ROWS, 5, 7), seed))
        graph.write("noise", values(DENOISE, "noise", (4, 2, 1), seed), seed % ROWS)
        graph.run()


def test_the_host_never_overwrites_what_is_still_to_be_uploaded(
    cuda: SimulatedCuda, load: Load
) -> None:
    graph, expected = load("denoise"), on_host("denoise")
    for runner in (graph, expected):
        stepped(runner, 6)
    same(graph.read("state"), expected.read("state"))
    waits = [call for call in cuda.calls if call in ("wait", "launch")]
    # Two ticks ahead of the device is as far as the host gets.
    assert waits[:6] == ["wait", "wait", "launch", "wait", "launch", "wait"]


def test_the_host_writes_one_half_while_the_other_is_to_be_uploaded(
    cuda: SimulatedCuda, load: Load
) -> None:
    graph = load("denoise")
    graph.run()
    cuda.executed.clear()
    table = np.zeros((ROWS, 5, 7))
    for _ in range(2):
        graph.write("table", table)
        graph.run()
    # Both halves are full, and the device has not begun.
    assert cuda.executed == []
    graph.write("table", table)
    # The first is written again once it is uploaded, and no sooner; nothing else is waited for.
    assert [name.split()[0] for name in cuda.executed] == ["upload"]


def test_the_simulation_notices_a_host_that_does_not_wait(
    monkeypatch: pytest.MonkeyPatch, load: Load
) -> None:
    graph, expected = load("denoise"), on_host("denoise")
    with monkeypatch.context() as patch:
        patch.setattr(Event, "wait", lambda event: None)
        stepped(graph, 6)
    stepped(expected, 6)
    assert graph.read("state").tobytes() != expected.read("state").tobytes()


def test_a_later_write_does_not_overtake_a_copy(load: Load) -> None:
    denoise, decode = load("denoise"), load("decode")
    fill(denoise)
    first = denoise.read("state", (1, 0))
    denoise.write("state", first, (0, 0))
    decode.copy("latents", 0, denoise, "state", (0, 0))
    denoise.write("state", np.zeros_like(first), (0, 0))
    decode.copy("latents", 1, denoise, "state", (0, 0))
    decode.write("latents", np.ones_like(first), 1)
    same(decode.read("latents", 0), first)
    same(decode.read("latents", 1), np.ones_like(first))


def test_graphs_on_other_streams_wait_for_each_other(cuda: SimulatedCuda, load: Load) -> None:
    with Stream(cuda) as aside:
        text, denoise = open_graph(aside, "text"), load("denoise")
        expected, expected_denoise = on_host("text"), on_host("denoise")
        for seed in range(3):
            for source, target in ((text, denoise), (expected, expected_denoise)):
                fill(source, stage="text", seed=seed)
                source.run()
                target.copy("cond", seed, source, "prompt_embeds", 1)
                # The next run of the source may not begin before the copy is done.
                source.write("input_ids", np.full((2, 2), seed))
                source.run()
        same(denoise.read("cond"), expected_denoise.read("cond"))
        same(text.read("prompt_embeds"), expected.read("prompt_embeds"))
        text.close()


def test_a_thread_that_runs_a_graph_is_given_the_device(
    cuda: SimulatedCuda, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network calls CUDA by itself, and would run on the first device of a thread that has none.

    Nothing of ours is called before it: there is nothing to upload.
    """
    current: set[int] = set()
    found: list[bool] = []
    enqueue = SimulatedExecutor.enqueue

    def looked_at(executor: SimulatedExecutor, stream: int) -> None:
        found.append(threading.get_ident() in current)
        enqueue(executor, stream)

    monkeypatch.setattr(cuda, "make_current", lambda: current.add(threading.get_ident()))
    monkeypatch.setattr(SimulatedExecutor, "enqueue", looked_at)
    graph = load("denoise")
    thread = threading.Thread(target=graph.run)
    thread.start()
    thread.join()
    assert found == [True, True]


def test_graphs_of_the_host_are_copied_from_too(load: Load) -> None:
    denoise, source = load("denoise"), on_host("denoise")
    fill(source)
    denoise.copy("state", 2, source, "state", 1)
    same(denoise.read("state", 2), source.read("state", 1))


def test_what_does_not_fit_is_refused(load: Load) -> None:
    denoise, decode = load("denoise"), load("decode")
    with pytest.raises(
        ValueError, match=r"state float32\[5, 4, 2, 1\] cannot be copied to latents"
    ):
        decode.copy("latents", 0, denoise, "state", 0)
    for wrong in (ROWS, -1, (0, 5), (0, 0, 0, 0, 0, 0)):
        with pytest.raises(IndexError, match="no entry"):
            denoise.write("state", np.zeros(1), wrong)
        with pytest.raises(IndexError, match="no entry"):
            denoise.read("state", wrong)
    for refused in (
        lambda: denoise.write("next_state", np.zeros(1)),
        lambda: denoise.copy("next_state", 0, denoise, "state", 1),
        lambda: denoise.read("stat"),
    ):
        with pytest.raises(KeyError):
            refused()


@pytest.mark.parametrize("on_device", [False, True])
def test_a_fetch_is_of_its_moment(on_device: bool, load: Load) -> None:
    decode, expected = load("decode"), on_host("decode")
    fetches: list[tuple[Fetch, Fetch]] = []
    for seed in range(5):
        fill(decode, expected, stage="decode", seed=seed)
        decode.run()
        expected.run()
        for name in ("rgb", "nv12"):
            pair = decode.fetch(name, seed % 2, on_device=on_device)
            fetches.append((pair, expected.fetch(name, seed % 2)))
    for got, wanted in reversed(fetches):
        frame = got.result()
        assert isinstance(frame, np.ndarray) is not on_device
        assert frame.shape == wanted.result().shape
        same(as_array(frame), as_array(wanted.result()))


@pytest.mark.parametrize("on_device", [False, True])
def test_done_comes_by_waiting_alone(on_device: bool, load: Load) -> None:
    decode = load("decode")
    decode.run()
    decode.run()
    fetch = decode.fetch("rgb", 0, on_device=on_device)
    assert not fetch.done
    for _ in range(100):
        if fetch.done:
            break
    assert fetch.done
    assert as_array(fetch.result()).max() == 128


def test_frames_on_the_device_stay_while_they_are_held(cuda: SimulatedCuda, load: Load) -> None:
    decode = load("decode", max_device_slots=2)
    frames: list[DeviceFrame] = []
    for seed in (1, 2):
        fill(decode, stage="decode", seed=seed)
        decode.run()
        frame = decode.fetch("nv12", 0, on_device=True).result()
        assert not isinstance(frame, np.ndarray)
        frames.append(frame)
    del frame
    with pytest.raises(RenderError, match="2 frames are held on the device and none is released"):
        decode.fetch("nv12", 1, on_device=True)
    rows = frames.pop(0)[3:6]
    luma = np.from_dlpack(rows)
    before = luma.copy()
    del rows
    # A consumer still reads the first frame, through an array over three of its rows.
    with pytest.raises(RenderError, match="held on the device"):
        decode.fetch("nv12", 1, on_device=True)
    np.testing.assert_array_equal(luma, before)
    del luma
    decode.fetch("nv12", 1, on_device=True).result()
    last = as_array(frames[0])
    decode.close()
    # The graph is closed, and the frame that is still held is whole.
    np.testing.assert_array_equal(as_array(frames[0]), last)
    assert cuda.live["device"] == 1
    frames.clear()
    gc.collect()
    assert "device" not in cuda.live


def test_pinned_memory_is_bounded_by_taking_the_oldest_out(cuda: SimulatedCuda, load: Load) -> None:
    decode, expected = load("decode", max_host_slots=3), on_host("decode")
    pinned = cuda.live["pinned"]
    fetches, wanted = [], []
    for seed in range(9):
        fill(decode, expected, stage="decode", seed=seed)
        decode.run()
        expected.run()
        fetches.append(decode.fetch("rgb", 1))
        wanted.append(as_array(expected.fetch("rgb", 1).result()))
        if seed == 4:  # one that nobody takes
            fetches.pop()
            wanted.pop()
    assert cuda.live["pinned"] == pinned + 3
    assert fetches[0].done
    for fetch, picture in zip(fetches, wanted, strict=True):
        same(as_array(fetch.result()), picture)


def test_frames_move_together_before_the_batch_shrinks(cuda: SimulatedCuda, load: Load) -> None:
    graph = load("denoise")
    fill(graph)
    graph.run()
    graph.run()
    state, cond = graph.read("state"), graph.read("cond")
    graph.write("state", np.full_like(state[0], 9), 3)  # not uploaded yet
    graph.copy("state", 0, graph, "state", 3)
    graph.copy("state", 1, graph, "state", 2)
    graph.copy("cond", 1, graph, "cond", 2)
    cuda.calls.clear()
    graph.resize({"slots": 2, "rows": 2})
    assert cuda.calls[0] == "synchronize"
    assert cuda.calls[-1] == "bind denoise"
    assert "begin_capture" not in cuda.calls
    same(graph.read("state"), np.stack([np.full_like(state[0], 9), state[2]]))
    same(graph.read("cond"), cond[[0, 2]])
    # It has its own warm-up and capture, and each bucket's is kept.
    for size, is_replayed in ((2, False), (2, True), (4, True), (2, True)):
        graph.resize({"slots": size, "rows": size})
        cuda.calls.clear()
        graph.run()
        assert ("launch" in cuda.calls) is is_replayed
        assert ("begin_capture" in cuda.calls) is not is_replayed


def test_a_resize_that_cannot_be_done_changes_nothing(stream: Stream) -> None:
    cuda = stream.cuda
    assert isinstance(cuda, SimulatedCuda)

    def open_executor(axes: Mapping[str, int]) -> Executor:
        if axes["rows"] == 3:
            raise ModelError("no profile for 3 rows")
        return SimulatedExecutor(cuda, DENOISE)

    graph, expected = (
        DeviceGraph(stream, DENOISE, AXES, FEEDBACK, open_executor),
        on_host("denoise"),
    )
    fill(graph, expected)
    with pytest.raises(ValueError, match=r"loaded for or less: got .*'rows': 5"):
        graph.resize({"slots": 5, "rows": 5})
    with pytest.raises(ModelError, match="no profile for 3 rows"):
        graph.resize({"slots": 3, "rows": 3})
    cuda.fail_allocation = cuda.num_allocations
    with pytest.raises(DeviceMemoryError):
        graph.resize({"slots": 2, "rows": 2})
    graph.run()
    expected.run()
    same(graph.read("state"), expected.read("state"))
    graph.resize({"slots": 2, "rows": 2})
    same(graph.read("state"), expected.read("state")[:2])
    graph.close()


@pytest.mark.parametrize("stage", SPECS)
def test_without_memory_nothing_stays_allocated(stage: str) -> None:
    def use(cuda: SimulatedCuda) -> None:
        with Stream(cuda) as stream:
            graph = open_graph(stream, stage)
            try:
                graph.run()
                output = SPECS[stage][0].outputs[0].name
                frame = graph.fetch(output, 0, on_device=True).result()
                graph.fetch(output, 0).result()
                del frame
            finally:
                graph.close()

    complete = SimulatedCuda()
    use(complete)
    complete.close()
    assert complete.num_allocations >= 7
    for number in range(complete.num_allocations):
        cuda = SimulatedCuda(fail_allocation=number)
        with pytest.raises(
            DeviceMemoryError, match=r"memory is used up: .* lower --batch or --size"
        ):
            use(cuda)
        gc.collect()
        cuda.close()


@pytest.mark.parametrize("on_device", [False, True])
def test_a_slot_without_an_event_leaves_no_memory(
    on_device: bool, cuda: SimulatedCuda, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = load("decode")
    before = cuda.live

    def refuse() -> int:
        raise DeviceMemoryError("no memory for an event")

    with monkeypatch.context() as patch:
        patch.setattr(cuda, "create_event", refuse)
        with pytest.raises(DeviceMemoryError, match="for an event"):
            graph.fetch("rgb", 0, on_device=on_device)
    assert cuda.live == before


def test_a_graph_that_is_forgotten_frees_its_memory(cuda: SimulatedCuda, stream: Stream) -> None:
    graph = open_graph(stream, "denoise")
    graph.run()
    graph.run()  # still queued
    fetch = graph.fetch("state", 0)
    del graph
    gc.collect()
    assert {*cuda.live} <= {"streams", "events", "pinned"}
    del fetch
    gc.collect()
    assert cuda.live == {"streams": 1, "events": 1}


@pytest.mark.parametrize("operation", ["upload", "enqueue", "copy", "download"])
def test_a_failure_has_cudas_words_and_says_what_to_do(
    operation: str, cuda: SimulatedCuda, load: Load
) -> None:
    graph = load("denoise")
    fill(graph)
    error = failing(cuda, operation, "an illegal memory access was encountered")

    def use() -> None:
        graph.run()
        graph.read("state")

    with pytest.raises(error) as caught:
        use()
    assert str(caught.value) == (
        "cudaStreamSynchronize failed: an illegal memory access was encountered; this process "
        "must end, start it again"
    )
    # Closing what is lost tells nothing new, and hides nothing.
    graph.close()
    assert not {"device", "graphs"} & cuda.live.keys()
    cuda.failures.clear()


def test_a_capture_that_fails_is_ended(cuda: SimulatedCuda, stream: Stream) -> None:
    def forbidden() -> None:
        stream.synchronize()

    collects = gc.isenabled()
    with pytest.raises(DeviceError, match="not permitted while a stream captures"):
        CapturedGraph(stream, forbidden)
    assert gc.isenabled() == collects
    assert cuda.calls[-1] == "end_capture"
    stream.synchronize()
    assert "graphs" not in cuda.live


def test_nothing_is_collected_while_a_stream_captures(stream: Stream) -> None:
    """Some old graph in a cycle would be closed under the capture, and CUDA would break it."""
    collects: list[bool] = []

    def enqueue() -> None:
        collects.append(gc.isenabled())

    before = gc.isenabled()
    gc.enable()
    try:
        CapturedGraph(stream, enqueue).close()
        assert collects == [False]
        assert gc.isenabled()
        gc.disable()
        CapturedGraph(stream, enqueue).close()
        assert not gc.isenabled()
    finally:
        (gc.enable if before else gc.disable)()


def test_the_simulation_forbids_what_cuda_does(cuda: SimulatedCuda, stream: Stream) -> None:
    device, host = cuda.allocate(64), cuda.allocate_host(64)
    assert cuda.view(device, 64).tolist() == [GARBAGE] * 64
    forbidden: tuple[Callable[[], None], ...] = (
        lambda: cuda.upload(device, host, 65, stream.handle),
        lambda: cuda.upload(host, device, 64, stream.handle),
        lambda: cuda.copy(device, device + 8, 16, stream.handle),
        lambda: cuda.free(host),
    )
    for refused in forbidden:
        with pytest.raises(SimulationError):
            refused()
    cuda.zero(device, 64, stream.handle)
    with pytest.raises(SimulationError, match="freed that zero 64 still needs"):
        cuda.free(device)
    stream.synchronize()
    cuda.free(device)
    cuda.free_host(host)
    with pytest.raises(SimulationError, match="in no allocation"):
        cuda.zero(device, 64, stream.handle)


def test_tensors_lie_aligned_and_apart() -> None:
    spans = lay_out((*DENOISE.inputs, *DENOISE.outputs), AXES)
    ordered = sorted(spans.values(), key=lambda span: span.offset)
    assert all(span.offset % 256 == 0 for span in ordered)
    assert all(a.stop <= b.offset for a, b in pairwise(ordered))
    assert ordered[-1].stop <= total_bytes(spans) < ordered[-1].stop + 256
    span = Span(512, np.dtype(np.float32), (4, 5, 6))
    assert span.entry((2, 3)) == Span(512 + (2 * 5 + 3) * 6 * 4, span.dtype, (6,))
    assert span.entry(None) == span


class Reference:
    """The three stages on the host; a resize loads another graph and carries over what stays."""

    def __init__(self) -> None:
        self.graphs = {stage: on_host(stage) for stage in SPECS}

    def resize(self, rows: int) -> list[str]:
        """Returns the names of inputs that are to be written anew."""
        axes = {**AXES, "slots": rows, "rows": rows}
        old, new = self.graphs["denoise"], on_host("denoise", axes)
        renewed = []
        for tensor in DENOISE.inputs:
            before, shape = old.read(tensor.name), tensor.resolve(axes)
            if before.shape[1:] == shape[1:] and before.shape[0] >= shape[0]:
                new.write(tensor.name, before[: shape[0]])
            elif before.shape != shape:
                renewed.append(tensor.name)
        self.graphs["denoise"] = new
        return renewed


SEEDS = st.integers(0, 2**20)
STAGES = st.sampled_from(sorted(SPECS))
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), STAGES, SEEDS, st.integers(0, 3), st.integers(0, 7)),
    st.tuples(st.just("run"), STAGES),
    st.tuples(st.just("ticks"), STAGES, SEEDS, st.integers(1, 5)),
    st.tuples(st.just("move"), st.sampled_from(["state", "cond"]), st.permutations(range(2))),
    st.tuples(st.just("decode"), st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("embed"), st.integers(0, 1), st.integers(0, 1)),
    st.tuples(st.just("fetch"), st.sampled_from(["rgb", "nv12"]), st.integers(0, 1), st.booleans()),
    st.tuples(st.just("take"), st.integers(0, 3)),
    st.tuples(st.just("read"), STAGES, st.integers(0, 7)),
    st.tuples(st.just("resize"), st.sampled_from([2, 3, ROWS])),
)


class Both:
    """One program, done on a device that is late and on the host; what is read must be the same."""

    def __init__(self, cuda: SimulatedCuda, cuda_graphs: bool) -> None:
        self.main, self.aside = Stream(cuda), Stream(cuda)
        self.device = {
            stage: open_graph(
                self.aside if stage == "text" else self.main,
                stage,
                cuda_graphs=cuda_graphs,
                max_host_slots=2,
            )
            for stage in SPECS
        }
        self.host = Reference()
        self.rows = ROWS
        self.fetches: list[tuple[Fetch, Fetch]] = []

    def pairs(self, stage: str) -> tuple[Graph, Graph]:
        return self.device[stage], self.host.graphs[stage]

    def write(self, stage: str, seed: int, which: int, position: int) -> None:
        spec = SPECS[stage][0]
        tensor = spec.inputs[which % len(spec.inputs)]
        shape = self.host.graphs[stage].read(tensor.name).shape
        index: Index | None = None if position % 2 else position // 2 % shape[0]
        value = values(spec, tensor.name, shape if index is None else shape[1:], seed)
        for graph in self.pairs(stage):
            graph.write(tensor.name, value, index)

    def run(self, stage: str) -> None:
        for graph in self.pairs(stage):
            graph.run()

    def ticks(self, stage: str, seed: int, num_runs: int) -> None:
        for number in range(num_runs):
            self.write(stage, seed + number, seed, 1)
            self.run(stage)

    def move(self, name: str, places: list[int]) -> None:
        for graph in self.pairs("denoise"):
            graph.copy(name, places[0], graph, name, places[1])

    def decode(self, picture: int, slot: int) -> None:
        for denoise, decode in zip(self.pairs("denoise"), self.pairs("decode"), strict=True):
            decode.copy("latents", picture, denoise, "state", (slot, 0))

    def embed(self, row: int, prompt: int) -> None:
        for text, denoise in zip(self.pairs("text"), self.pairs("denoise"), strict=True):
            denoise.copy("cond", row, text, "prompt_embeds", prompt)

    def fetch(self, name: str, picture: int, on_device: bool) -> None:
        device, host = self.pairs("decode")
        pair = device.fetch(name, picture, on_device=on_device), host.fetch(name, picture)
        self.fetches.append(pair)

    def take(self, which: int) -> None:
        if self.fetches:
            got, expected = self.fetches.pop(which % len(self.fetches))
            same(as_array(got.result()), as_array(expected.result()))

    def read(self, stage: str, which: int) -> None:
        spec, _, feedback = SPECS[stage]
        tensors = [t.name for t in (*spec.inputs, *spec.outputs) if t.name not in feedback]
        got, expected = (graph.read(tensors[which % len(tensors)]) for graph in self.pairs(stage))
        same(got, expected)

    def resize(self, rows: int) -> None:
        renewed = self.host.resize(rows)
        self.device["denoise"].resize({"slots": rows, "rows": rows})
        for number, name in enumerate(renewed):
            shape = self.host.graphs["denoise"].read(name).shape
            value = values(DENOISE, name, shape, number)
            for graph in self.pairs("denoise"):
                graph.write(name, value)

    def close(self) -> None:
        while self.fetches:
            self.take(0)
        for stage, (spec, _, _) in SPECS.items():
            for which in range(len(spec.inputs)):
                self.read(stage, which)
        for graph in self.device.values():
            graph.close()
        self.main.close()
        self.aside.close()


@given(
    program=st.lists(OPERATIONS, max_size=40),
    seed=st.none() | st.integers(0, 1000),
    cuda_graphs=st.booleans(),
)
@settings(max_examples=150)
def test_any_program_comes_to_what_it_does_on_the_host(
    program: list[tuple[Any, ...]], seed: int | None, cuda_graphs: bool
) -> None:
    cuda = SimulatedCuda(seed=seed)
    both = Both(cuda, cuda_graphs)
    for operation, *arguments in program:
        getattr(both, operation)(*arguments)
    both.close()
    cuda.close()
