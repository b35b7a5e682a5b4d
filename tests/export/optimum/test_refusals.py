"""Folders and graphs that are not what Optimum makes of a model that is rendered: one line each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from giffusion.engine.errors import GiffusionError
from giffusion.export.optimum.folder import open_optimum
from giffusion.export.optimum.networks import load_network
from giffusion.export.optimum.sinusoid import cut_at_sinusoid
from tests.export.optimum.graphs import edit_json

Folders = Callable[[str], tuple[Path, Path]]
INPUTS = ["sample", "timestep", "encoder_hidden_states"]


@pytest.fixture
def optimum(folders: Folders, tmp_path: Path) -> Path:
    """A folder to spoil."""
    return shutil.copytree(folders("sd")[1], tmp_path / "optimum")


def refused(action: Callable[[], object], *parts: str) -> None:
    with pytest.raises(GiffusionError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for part in parts:
        assert part in message


def load(folder: Path) -> ir.Model:
    return load_network(folder / "unet" / "model.onnx", INPUTS, ["out_sample"])


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/model.onnx",
        "vae_encoder/model.onnx",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_a_missing_file(optimum: Path, missing: str) -> None:
    (optimum / missing).unlink()
    refused(lambda: open_optimum(optimum), str(optimum / missing), "is missing", "expected")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("unet", "sample_size", "64"),
        ("unet", "sample_size", None),
        ("unet", "block_out_channels", 320),
        ("unet", "in_channels", 9),
        ("text_encoder", "hidden_size", 0),
        ("text_encoder", "max_position_embeddings", [77]),
        ("vae_decoder", "scaling_factor", None),
        ("vae_decoder", "scaling_factor", -1),
        ("vae_encoder", "scaling_factor", True),
        ("vae_encoder", "latent_channels", 16),
    ],
)
def test_a_wrong_configuration(optimum: Path, file: str, key: str, value: object) -> None:
    edit_json(optimum / file / "config.json", **{key: value})
    refused(lambda: open_optimum(optimum), str(optimum / file), "expected")


@pytest.mark.parametrize("content", [b"", b"\x08", b"\xff" * 100, b'{"a": 1}'])
def test_a_file_that_is_no_graph(optimum: Path, content: bytes) -> None:
    path = optimum / "unet" / "model.onnx"
    path.write_bytes(content)
    refused(lambda: load(optimum), str(path))


def test_a_graph_that_is_cut_short(optimum: Path) -> None:
    path = optimum / "unet" / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(lambda: load(optimum), str(path))


def edited(optimum: Path, change: Callable[[ir.Model], object]) -> Path:
    path = optimum / "unet" / "model.onnx"
    model = ir.load(path)
    change(model)
    ir.save(model, path)
    return optimum


def test_other_inputs(optimum: Path) -> None:
    edited(optimum, lambda model: setattr(model.graph.inputs[0], "name", "down_block_0"))
    refused(lambda: load(optimum), "down_block_0", "expected sample")


def test_other_outputs(optimum: Path) -> None:
    edited(optimum, lambda model: setattr(model.graph.outputs[0], "name", "noise"))
    refused(lambda: load(optimum), "no output out_sample")


def test_half_precision(optimum: Path) -> None:
    half = ir.TensorType(ir.DataType.FLOAT16)
    edited(optimum, lambda model: setattr(model.graph.inputs[0], "type", half))
    refused(lambda: load(optimum), "sample of float16", "expected float", "fp32")


def test_fixed_axes(optimum: Path) -> None:
    fixed = ir.Shape(["batch_size", 4, 64, 64])
    edited(optimum, lambda model: setattr(model.graph.inputs[0], "shape", fixed))
    refused(lambda: load(optimum), "an axis that is always 64", "--no-dynamic-axes")


def test_operators_outside_onnx(optimum: Path) -> None:
    edited(optimum, lambda model: setattr(model.graph[3], "domain", "com.microsoft"))
    refused(lambda: load(optimum), "com.microsoft.", "--optimize")


def test_random_numbers(optimum: Path) -> None:
    def draw(model: ir.Model) -> None:
        end = model.graph.outputs[0]
        noise = ir.node("RandomNormalLike", [end])
        model.graph.append(noise)

    edited(optimum, draw)
    refused(lambda: load(optimum), "random", "RandomNormalLike")


@pytest.mark.parametrize(
    ("location", "part"),
    [
        ("../weights", "expected a file beside it"),
        ("/etc/passwd", "expected a file beside it"),
        ("sub/weights", "expected a file beside it"),
        ("..", "expected a file beside it"),
        ("gone", "is missing"),
        ("short", "is too short"),
    ],
)
def test_weights_elsewhere(optimum: Path, location: str, part: str) -> None:
    (optimum / "unet" / "short").write_bytes(b"\0" * 8)

    def move(model: ir.Model) -> None:
        value = next(v for v in model.graph.initializers.values() if v.const_value is not None)
        tensor = value.const_value
        assert tensor is not None
        shape = ir.Shape([64, 64])
        value.const_value = ir.ExternalTensor(
            location, 0, 4 * 64 * 64, ir.DataType.FLOAT, shape=shape, name=value.name or ""
        )

    edited(optimum, move)
    refused(lambda: load(optimum), part)


def test_a_timestep_that_is_used_elsewhere(optimum: Path) -> None:
    def use(model: ir.Model) -> None:
        end = model.graph.outputs[0]
        (timestep,) = (v for v in model.graph.inputs if v.name == "timestep")
        added = ir.node("Add", [end, timestep], outputs=[ir.Value(name="sum", type=end.type)])
        model.graph.append(added)
        model.graph.outputs.append(added.outputs[0])

    model = load(edited(optimum, use))
    refused(lambda: cut_at_sinusoid(model, optimum), "timestep besides the sinusoid")


def test_a_timestep_without_a_sinusoid(optimum: Path) -> None:
    def rename(model: ir.Model) -> None:
        for node in model.graph:
            if node.op_type in ("Sin", "Cos"):
                node.op_type = "Tanh"

    model = load(edited(optimum, rename))
    refused(lambda: cut_at_sinusoid(model, optimum), "0 places", "expected one sinusoid")
