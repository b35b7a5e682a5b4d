"""The torch runtime on the CPU: exact where the contract says so, and equal to ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS, GraphSpec
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import GRAPHS, Model, load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes.base import Graph, Runtime, num_cores
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.export.stages import weights_file
from giffusion.export.torch_runtime.runtime import TorchRuntime

OpenCpu = Callable[[str, str], Runtime]
Array = NDArray[Any]

# On the CPU whether or not there is a GPU: tests/gpu compares the two.
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="torch would choose the GPU")

AXES: dict[str, dict[str, int]] = {
    "text": {"prompts": 3},
    "denoise": {"slots": 3, "rows": 5, "h": 16, "w": 12},
    "decode": {"images": 2, "h": 16, "w": 12},
    "encode": {"images": 2, "h": 4, "w": 12},
}
# Measured on one CPU, largest differences: text 6e-6, denoise 6e-6, encode 6e-7.
TOLERANCES = {"prompt_embeds": 5e-5, "next_state": 5e-5, "latents": 1e-5, "rgb": 1, "nv12": 1}


@pytest.fixture(scope="module")
def open_torch() -> Callable[[str], TorchRuntime]:
    return cache(TorchRuntime)


def random_inputs(spec: GraphSpec, axes: Mapping[str, int]) -> dict[str, Array]:
    random = np.random.default_rng(0)

    def value(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        if name == "row_slot":
            return (np.arange(axes["rows"]) % axes["slots"]).astype(np.int32)
        if name == "input_ids":
            return random.integers(0, 4096, shape, np.int32)
        if dtype == "uint8":
            return random.integers(0, 256, shape, np.uint8)
        return random.standard_normal(shape, np.float32)

    return {t.name: value(t.name, t.dtype, t.resolve(axes)) for t in spec.inputs}


def outputs(model: Model, runtime: Runtime, stage: str) -> dict[str, Array]:
    spec = model.spec(stage)
    graph = runtime.load(model.graph_path(stage), spec, AXES[stage])
    for name, value in random_inputs(spec, AXES[stage]).items():
        graph.write(name, value)
    graph.run()
    return {tensor.name: graph.read(tensor.name) for tensor in spec.outputs}


@pytest.mark.parametrize("stage", GRAPHS)
def test_every_stage_equals_onnx_runtime(
    mini: Model, open_cpu: OpenCpu, open_torch: Callable[[str], TorchRuntime], stage: str
) -> None:
    expected = outputs(mini, open_cpu("onnxruntime", "fp32"), stage)
    found = outputs(mini, open_torch("fp32"), stage)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        assert array.astype(float).std() > 0.05
        error = np.abs(array.astype(float) - expected[name]).max()
        print(f"{stage} {name}: {error:.2g}")
        assert error <= TOLERANCES[name], name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["free", "busy"])
def test_an_identity_table_returns_the_state_bit_for_bit(
    mini: Model, open_torch: Callable[[str], TorchRuntime], precision: str, weight: float
) -> None:
    spec, axes = mini.spec("denoise"), AXES["denoise"]
    graph = open_torch(precision).load(
        mini.graph_path("denoise"), spec, axes, {"next_state": "state"}
    )
    inputs = random_inputs(spec, axes)
    inputs["table"] = np.tile(np.eye(STATE_ROWS, TABLE_COLUMNS, dtype=np.float32), (3, 1, 1))
    inputs["mix"] *= np.float32(weight)
    # Denormal values, and as large as float32 gets, in rows that the network does not see.
    inputs["state"][0, 1] = np.float32(1e-45)
    inputs["state"][1, 2] = np.finfo(np.float32).max
    for name, value in inputs.items():
        graph.write(name, value)
    for _ in range(3):
        graph.run()
    assert graph.read("state").tobytes() == inputs["state"].tobytes()


def test_bfloat16_is_used_and_stays_near(
    mini: Model, open_torch: Callable[[str], TorchRuntime]
) -> None:
    wide, narrow = (outputs(mini, open_torch(p), "denoise")["next_state"] for p in ("fp32", "bf16"))
    difference = np.abs(wide - narrow).max() / np.abs(wide).max()
    assert 1e-4 < difference < 0.05


@pytest.mark.parametrize(("stage", "name"), [("text", "prompt_embeds"), ("encode", "latents")])
def test_texts_and_pictures_are_encoded_in_float32_always(
    mini: Model, open_torch: Callable[[str], TorchRuntime], stage: str, name: str
) -> None:
    wide, narrow = (outputs(mini, open_torch(p), stage)[name] for p in ("fp32", "bf16"))
    assert wide.tobytes() == narrow.tobytes()


class Recorder:
    """A runtime that keeps the latents which are decoded."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.latents: list[Array] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def load(self, path: Path, spec: GraphSpec, *rest: Any, **named: Any) -> Any:
        graph = self._runtime.load(path, spec, *rest, **named)
        return _RecordingGraph(graph, self.latents) if spec.name == "decode" else graph


class _RecordingGraph:
    def __init__(self, graph: Graph, latents: list[Array]) -> None:
        self._graph, self._latents = graph, latents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._graph, name)

    def run(self) -> None:
        self._latents.append(self._graph.read("latents", 0))
        self._graph.run()


class Frames:
    """Keeps the frames of a job."""

    backlog = 0
    on_device = False

    def __init__(self, pixel_format: PixelFormat) -> None:
        self.pixel_format = pixel_format
        self.pictures: list[Array] = []

    def write(self, index: int, frame: Any) -> None:
        assert index == len(self.pictures)
        self.pictures.append(np.array(frame))


def render(model: Model, runtime: Runtime, pixel_format: PixelFormat) -> tuple[Array, Array]:
    """Renders three frames of two prompts; returns latents and pictures."""
    settings = RenderSettings(
        seed=3, steps=6, guidance=5.0, negative="a blue background", size=(128, 128)
    )
    recorder: Any = Recorder(runtime)
    frames = Frames(pixel_format)
    with Engine(model, recorder, size=settings.size, batch=4) as engine:
        timeline = Timeline(parse_prompts("0: a dog\n2: a lion"), settings)
        job = engine.submit("job", timeline, settings, frames)
        engine.run()
    assert job.error is None
    return np.stack(recorder.latents), np.stack(frames.pictures)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_render_equals_onnx_runtimes(
    mini: Model,
    open_cpu: OpenCpu,
    open_torch: Callable[[str], TorchRuntime],
    pixel_format: PixelFormat,
) -> None:
    latents, pictures = render(mini, open_torch("fp32"), pixel_format)
    expected = render(mini, open_cpu("onnxruntime", "fp32"), pixel_format)
    expected_latents, expected_pictures = expected
    assert pictures.shape == (3, *pixel_format.shape((128, 128)))
    assert pictures.std() > 10
    error = np.abs(latents - expected_latents).max() / np.abs(expected_latents).max()
    levels = np.abs(pictures.astype(int) - expected_pictures).max()
    print(f"latents {error:.2g}, pictures {levels}")
    assert error <= 1e-4
    assert levels <= 1


def test_graphs_of_a_stage_share_its_weights(mini: Model) -> None:
    loads: list[tuple[str, str]] = []

    def load_stage(folder: Path, stage: str, dtype: str) -> torch.nn.Module:
        from giffusion.export.stages import load_stage

        loads.append((stage, dtype))
        return load_stage(folder, stage, dtype)

    runtime = TorchRuntime("bf16", load_stage=load_stage)
    path, spec = mini.graph_path("decode"), mini.spec("decode")
    first = runtime.load(path, spec, {"images": 1, "h": 16, "w": 16})
    second = runtime.load(path, spec, {"images": 2, "h": 16, "w": 8})
    assert loads == [("decode", "bf16")]
    first.close()
    second.close()
    # Nobody uses them: the memory is free for another model, and they are read again.
    runtime.load(path, spec, {"images": 1, "h": 16, "w": 16})
    assert len(loads) == 2


def test_loading_prints_nothing(mini: Model, capfd: pytest.CaptureFixture[str]) -> None:
    runtime = TorchRuntime()
    for stage in GRAPHS:
        runtime.load(mini.graph_path(stage), mini.spec(stage), AXES[stage])
    assert capfd.readouterr() == ("", "")


def test_what_a_runtime_says_of_itself(mini: Model) -> None:
    runtime = TorchRuntime()
    assert runtime.precision == "fp32"
    assert runtime.numerics == {
        "runtime": "torch",
        "runtime_version": torch.__version__,
        "precision": "fp32",
        "device": "cpu",
        "decode_batch": 1,
    }
    assert (runtime.num_lanes, runtime.graph_dtype, runtime.on_device) == (1, "fp32", False)
    assert runtime.smaller(32) == ()
    assert torch.get_num_threads() == num_cores()
    told: list[Any] = []
    runtime.prepare(mini, size=(128, 128), batch=4, on_progress=lambda *made: told.append(made))
    assert told == []


def test_other_precisions_are_refused_in_a_line() -> None:
    with pytest.raises(SettingsError, match="expected fp32 or bf16") as caught:
        TorchRuntime("fp16")
    assert "\n" not in str(caught.value)
    assert "no GPU is found here" in str(caught.value)


def copy_of(model: Model, folder: Path) -> Model:
    shutil.copytree(model.folder, folder)
    return load_model(folder)


def refusal(model: Model, stage: str) -> str:
    with pytest.raises(ModelError) as caught:
        TorchRuntime().load(model.graph_path(stage), model.spec(stage), AXES[stage])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("stage", GRAPHS)
def test_a_folder_without_the_checkpoint_is_refused_in_a_line(
    mini: Model, tmp_path: Path, stage: str
) -> None:
    model = copy_of(mini, tmp_path / "copy")
    part = {"text": "text_encoder", "denoise": "unet", "decode": "vae", "encode": "vae"}[stage]
    shutil.rmtree(model.folder / part)
    assert str(model.folder) in refusal(model, stage)


def test_a_model_of_graphs_alone_is_told_what_renders_it(mini: Model, tmp_path: Path) -> None:
    model = copy_of(mini, tmp_path / "copy")
    weights = weights_file(model.folder, "unet")
    weights.unlink()
    assert refusal(model, "denoise") == (
        f"{weights} is missing: expected safetensors weights, of which runtime 'torch' makes the "
        "denoise stage: choose runtime 'onnxruntime' for a model of graphs alone, as Optimum's are"
    )


@pytest.mark.parametrize(
    ("stage", "part", "change", "message"),
    [
        ("denoise", "unet", {"cross_attention_dim": 96}, "96) by its config"),
        ("denoise", "unet", {"layers_per_block": 9}, "lacks down_blocks.0.resnets.2."),
        ("text", "text_encoder", {"hidden_size": 96}, "96) by its config"),
        ("decode", "vae", {"latent_channels": 8}, "by its config"),
        ("text", "text_encoder", {"hidden_size": "wide"}, "a config.json that is no CLIPTextModel"),
    ],
)
def test_weights_that_do_not_fit_their_config_are_refused_in_a_line(
    mini: Model, tmp_path: Path, stage: str, part: str, change: dict[str, object], message: str
) -> None:
    model = copy_of(mini, tmp_path / "copy")
    config = model.folder / part / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    found = refusal(model, stage)
    assert found.startswith(f"{model.folder / part}")
    assert message in found


@pytest.mark.parametrize(("stage", "part"), [("text", "text_encoder"), ("denoise", "unet")])
def test_files_that_are_no_weights_are_refused_in_a_line(
    mini: Model, tmp_path: Path, stage: str, part: str
) -> None:
    model = copy_of(mini, tmp_path / "copy")
    file = weights_file(model.folder, part)
    content = file.read_bytes()
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    assert refusal(model, stage).startswith(f"{file} is not a safetensors file: expected ")
    # The index is whole, and safetensors itself has something against the rest.
    file.write_bytes(content + b"more")
    assert "cannot be loaded by torch: " in refusal(model, stage)


def test_a_network_of_other_widths_than_the_manifests_is_refused(
    mini: Model, tmp_path: Path
) -> None:
    model = copy_of(mini, tmp_path / "copy")
    manifest = model.folder / "giffusion.json"
    entries = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(entries | {"text_dims": [96], "time_dim": 32}))
    other = load_model(model.folder)
    assert "prompt_embeds of width 192: expected 96" in refusal(other, "text")
    assert "time_proj of width 64: expected 32" in refusal(other, "denoise")
