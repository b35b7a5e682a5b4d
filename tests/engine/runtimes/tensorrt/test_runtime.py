"""The TensorRT runtime on simulated TensorRT and CUDA: what it loads, binds, captures and refuses.

The engines' networks are the fake runtime's, so whole renders are compared with it bit for bit.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import (
    DeviceError,
    DeviceMemoryError,
    GiffusionError,
    ModelError,
    RuntimeUnavailableError,
    SettingsError,
)
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.rendering import render
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.cuda.bindings import open_cuda
from giffusion.engine.runtimes.cuda.graph import DeviceGraph
from giffusion.engine.runtimes.cuda.resources import Stream
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.runtimes.tensorrt import prepare
from giffusion.engine.runtimes.tensorrt.arena import Arena
from giffusion.engine.runtimes.tensorrt.cache import RuntimeCache
from giffusion.engine.runtimes.tensorrt.graph import LoadedEngine
from giffusion.engine.runtimes.tensorrt.manifest import EngineStoreError
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.engine.runtimes.tensorrt.prepare import Target, ensure_engines
from giffusion.engine.runtimes.tensorrt.runtime import TensorRtRuntime
from giffusion.engine.runtimes.tensorrt.store import EngineMissingError, EngineStore
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda
from tests.engine.runtimes.tensorrt import simulated_tensorrt
from tests.engine.runtimes.tensorrt.simulated_tensorrt import (
    KERNELS,
    SCRATCH_BYTES,
    SimulatedTensorRt,
    fake_build,
)

SIZE = (32, 64)
AXES = {"slots": 8, "rows": 8, "h": 8, "w": 4}
FEEDBACK = {"next_state": "state"}
PACKAGES = ("tensorrt", "tensorrt-rtx")
SETTINGS = RenderSettings(size=SIZE, steps=3)


@dataclass
class Machine:
    """A simulated machine: its device, its TensorRT and its engine store."""

    store: EngineStore
    model: Model
    name: str = "tensorrt-rtx"
    precision: str | None = None
    cuda: SimulatedCuda = field(default_factory=SimulatedCuda)
    prepared: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trt = SimulatedTensorRt(self.cuda, self.name)

    def open(self, **options: Any) -> TensorRtRuntime:
        return TensorRtRuntime(
            self.name,
            self.precision,
            store=self.store,
            open_package=lambda name: self.trt.package,
            open_device=lambda: self.cuda,
            **options,
        )

    def ready(self, batch: int = 8, **options: Any) -> TensorRtRuntime:
        """Opens the runtime with its engines made."""
        runtime = self.open(**options)

        def note(label: str, done: int, total: int) -> None:
            self.prepared.append(label)

        runtime.prepare(self.model, size=SIZE, batch=batch, on_progress=note)
        return runtime

    def load(self, runtime: TensorRtRuntime, stage: str, **axes: int) -> DeviceGraph:
        own = {"text": {"prompts": 1}, "decode": {"images": 4, "h": 8, "w": 4}}.get(stage, AXES)
        return runtime.load(
            self.model.graph_path(stage, runtime.graph_dtype),
            self.model.spec(stage),
            {**own, **axes},
            FEEDBACK if stage == "denoise" else None,
        )


@pytest.fixture(autouse=True)
def _built_by_a_double(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "build_engine", fake_build)


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


@pytest.fixture
def machine(store: EngineStore, mini: Model) -> Iterator[Machine]:
    """A machine whose device memory is all given back."""
    made = Machine(store, mini)
    yield made
    made.trt.contexts.clear()
    gc.collect()
    assert not {"device", "pinned", "graphs"} & made.cuda.live.keys()


@dataclass
class Sink:
    """Keeps frames as they come."""

    pixel_format: PixelFormat = PixelFormat.NV12
    on_device: bool = True
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    backlog: int = 0

    def write(self, index: int, frame: Frame) -> None:
        taken = frame if isinstance(frame, np.ndarray) else np.from_dlpack(frame)
        self.frames.append(np.array(taken))


def frames_of(model: Model, runtime: Runtime, batch: int = 8) -> list[NDArray[np.uint8]]:
    sink = Sink(on_device=runtime.on_device)
    timeline = Timeline(parse_prompts("0: a dog\n6: a | b\n11: a lion"), SETTINGS)
    with Engine(model, runtime, size=SIZE, batch=batch, shrink_tail=True) as engine:
        job = engine.submit("job", timeline, SETTINGS, sink)
        engine.run()
    assert job.error is None
    return sink.frames


@pytest.mark.parametrize("seed", [None, 1, 2])
@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("name", PACKAGES)
def test_renders_are_those_of_the_host(
    name: str, cuda_graphs: bool, seed: int | None, store: EngineStore, mini: Model
) -> None:
    machine = Machine(store, mini, name, cuda=SimulatedCuda(seed=seed))
    runtime = machine.ready(cuda_graphs=cuda_graphs)
    frames = frames_of(mini, runtime)
    expected = frames_of(mini, FakeRuntime())
    assert [frame.tobytes() for frame in frames] == [frame.tobytes() for frame in expected]
    assert len(frames) == 12
    assert ("launch" in machine.cuda.calls) is cuda_graphs


def test_engines_are_made_once(machine: Machine) -> None:
    machine.ready()
    stages = ("text", "denoise", "decode")
    graphs = [machine.model.graph_path(stage, "fp16").stem for stage in stages]
    assert machine.prepared == [f"building {graph}" for graph in graphs]
    machine.ready(32)
    assert len(machine.prepared) == 3
    machine.precision = "fp32"
    machine.ready()
    assert machine.prepared[3:] == [f"building {stage}" for stage in stages]


def test_shapes_and_addresses_are_set_before_the_first_run_and_that_before_the_capture(
    machine: Machine,
) -> None:
    graph = machine.load(machine.ready(), "denoise")
    (context,) = machine.trt.contexts
    spec = machine.model.spec("denoise")
    assert context.profile == 1  # of batches 2, 8, 16 and 32
    assert context.shapes == {t.name: t.resolve(AXES) for t in spec.inputs}
    assert list(context.addresses) == [t.name for t in (*spec.inputs, *spec.outputs)]
    assert context.memory is None
    machine.cuda.calls.clear()
    graph.run()
    graph.run()
    copy = next(call for call in machine.cuda.calls if call.startswith("copy"))
    assert machine.cuda.calls == [
        *("execute denoise", copy, "synchronize"),
        *("begin_capture", "execute denoise", copy, "end_capture", "instantiate", "launch"),
    ]
    assert context.num_runs == 2
    graph.close()


def test_batches_share_weights_and_buffers(machine: Machine) -> None:
    runtime = machine.ready()
    graph = machine.load(runtime, "denoise")
    again = machine.load(runtime, "denoise", slots=16, rows=16)
    assert runtime.smaller(8) == (2,)
    graph.run()
    graph.resize({"slots": 2, "rows": 2})
    graph.run()
    assert len(machine.trt.engines) == 1
    first, other, smaller = machine.trt.contexts
    assert [context.profile for context in (first, other, smaller)] == [1, 2, 0]
    assert smaller.addresses == first.addresses
    assert smaller.memory[0] == first.memory[0]
    assert not set(other.addresses.values()) & set(first.addresses.values())
    graph.close()
    again.close()


def test_one_block_of_scratch_memory_serves_a_stream(machine: Machine) -> None:
    runtime = machine.ready()
    graphs = [machine.load(runtime, stage) for stage in ("denoise", "decode", "text")]
    for graph in graphs:
        graph.run()
    denoise, decode, text = (context.memory for context in machine.trt.contexts)
    sizes = {stage: SCRATCH_BYTES[stage] for stage in ("denoise", "decode", "text")}
    assert denoise == (decode[0], sizes["denoise"] * 8)
    assert decode[1] == sizes["decode"] * 4
    # The text graph runs in another thread at the same time.
    assert text[0] != denoise[0]
    scratch = [call for call in machine.cuda.calls if call == f"allocate {decode[1]}"]
    assert len(scratch) == 1
    for graph in graphs:
        graph.close()


def test_scratch_memory_moves_until_it_is_used(machine: Machine) -> None:
    cuda = SimulatedCuda()
    arena = Arena(cuda)
    small, large = arena.share(1000), arena.share(2000)
    assert cuda.live == {"device": 1}
    assert small.address == large.address
    larger = arena.share(3000)
    assert larger.address != small.address
    assert arena.share(2500).address == larger.address
    large.close()
    assert cuda.live == {"device": 2}
    small.close()
    small.close()
    assert cuda.live == {"device": 1}


def test_scratch_memory_that_cannot_grow_leaves_what_was_given(machine: Machine) -> None:
    cuda = SimulatedCuda(memory=2000)
    arena = Arena(cuda)
    small = arena.share(1000)
    with pytest.raises(DeviceMemoryError):
        arena.share(3000)
    assert cuda.view(small.address, 1000).shape == (1000,)
    with pytest.raises(DeviceMemoryError):
        arena.share(1500)
    small.close()
    assert cuda.live == {}
    arena.share(1500).close()


def test_rtx_compiles_at_once_and_leaves_graphs_to_us(machine: Machine) -> None:
    graph = machine.load(machine.ready(), "denoise")
    trt, config = machine.trt, machine.trt.contexts[0].config
    assert config.cuda_graph_strategy == trt.CudaGraphStrategy.DISABLED
    eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    assert config.dynamic_shapes_kernel_specialization_strategy == eager
    assert config.allocation == trt.ExecutionContextAllocationStrategy.USER_MANAGED
    graph.close()


def test_classic_contexts_are_only_told_whose_memory_it_is(store: EngineStore, mini: Model) -> None:
    machine = Machine(store, mini, "tensorrt")
    graph = machine.load(machine.ready(), "denoise")
    (context,) = machine.trt.contexts
    assert context.config == machine.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    graph.run()
    graph.close()
    assert not list(store.root.rglob("*.cache"))


def test_compiled_kernels_are_kept_for_the_next_process(
    machine: Machine, store: EngineStore, mini: Model
) -> None:
    graph = machine.load(machine.ready(), "denoise")
    graph.close()
    assert not list(store.root.rglob("*.cache"))  # nothing ran, nothing was compiled
    graph = machine.load(machine.ready(), "denoise")
    machine.trt.kernels += b"sm89"
    graph.run()
    graph.close()
    (cache,) = store.root.rglob("*.cache")
    assert cache.read_bytes() == KERNELS + b"sm89"

    later = Machine(store, mini)
    graph = later.load(later.ready(), "denoise")
    assert later.trt.contexts[0].config.cache.content == KERNELS + b"sm89"
    graph.close()


def test_kernels_of_another_driver_are_compiled_again(machine: Machine, store: EngineStore) -> None:
    graph = machine.load(machine.ready(), "denoise")
    graph.run()
    graph.close()
    (cache,) = store.root.rglob("*.cache")
    cache.write_bytes(b"something else")
    graph = machine.load(machine.open(), "denoise")
    machine.trt.refusals["execute_async_v3"] = "the kernel failed"
    # That the cache was refused is not why the run fails.
    with pytest.raises(DeviceError, match="with tensorrt-rtx failed: the kernel failed;"):
        graph.run()
    machine.trt.refusals.clear()
    graph.run()
    graph.close()
    assert cache.read_bytes() == KERNELS


OTHER_TENSORS: tuple[tuple[Callable[[GraphSpec], GraphSpec], str], ...] = (
    (
        lambda spec: dataclasses.replace(spec, inputs=spec.inputs[:-1]),
        "has the tensors .*: expected .*, noise",
    ),
    (
        lambda spec: dataclasses.replace(
            spec, inputs=(*spec.inputs[:-1], replace(spec.inputs[-1], dtype="int32"))
        ),
        "has 'noise' as INPUT INT32: expected INPUT FLOAT",
    ),
    (
        lambda spec: dataclasses.replace(
            spec, inputs=spec.inputs[:-1], outputs=(*spec.outputs, spec.inputs[-1])
        ),
        "has 'noise' as OUTPUT FLOAT: expected INPUT FLOAT",
    ),
)


@pytest.mark.parametrize(("change", "message"), OTHER_TENSORS)
def test_an_engine_with_other_tensors_is_refused(
    change: Callable[[GraphSpec], GraphSpec],
    message: str,
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = fake_build

    def other(package: Any, path: Path, spec: GraphSpec, *rest: Any) -> memoryview:
        return build(package, path, change(spec), *rest)

    monkeypatch.setattr(prepare, "build_engine", other)
    runtime = machine.ready()
    with pytest.raises(ModelError, match=message) as caught:
        machine.load(runtime, "denoise")
    assert "\n" not in str(caught.value)


def test_without_an_engine_the_nearest_is_named_and_the_command(machine: Machine) -> None:
    runtime = machine.open()
    with pytest.raises(EngineMissingError, match=r"the store .* is empty"):
        machine.load(runtime, "denoise")
    runtime = machine.ready()
    cases = (
        ({"w": 8}, "is of 32x64", "--size 64x64 --batch 8"),
        ({"slots": 5, "rows": 5}, "is of batch 2, 8, 16, 32", "--size 32x64 --batch 5"),
    )
    for axes, there, command in cases:
        with pytest.raises(EngineMissingError) as caught:
            machine.load(runtime, "denoise", **axes)
        message = str(caught.value)
        assert there in message
        assert "giffusion build" in message
        assert f"--runtime tensorrt-rtx --device sm89 {command}" in message
        assert message.count("\n") == 0
    with pytest.raises(EngineMissingError, match=r"batch 5, .*--batch 2,5,8,16,32"):
        machine.ready(5)


def test_a_file_of_another_precision_does_not_run_as_this_ones(machine: Machine) -> None:
    runtime = machine.ready()
    path = machine.model.graph_path("denoise", "fp32")
    with pytest.raises(ModelError) as caught:
        runtime.load(path, machine.model.spec("denoise"), AXES, FEEDBACK)
    assert str(caught.value) == (
        f"{path} is not what runtime 'tensorrt-rtx' runs in fp16: expected "
        f"{machine.model.graph_path('denoise', 'fp16')}"
    )
    assert machine.trt.engines == []


def test_an_engine_of_another_version_or_device_is_not_taken(
    machine: Machine, store: EngineStore, mini: Model
) -> None:
    machine.ready()
    newer = Machine(store, mini)
    newer.trt.package.version = "99.0"
    with pytest.raises(EngineMissingError, match=r"is of version 1\.\d"):
        newer.load(newer.open(), "denoise")
    elsewhere = Machine(store, mini)
    elsewhere.cuda.compute_capability = "sm120"
    with pytest.raises(EngineMissingError, match=r"is of sm89; make it .* --device sm120"):
        elsewhere.load(elsewhere.open(), "denoise")


def test_a_plan_that_was_changed_is_not_loaded(machine: Machine, store: EngineStore) -> None:
    runtime = machine.ready()
    for plan in store.root.rglob("engine.plan"):
        plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    with pytest.raises(EngineStoreError, match="is not the one that was built; remove it with"):
        machine.load(runtime, "denoise")
    assert machine.trt.engines == []


def test_a_made_batch_that_is_no_default_is_used(machine: Machine) -> None:
    target = Target(machine.trt.package, "fp16", SIZE, ("sm89",), (3, 5), (4,))
    ensure_engines(target, machine.store, machine.model, on_progress=lambda *_: None)
    runtime = machine.ready(5)
    graph = machine.load(runtime, "denoise", slots=5, rows=5)
    assert runtime.smaller(5) == (3,)
    graph.resize({"slots": 3, "rows": 3})
    with pytest.raises(EngineStoreError, match="has no profile for state of shape"):
        graph.resize({"slots": 2, "rows": 2})
    graph.close()


FULL = "IExecutionContext: Error Code 2: OutOfMemory (Requested size was 123 bytes.)"
BROKEN = "Error Code 1: Cuda Runtime (an illegal memory access was encountered)"


@pytest.mark.parametrize(
    "call", ["deserialize_cuda_engine", "create_execution_context", "execute_async_v3"]
)
def test_memory_that_does_not_suffice_is_its_own_error(call: str, machine: Machine) -> None:
    runtime = machine.ready()
    machine.trt.refusals[call] = FULL

    def use() -> None:
        machine.load(runtime, "denoise").run()

    with pytest.raises(DeviceMemoryError, match=r"OutOfMemory .*; lower --batch or --size"):
        use()
    machine.trt.refusals.clear()
    graph = machine.load(runtime, "denoise")
    graph.run()
    graph.close()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("deserialize_cuda_engine", EngineStoreError),
        ("create_execution_context", DeviceError),
        ("set_optimization_profile_async", DeviceError),
        ("execute_async_v3", DeviceError),
    ],
)
def test_what_tensorrt_refuses_is_told_in_its_words(
    call: str, error: type[GiffusionError], machine: Machine
) -> None:
    runtime = machine.ready()
    machine.trt.refusals[call] = BROKEN

    def use() -> None:
        machine.load(runtime, "denoise").run()

    with pytest.raises(error, match="an illegal memory access was encountered") as caught:
        use()
    assert not isinstance(caught.value, DeviceMemoryError)
    assert "\n" not in str(caught.value)
    if error is DeviceError:
        assert str(caught.value).endswith("this process must end, start it again")


@pytest.mark.parametrize(
    ("call", "action"),
    [("set_input_shape", "shaping state"), ("set_tensor_address", "placing state")],
)
def test_a_tensor_that_cannot_be_bound_is_named(
    call: str, action: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = machine.ready()

    def refuse(context: Any, name: str, value: object) -> bool:
        machine.trt.say(f"{name} does not suit")
        return False

    monkeypatch.setattr(simulated_tensorrt.Context, call, refuse)
    with pytest.raises(DeviceError, match=f"^{action} with tensorrt-rtx failed: state does not"):
        machine.load(runtime, "denoise")
    assert not {"pinned", "graphs"} & machine.cuda.live.keys()


def test_a_closed_graph_holds_no_context(machine: Machine) -> None:
    graph = machine.load(machine.ready(), "denoise")
    graph.run()
    graph.resize({"slots": 2, "rows": 2})
    contexts = [weakref.ref(context) for context in machine.trt.contexts]
    machine.trt.contexts.clear()
    assert all(context() is not None for context in contexts)
    # The graph itself is still held, as by a caller that reports how it failed.
    graph.close()
    gc.collect()
    assert [context() for context in contexts] == [None, None]


def test_without_memory_for_a_context_nothing_stays_allocated(
    store: EngineStore, mini: Model
) -> None:
    machine = Machine(store, mini)
    machine.load(machine.ready(), "denoise").close()
    for number in range(machine.cuda.num_allocations):
        tight = Machine(store, mini, cuda=SimulatedCuda(fail_allocation=number))
        runtime = tight.open()
        with pytest.raises(DeviceMemoryError):
            tight.load(runtime, "denoise")
        tight.trt.contexts.clear()
        gc.collect()
        assert not {"device", "pinned"} & tight.cuda.live.keys()


def test_a_render_without_room_starts_again_smaller(machine: Machine, tmp_path: Path) -> None:
    probe = machine.ready()
    with Engine(machine.model, probe, size=SIZE, batch=8):
        free, total = machine.cuda.memory_bytes()
    machine.cuda.total = total - free + 40_000
    notes: list[str] = []
    runtime = machine.ready()
    result = render(
        "0: a dog\n9: a lion",
        tmp_path / "out.gif",
        model=machine.model,
        settings=SETTINGS,
        runtime=runtime,
        batch=32,
        on_note=notes.append,
    )
    assert result.numerics["batch"] == 8
    assert sum("starting again at batch" in note for note in notes) == 2


def test_numerics_name_the_engines_and_the_device(machine: Machine, store: EngineStore) -> None:
    runtime = machine.ready()
    assert runtime.numerics["engines"] == {}
    assert runtime.smaller(16) == (2, 8)
    graphs = [machine.load(runtime, stage) for stage in ("text", "denoise", "decode")]
    plans = {e.manifest.made_for.stage: e.manifest.plan_sha256[:16] for e in store.engines()}
    assert runtime.numerics == {
        "runtime": "tensorrt-rtx",
        "runtime_version": machine.trt.package.version,
        "precision": "fp16",
        "device": "Simulated",
        "decode_batch": 4,
        "engines": plans,
    }
    for graph in graphs:
        graph.close()


def test_a_precision_that_it_lacks_is_refused(machine: Machine) -> None:
    with pytest.raises(SettingsError, match="'int8' is not available on runtime 'tensorrt-rtx'"):
        TensorRtRuntime("tensorrt-rtx", "int8")
    machine.cuda.compute_capability = "sm75"
    machine.precision = "bf16"
    with pytest.raises(SettingsError, match="'bf16' is not available on sm75"):
        machine.open()


def test_a_gpu_that_the_package_has_no_name_for_is_refused(store: EngineStore, mini: Model) -> None:
    for_rtx, classic = (Machine(store, mini, name) for name in ("tensorrt-rtx", "tensorrt"))
    for machine in (for_rtx, classic):
        machine.cuda.compute_capability = "sm90"
    # Before the precision, which another GPU may have: nothing at all runs on this one.
    for_rtx.precision = "bf16"
    with pytest.raises(RuntimeUnavailableError, match="does not work on this GPU, sm90: version"):
        for_rtx.open()
    assert store.entries() == []
    assert classic.open().device == "sm90"


def test_a_missing_package_is_told_before_a_missing_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
        with pytest.raises(RuntimeUnavailableError, match=rf"pip install 'giffusion\[{name}\]'$"):
            open_runtime(name)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(RuntimeUnavailableError, match="CUDA cannot be called from Python"):
        open_runtime("tensorrt-rtx")


def test_the_double_has_no_method_that_the_package_lacks() -> None:
    trt = TensorRtPackage("tensorrt-rtx").trt
    doubles = {
        "Runtime": trt.Runtime,
        "Engine": trt.ICudaEngine,
        "RuntimeConfig": trt.IRuntimeConfig,
        "RuntimeCache": trt.IRuntimeCache,
        "Context": trt.IExecutionContext,
    }
    own = {"allocation", "cache", "inputs", "outputs", "stage"}
    for name, real in doubles.items():
        methods = {m for m in vars(getattr(simulated_tensorrt, name)) if not m.startswith("_")}
        assert methods - own <= {*dir(real)}, name
    assert {"cuda_graph_strategy", "dynamic_shapes_kernel_specialization_strategy"} <= {
        *dir(trt.IRuntimeConfig)
    }


def test_the_real_package_says_why_it_cannot_load_without_a_driver(
    store: EngineStore, mini: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        open_cuda()
    except RuntimeUnavailableError:
        pass
    else:
        pytest.skip("this machine has a CUDA device")
    monkeypatch.undo()
    package = TensorRtPackage("tensorrt-rtx")
    target = Target(package, "fp32", mini.manifest.size, ("sm89",))
    engines = ensure_engines(target, store, mini, stages=["text"], on_progress=lambda *_: None)
    cache = RuntimeCache(package, store.root / "kernels")
    with pytest.raises(EngineStoreError) as caught:
        LoadedEngine(package, engines["text"], mini.spec("text"), cache)
    assert "cannot be loaded by tensorrt-rtx" in str(caught.value)
    assert "CUDA driver version is insufficient" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_streams_are_apart_for_the_text_graph(machine: Machine) -> None:
    runtime = machine.ready()
    graphs = {stage: machine.load(runtime, stage) for stage in ("text", "denoise", "decode")}
    streams: dict[str, Stream] = {stage: graph._stream for stage, graph in graphs.items()}
    assert streams["denoise"] is streams["decode"]
    assert streams["text"] is not streams["denoise"]
    for graph in graphs.values():
        graph.close()
