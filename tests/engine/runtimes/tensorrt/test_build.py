"""Engines of the bundled model, built for real by TensorRT for RTX, which needs no GPU for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import pytest

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import ModelError
from giffusion.engine.model import GRAPHS, Model, graph_names
from giffusion.engine.runtimes.tensorrt.build import (
    build_engine,
    check_network,
    parse_graph,
    read_timings,
    write_timings,
)
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage

DEVICES = ("sm75", "sm86", "sm89", "sm120")
AXES: dict[str, dict[str, int]] = {
    "text": {"prompts": 1},
    "denoise": {"slots": 2, "rows": 2, "h": 16, "w": 16},
    "decode": {"images": 1, "h": 16, "w": 16},
    "encode": {"images": 1, "h": 16, "w": 16},
}
MIN_PLAN_BYTES = 100_000


@pytest.fixture(scope="module")
def rtx() -> TensorRtPackage:
    return TensorRtPackage("tensorrt-rtx")


class Watched:
    """Takes a build's progress; may stop it."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.labels: set[str] = set()
        self.percents: list[int] = []
        self._stop_at = stop_at

    def __call__(self, label: str, done: int, total: int) -> None:
        assert total == 100
        self.labels.add(label)
        self.percents.append(done)
        if self._stop_at is not None and done >= self._stop_at:
            raise KeyboardInterrupt


def devices_of(dtype: str) -> tuple[str, ...]:
    """Turing has no bfloat16, and TensorRT for RTX compiles no float32 products for it."""
    return DEVICES if dtype == "fp16" else DEVICES[1:]


@pytest.mark.parametrize("name", graph_names())
def test_every_graph_builds_for_every_generation_at_once(
    mini: Model, rtx: TensorRtPackage, name: str
) -> None:
    stage, _, dtype = name.partition(".")
    dtype = dtype or "fp32"
    progress = Watched()
    axes = AXES[stage]
    plan = build_engine(
        rtx,
        mini.graph_path(stage, dtype),
        mini.spec(stage),
        [axes],
        devices_of(dtype),
        None,
        progress,
    )
    assert len(plan) > MIN_PLAN_BYTES
    assert progress.labels == {f"building {name} for {', '.join(devices_of(dtype))}"}
    assert progress.percents[0] == 0
    assert progress.percents == sorted(progress.percents)
    assert progress.percents[-1] == 100
    assert len(progress.percents) > 3


def test_a_plan_holds_the_weights_once_for_all_its_profiles(
    mini: Model, rtx: TensorRtPackage
) -> None:
    path, spec = mini.graph_path("denoise", "fp16"), mini.spec("denoise")
    weights = (mini.folder / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    sizes = []
    for batches in ((2,), (2, 4)):
        shapes = [AXES["denoise"] | {"slots": batch, "rows": batch} for batch in batches]
        sizes.append(len(build_engine(rtx, path, spec, shapes, ["sm89"], None, Watched())))
    assert sizes[0] > weights
    assert sizes[1] - sizes[0] < weights


@pytest.mark.parametrize("name", graph_names())
def test_the_parsed_network_is_the_contracts(mini: Model, rtx: TensorRtPackage, name: str) -> None:
    stage = name.partition(".")[0]
    network = parse_graph(rtx, rtx.trt.Builder(rtx.logger), mini.folder / f"{name}.onnx")
    check_network(rtx, network, mini.folder / f"{name}.onnx", mini.spec(stage), [AXES[stage]])
    # Once more without the code under test: what the sampler computes with is float32.
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    spec = mini.spec(stage)
    found = [(t.name, t.dtype.name, len(t.shape)) for t in tensors]
    names = {"float32": "FLOAT", "int32": "INT32", "uint8": "UINT8"}
    assert found == [(t.name, names[t.dtype], len(t.shape)) for t in (*spec.inputs, *spec.outputs)]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_only_the_network_is_in_half_precision(
    mini: Model, rtx: TensorRtPackage, dtype: str
) -> None:
    path = mini.graph_path("denoise", dtype)
    network = parse_graph(rtx, rtx.trt.Builder(rtx.logger), path)
    trt, half = rtx.trt, {"fp16": "HALF", "bf16": "BF16"}[dtype]
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    convolutions = {
        layer.get_output(0).dtype.name
        for layer in layers
        if layer.type == trt.LayerType.CONVOLUTION
    }
    sums = {
        layer.get_output(0).dtype.name for layer in layers if layer.type == trt.LayerType.REDUCE
    }
    assert convolutions == {half}
    assert "FLOAT" in sums
    assert network.get_output(0).dtype == trt.float32


def test_a_stopped_build_raises_what_stopped_it(mini: Model, rtx: TensorRtPackage) -> None:
    progress = Watched(stop_at=10)
    with pytest.raises(KeyboardInterrupt):
        build_engine(
            rtx,
            mini.graph_path("denoise", "fp16"),
            mini.spec("denoise"),
            [AXES["denoise"]],
            ["sm89"],
            None,
            progress,
        )
    assert max(progress.percents) < 100


def refusal(package: TensorRtPackage, path: Path, spec: GraphSpec) -> str:
    with pytest.raises(ModelError) as raised:
        build_engine(package, path, spec, [AXES[spec.name]], ["sm89"], None, Watched())
    message = str(raised.value)
    assert "\n" not in message
    return message


def renamed(spec: GraphSpec, **values: object) -> GraphSpec:
    first: TensorSpec = replace(spec.inputs[0], **values)  # type: ignore[arg-type]
    return replace(spec, inputs=(first, *spec.inputs[1:]))


def test_a_graph_of_other_tensors_is_refused(mini: Model, rtx: TensorRtPackage) -> None:
    path, spec = mini.graph_path("encode"), mini.spec("encode")
    assert refusal(rtx, path, renamed(spec, name="picture")) == (
        f"{path} has the inputs rgb: expected picture of the encode graph; export the model again"
    )
    assert refusal(rtx, path, renamed(spec, dtype="float32")).startswith(
        f"{path} has 'rgb' of type UINT8: expected FLOAT"
    )
    assert f"{path} has 'rgb' of shape" in refusal(
        rtx, path, renamed(spec, shape=("images", "8*h", "8*w", 4))
    )


def test_a_graph_that_cannot_be_read_is_refused(
    mini: Model, rtx: TensorRtPackage, tmp_path: Path
) -> None:
    path = tmp_path / "encode.onnx"
    path.write_bytes(b"no graph")
    assert refusal(rtx, path, mini.spec("encode")).startswith(
        f"{path} cannot be read by tensorrt-rtx {rtx.version}: "
    )
    graph = onnx.load(mini.graph_path("encode"), load_external_data=False)
    onnx.save(graph, path)
    # Its weights lie beside the original.
    assert "cannot be read by" in refusal(rtx, path, mini.spec("encode"))


def test_every_stage_has_a_graph_in_the_list() -> None:
    assert {name.partition(".")[0] for name in graph_names()} == set(GRAPHS)


@dataclass
class Timings:
    """`trt.IBuilderConfig` of the package that times kernels, which is not installed here.

    Args:
        valid: what it takes for timings of this GPU and version.
        foreign: timings of another, which `set_timing_cache` refuses; all else is no timings.
    """

    valid: bytes = b"timings"
    foreign: bytes = b"another GPU's"
    held: bytes | None = None

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content if content in (b"", self.valid, self.foreign) else None

    def set_timing_cache(self, timings: bytes, ignore_mismatch: bool) -> bool:
        assert isinstance(timings, bytes)
        if timings == self.foreign and not ignore_mismatch:
            return False
        self.held = timings
        return True

    def get_timing_cache(self) -> Timings:
        return self

    def serialize(self) -> bytes:
        return self.valid


def test_timings_are_kept_for_the_next_build(tmp_path: Path) -> None:
    path = tmp_path / "timings" / "tensorrt-11-sm89.cache"
    config = Timings()
    read_timings(config, path)
    assert config.held == b""
    write_timings(config, path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = Timings()
    read_timings(again, path)
    assert again.held == b"timings"


@pytest.mark.parametrize("content", [b"another GPU's", b"no timings"])
def test_timings_that_do_not_serve_are_left_out(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "timings"
    path.write_bytes(content)
    config = Timings()
    read_timings(config, path)
    assert config.held == b""


def test_timings_that_cannot_be_kept_do_not_spoil_a_build(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    write_timings(Timings(), tmp_path / "file" / "timings")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_double_has_the_methods_of_the_package(rtx: TensorRtPackage) -> None:
    for name in ("create_timing_cache", "set_timing_cache", "get_timing_cache"):
        assert hasattr(rtx.trt.IBuilderConfig, name)
    assert hasattr(rtx.trt.ITimingCache, "serialize")
