"""What only a GPU proves of the torch runtime: capture, parity, invariance, memory, frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS, GraphSpec
from giffusion.engine.errors import DeviceMemoryError
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import GRAPHS, Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes import choose_runtime
from giffusion.engine.runtimes.base import Graph, Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline

torch = pytest.importorskip("torch", reason="torch is not installed")
from giffusion.export.torch_runtime.runtime import TorchRuntime  # noqa: E402 - it imports torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]

Array = NDArray[Any]
PRECISIONS = ("fp32", "fp16", "bf16")
AXES: dict[str, dict[str, int]] = {
    "text": {"prompts": 3},
    "denoise": {"slots": 8, "rows": 8, "h": 16, "w": 16},
    "decode": {"images": 2, "h": 16, "w": 12},
    "encode": {"images": 2, "h": 4, "w": 12},
}
FED = {"next_state": "state"}
# Of a stage's largest value.
MAX_ERRORS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}


@cache
def runtime(precision: str, *, cuda_graphs: bool = True) -> TorchRuntime:
    return TorchRuntime(precision, cuda_graphs=cuda_graphs)


@pytest.fixture(scope="session")
def reference() -> Runtime:
    """The same graphs on the CPU in float32."""
    from giffusion.engine.runtimes import open_runtime

    return open_runtime("onnxruntime", "fp32")


def random_inputs(spec: GraphSpec, axes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)

    def value(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        if name == "row_slot":
            return (np.arange(axes["rows"]) % axes["slots"]).astype(np.int32)
        if name == "input_ids":
            return random.integers(0, 4096, shape, np.int32)
        if dtype == "uint8":
            return random.integers(0, 256, shape, np.uint8)
        return random.standard_normal(shape, np.float32)

    return {t.name: value(t.name, t.dtype, t.resolve(axes)) for t in spec.inputs}


def loaded(model: Model, of: Runtime, stage: str, feedback: Mapping[str, str] | None = None) -> Any:
    return of.load(model.graph_path(stage), model.spec(stage), AXES[stage], feedback)


def written(graph: Graph, inputs: Mapping[str, Array]) -> Graph:
    for name, value in inputs.items():
        graph.write(name, value)
    return graph


def outputs(model: Model, of: Runtime, stage: str) -> dict[str, Array]:
    spec = model.spec(stage)
    graph = written(loaded(model, of, stage), random_inputs(spec, AXES[stage]))
    graph.run()
    return {tensor.name: graph.read(tensor.name) for tensor in spec.outputs}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", GRAPHS)
def test_every_stage_is_near_the_cpu_in_float32(
    mini: Model, reference: Runtime, stage: str, precision: str
) -> None:
    expected = outputs(mini, reference, stage)
    for name, found in outputs(mini, runtime(precision), stage).items():
        wide = expected[name].astype(float)
        error, largest = np.abs(found - wide).max(), np.abs(wide).max()
        print(f"{stage} {name} {precision}: {error / largest:.2g}")
        assert found.dtype == expected[name].dtype
        limit = MAX_ERRORS["fp32" if stage in ("text", "encode") else precision] * largest
        # A picture is rounded to whole levels: what lies between two of them can go to either.
        assert error <= (max(limit, 1.0) if found.dtype == np.uint8 else limit)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", GRAPHS)
def test_a_captured_graph_is_what_its_kernels_are(mini: Model, stage: str, precision: str) -> None:
    launched = outputs(mini, runtime(precision, cuda_graphs=False), stage)
    for name, replayed in outputs(mini, runtime(precision), stage).items():
        assert replayed.tobytes() == launched[name].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_identity_table_returns_the_state_bit_for_bit(mini: Model, precision: str) -> None:
    inputs = random_inputs(mini.spec("denoise"), AXES["denoise"])
    inputs["table"] = np.tile(np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32), (8, 1, 1))
    inputs["state"][0, 1] = np.float32(1e-45)
    inputs["state"][1, 2] = np.finfo(np.float32).max
    graph = written(loaded(mini, runtime(precision), "denoise", FED), inputs)
    for _ in range(3):
        graph.run()
    assert graph.read("state").tobytes() == inputs["state"].tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_replays_and_loads_repeat_bit_for_bit(mini: Model, precision: str) -> None:
    inputs = random_inputs(mini.spec("denoise"), AXES["denoise"])
    results = set()
    for _ in range(2):
        graph = loaded(mini, runtime(precision), "denoise")
        for _ in range(3):
            written(graph, inputs).run()
            results.add(graph.read("next_state").tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_slot_does_not_depend_on_its_place_or_its_neighbours(mini: Model, precision: str) -> None:
    spec, axes = mini.spec("denoise"), AXES["denoise"]
    mine, others = random_inputs(spec, axes, 1), random_inputs(spec, axes, 2)
    graph = loaded(mini, runtime(precision), "denoise")
    results = set()
    for slot in (0, 3, 7):
        for neighbours in (False, True):
            inputs = {n: v.copy() if neighbours else np.zeros_like(v) for n, v in others.items()}
            inputs["row_slot"] = np.arange(8, dtype=np.int32)
            for name in ("state", "scale", "time_proj", "cond", "table", "noise"):
                inputs[name][slot] = mine[name][0]
            inputs["mix"][slot] = 0
            inputs["mix"][slot, slot] = 1.5
            written(graph, inputs).run()
            results.add(graph.read("next_state", slot).tobytes())
    assert len(results) == 1


def test_a_resized_graph_is_what_a_fresh_one_of_that_size_is(mini: Model) -> None:
    of = runtime("fp16")
    spec = mini.spec("denoise")
    small = AXES["denoise"] | {"slots": 2, "rows": 2}
    inputs = random_inputs(spec, small)
    fresh = written(of.load(mini.graph_path("denoise"), spec, small, FED), inputs)
    others = random_inputs(spec, AXES["denoise"], seed=5)
    # Rows that stay name slots that go: nothing may look for those before they are written again.
    others["row_slot"] = np.arange(8, dtype=np.int32)[::-1].copy()
    resized = written(loaded(mini, of, "denoise", FED), others)
    resized.run()
    before = resized.read("state")
    for _ in range(2):
        resized.resize(small)
        assert np.array_equal(resized.read("state"), before[:2])
        written(resized, inputs).run()
        written(fresh, inputs).run()
        assert resized.read("state").tobytes() == fresh.read("state").tobytes()
        resized.resize(AXES["denoise"])
        # Entries beyond the small size were left alone.
        assert np.array_equal(resized.read("state")[2:], before[2:])
        before = resized.read("state")


def test_graphs_are_captured_again_after_all_were_closed(mini: Model) -> None:
    of = TorchRuntime("fp16")
    inputs = random_inputs(mini.spec("denoise"), AXES["denoise"])
    results, memory = set(), []
    for _ in range(3):
        graphs = [written(loaded(mini, of, "denoise"), inputs) for _ in range(2)]
        for graph in graphs:
            graph.run()
            results.add(graph.read("next_state").tobytes())
            graph.close()
        memory.append(torch.cuda.memory_allocated())
    assert len(results) == 1
    assert memory[2] <= memory[0]


def test_frames_are_fetched_to_the_host_and_stay_on_the_device(mini: Model) -> None:
    graph = loaded(mini, runtime("fp16"), "decode")
    latents = random_inputs(mini.spec("decode"), AXES["decode"])["latents"]
    expected, fetches = [], []
    for turn in range(6):
        graph.write("latents", latents * (1 + turn) / 3)
        graph.run()
        fetches.append([graph.fetch("nv12", 1, on_device=place) for place in (False, True)])
    for turn in range(6):
        graph.write("latents", latents * (1 + turn) / 3)
        graph.run()
        expected.append(graph.read("nv12", 1))
    assert len({frame.tobytes() for frame in expected}) == 6
    for frame, (to_host, on_device) in zip(expected, fetches, strict=True):
        assert np.array_equal(to_host.result(), frame)
        kept: Any = on_device.result()
        assert kept.is_cuda
        assert kept.__dlpack_device__()[0] == 2  # kDLCUDA
        assert np.array_equal(torch.from_dlpack(kept[:128]).cpu().numpy(), frame[:128])


def test_memory_that_is_used_up_is_said_in_a_line_and_comes_back(mini: Model) -> None:
    of = TorchRuntime("fp16")
    path, spec = mini.graph_path("decode"), mini.spec("decode")
    share = torch.cuda.memory_reserved() + (1 << 30)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, share / total))
    try:
        with pytest.raises(DeviceMemoryError) as caught:
            of.load(path, spec, {"images": 64, "h": 128, "w": 128})
        assert "\n" not in str(caught.value)
        graph = of.load(path, spec, {"images": 1, "h": 16, "w": 16})
        graph.run()
        assert graph.read("rgb").shape == (1, 128, 128, 3)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


class Frames:
    """Keeps the frames of a job."""

    backlog = 0
    pixel_format = PixelFormat.RGB24
    on_device = False

    def __init__(self) -> None:
        self.pictures: list[Array] = []

    def write(self, index: int, frame: Any) -> None:
        self.pictures.append(np.array(frame))


def rendered(model: Model, of: Runtime, *, shrink_tail: bool = False) -> Array:
    settings = RenderSettings(seed=3, steps=6, negative="a blue background")
    frames = Frames()
    with Engine(model, of, batch=8, shrink_tail=shrink_tail) as engine:
        timeline = Timeline(parse_prompts("0: a dog\n8: a lion"), settings)
        job = engine.submit("job", timeline, settings, frames)
        engine.run()
    assert job.error is None
    return np.stack(frames.pictures)


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 0.05), ("fp16", 1.0), ("bf16", 3.0)])
def test_a_render_is_near_the_cpus(
    mini: Model, reference: Runtime, precision: str, levels: float
) -> None:
    found, expected = rendered(mini, runtime(precision)), rendered(mini, reference)
    difference = np.abs(found.astype(float) - expected).mean(axis=(1, 2, 3))
    print(f"{precision}: {difference.round(3)}")
    assert expected.std() > 10
    assert difference.max() <= levels


def test_a_render_is_the_same_captured_and_launched(mini: Model) -> None:
    replayed = rendered(mini, runtime("fp16"))
    launched = rendered(mini, runtime("fp16", cuda_graphs=False))
    assert replayed.tobytes() == launched.tobytes()


def test_a_smaller_tail_changes_little(mini: Model) -> None:
    whole = rendered(mini, runtime("fp16"))
    shrunk = rendered(mini, runtime("fp16"), shrink_tail=True)
    assert np.abs(whole.astype(float) - shrunk).mean() < 1


def test_auto_takes_the_gpu() -> None:
    runtime, reason = choose_runtime()
    assert runtime.name in ("tensorrt", "tensorrt-rtx", "torch")
    assert reason.startswith(f"{runtime.name} fp16 (it works on this GPU")


def test_what_a_runtime_says_of_itself() -> None:
    of = TorchRuntime()
    assert of.precision == "fp16"
    assert of.decode_batch == 4
    assert of.smaller(32) == (2, 8, 16)
    assert of.numerics["device"] == torch.cuda.get_device_name()
