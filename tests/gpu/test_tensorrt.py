"""What only a GPU proves of TensorRT: parity, identity, invariance, capture, frames on the card."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS, GraphSpec
from giffusion.engine.encode import read_metadata
from giffusion.engine.encode.probe import probe_encoder
from giffusion.engine.errors import GiffusionError
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.rendering import render
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.runtimes.base import Graph, Runtime
from giffusion.engine.runtimes.tensorrt.runtime import TensorRtRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.engine.verification import compare_slots

pytestmark = pytest.mark.gpu
BATCH = 8
OpenTensorRt = Callable[..., TensorRtRuntime]
Array = NDArray[Any]
PACKAGES = ("tensorrt", "tensorrt-rtx")
PRECISIONS = ("fp32", "fp16", "bf16")
AXES: dict[str, dict[str, int]] = {
    "text": {"prompts": 1},
    "denoise": {"slots": BATCH, "rows": BATCH, "h": 16, "w": 16},
    "decode": {"images": 4, "h": 16, "w": 16},
}
FEEDBACK = {"next_state": "state"}
# Of a stage's largest value.
MAX_ERRORS = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}
# Mean difference of pictures, in levels of 255.
MAX_LEVELS = {"fp32": 0.05, "fp16": 2.0, "bf16": 4.0}


@pytest.fixture(params=PACKAGES, scope="module")
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PRECISIONS, scope="module")
def runtime(
    request: pytest.FixtureRequest, package: str, open_tensorrt: OpenTensorRt
) -> TensorRtRuntime:
    return open_tensorrt(package, request.param)


@pytest.fixture(scope="module")
def half(package: str, open_tensorrt: OpenTensorRt) -> TensorRtRuntime:
    return open_tensorrt(package, "fp16")


@pytest.fixture(scope="module")
def reference() -> Runtime:
    """The same graphs on the CPU in float32."""
    return open_runtime("onnxruntime", "fp32")


class Loaded:
    """Loads graphs, and closes them at the end of a test."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._graphs: list[Graph] = []

    def __call__(self, of: Runtime, stage: str, feedback: Mapping[str, str] | None = None) -> Graph:
        path = self.model.graph_path(stage, of.graph_dtype)
        self._graphs.append(of.load(path, self.model.spec(stage), AXES[stage], feedback))
        return self._graphs[-1]

    def close(self) -> None:
        for graph in self._graphs:
            graph.close()


@pytest.fixture
def load(mini: Model) -> Iterator[Loaded]:
    loaded = Loaded(mini)
    yield loaded
    loaded.close()


def random_inputs(spec: GraphSpec, seed: int = 0) -> dict[str, Array]:
    random, axes = np.random.default_rng(seed), AXES[spec.name]

    def value(name: str, shape: tuple[int, ...]) -> Array:
        if name == "row_slot":
            return np.arange(axes["rows"], dtype=np.int32)
        if name == "input_ids":
            return random.integers(0, 4096, shape, np.int32)
        return random.standard_normal(shape, np.float32)

    return {t.name: value(t.name, t.resolve(axes)) for t in spec.inputs}


def written(graph: Graph, inputs: Mapping[str, Array]) -> Graph:
    for name, value in inputs.items():
        graph.write(name, value)
    return graph


def outputs(load: Loaded, of: Runtime, stage: str, num_runs: int = 1) -> dict[str, Array]:
    spec = load.model.spec(stage)
    graph = written(load(of, stage), random_inputs(spec))
    for _ in range(num_runs):
        graph.run()
    return {tensor.name: graph.read(tensor.name) for tensor in spec.outputs}


@pytest.mark.parametrize("stage", AXES)
def test_every_stage_is_near_the_cpu_in_float32(
    load: Loaded, runtime: TensorRtRuntime, reference: Runtime, stage: str
) -> None:
    expected = outputs(load, reference, stage)
    for name, found in outputs(load, runtime, stage).items():
        wide = expected[name].astype(float)
        error = np.abs(found - wide)
        share = error.max() / np.abs(wide).max()
        print(f"{stage} {name} {runtime.precision}: {share:.2g}, mean {error.mean():.2g}")
        assert found.dtype == expected[name].dtype
        if found.dtype == np.uint8:
            assert error.mean() <= MAX_LEVELS[runtime.precision]
        else:
            assert share <= MAX_ERRORS[runtime.precision]


def test_an_identity_table_returns_the_state_bit_for_bit(
    load: Loaded, runtime: TensorRtRuntime
) -> None:
    inputs = random_inputs(load.model.spec("denoise"))
    inputs["table"] = np.tile(np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32), (BATCH, 1, 1))
    inputs["state"][1, 2] = np.finfo(np.float32).max
    inputs["state"][2, 3] = np.finfo(np.float32).tiny
    graph = written(load(runtime, "denoise", FEEDBACK), inputs)
    for _ in range(3):  # eager, captured, replayed
        graph.run()
        assert graph.read("state").tobytes() == inputs["state"].tobytes()


def test_a_frame_is_the_same_in_every_slot(mini: Model, runtime: TensorRtRuntime) -> None:
    assert compare_slots(mini, runtime, size=mini.manifest.size, batch=BATCH) == []


def test_a_slot_does_not_depend_on_its_place_or_its_neighbours(
    load: Loaded, runtime: TensorRtRuntime
) -> None:
    spec = load.model.spec("denoise")
    mine, others = random_inputs(spec, 1), random_inputs(spec, 2)
    graph = load(runtime, "denoise")
    results = set()
    for slot in (0, 3, BATCH - 1):
        for neighbours in (False, True):
            inputs = {n: v.copy() if neighbours else np.zeros_like(v) for n, v in others.items()}
            inputs["row_slot"] = np.arange(BATCH, dtype=np.int32)
            for name in ("state", "scale", "time_proj", "cond", "table", "noise"):
                inputs[name][slot] = mine[name][0]
            inputs["mix"][slot] = 0
            inputs["mix"][slot, slot] = 1.5
            written(graph, inputs).run()
            results.add(graph.read("next_state", slot).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("stage", AXES)
def test_a_captured_graph_is_what_its_kernels_are(
    load: Loaded, half: TensorRtRuntime, open_tensorrt: OpenTensorRt, stage: str
) -> None:
    launched = outputs(load, open_tensorrt(half.name, "fp16", cuda_graphs=False), stage)
    for name, replayed in outputs(load, half, stage, num_runs=3).items():
        assert replayed.tobytes() == launched[name].tobytes()


def test_a_resized_graph_is_what_a_fresh_one_of_that_size_is(
    load: Loaded, half: TensorRtRuntime
) -> None:
    small = AXES["denoise"] | {"slots": 2, "rows": 2}
    spec, path = load.model.spec("denoise"), load.model.graph_path("denoise", "fp16")
    inputs = {name: value[:2] for name, value in random_inputs(spec).items()}
    inputs["mix"] = inputs["mix"][:, :2]
    fresh = half.load(path, spec, small)
    resized = load(half, "denoise")
    written(resized, random_inputs(spec, 5)).run()
    before = resized.read("state")
    resized.resize(small)
    np.testing.assert_array_equal(resized.read("state"), before[:2])
    for _ in range(2):
        written(resized, inputs).run()
        written(fresh, inputs).run()
        assert resized.read("next_state").tobytes() == fresh.read("next_state").tobytes()
    fresh.close()


def test_nv12_is_the_rgb_picture_exactly(load: Loaded, runtime: TensorRtRuntime) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from giffusion.export.nv12 import nv12

    found = outputs(load, runtime, "decode")
    levels = torch.from_numpy(found["rgb"]).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(found["nv12"], nv12(levels).numpy())


def test_frames_are_fetched_to_the_host_and_stay_on_the_device(
    load: Loaded, half: TensorRtRuntime
) -> None:
    graph = load(half, "decode")
    latents = random_inputs(load.model.spec("decode"))["latents"]
    expected, fetches = [], []
    for turn in range(6):
        written(graph, {"latents": latents * (1 + turn) / 3}).run()
        fetches.append([graph.fetch("nv12", 1, on_device=place) for place in (False, True)])
    for turn in range(6):
        written(graph, {"latents": latents * (1 + turn) / 3}).run()
        expected.append(graph.read("nv12", 1))
    assert len({frame.tobytes() for frame in expected}) == 6
    for frame, (to_host, _) in zip(expected, fetches, strict=True):
        np.testing.assert_array_equal(to_host.result(), frame)
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA, or finds no GPU")
    for frame, (_, on_device) in zip(expected, fetches, strict=True):
        kept: Any = on_device.result()
        np.testing.assert_array_equal(torch.from_dlpack(kept[:128]).cpu().numpy(), frame[:128])


class Frames:
    """Keeps the frames of a job."""

    backlog = 0
    on_device = False

    pixel_format = PixelFormat.RGB24

    def __init__(self) -> None:
        self.pictures: list[Array] = []

    def write(self, index: int, frame: Any) -> None:
        self.pictures.append(np.array(frame))


SETTINGS = RenderSettings(seed=3, steps=6, negative="a blue background")
TEXT = "0: a dog\n8: a lion"


def rendered(model: Model, of: Runtime, *, shrink_tail: bool = False) -> Array:
    frames = Frames()
    with Engine(model, of, batch=BATCH, shrink_tail=shrink_tail) as engine:
        timeline = Timeline(parse_prompts(TEXT), SETTINGS)
        job = engine.submit("job", timeline, SETTINGS, frames)
        engine.run()
    assert job.error is None
    return np.stack(frames.pictures)


def test_a_render_is_near_the_cpus(
    mini: Model, runtime: TensorRtRuntime, reference: Runtime
) -> None:
    found, expected = rendered(mini, runtime), rendered(mini, reference)
    difference = np.abs(found.astype(float) - expected).mean(axis=(1, 2, 3))
    print(f"{runtime.name} {runtime.precision}: {difference.round(3)}")
    assert expected.std() > 10
    assert difference.max() <= MAX_LEVELS[runtime.precision]


def test_a_render_repeats_and_is_the_same_captured_and_launched(
    mini: Model, half: TensorRtRuntime, open_tensorrt: OpenTensorRt
) -> None:
    replayed = rendered(mini, half).tobytes()
    assert rendered(mini, half).tobytes() == replayed
    launched = rendered(mini, open_tensorrt(half.name, "fp16", cuda_graphs=False))
    assert launched.tobytes() == replayed


def test_a_smaller_tail_changes_little(mini: Model, half: TensorRtRuntime) -> None:
    whole, shrunk = rendered(mini, half), rendered(mini, half, shrink_tail=True)
    assert np.abs(whole.astype(float) - shrunk).mean() < 1


@pytest.mark.parametrize("encoder", ["libx264", "h264_nvenc"])
def test_a_file_is_written_or_nvenc_says_why_not(
    mini: Model, half: TensorRtRuntime, encoder: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.mp4"
    size = (256, 256)  # NVENC takes no smaller than 145

    def write() -> None:
        render(
            TEXT,
            path,
            model=mini,
            settings=RenderSettings(size=size, steps=2),
            runtime=half,
            batch=BATCH,
            encoder=encoder,
        )

    status = probe_encoder(encoder)
    if not status.works:
        with pytest.raises(GiffusionError) as caught:
            write()
        assert status.reason in str(caught.value)
        assert list(tmp_path.iterdir()) == []
        pytest.skip(f"{encoder}: {status.reason}")
    write()
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 9
    assert frames[0].shape == (256, 256, 3)
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 1
    assert half.name in (read_metadata(path) or "")


def test_what_a_runtime_says_of_itself(mini: Model, half: TensorRtRuntime, load: Loaded) -> None:
    load(half, "denoise")
    assert half.numerics["precision"] == "fp16"
    assert half.smaller(32) == (2, 8, 16)
    assert len(half.numerics["engines"]["denoise"]) == 16
    assert half.numerics["device"]
