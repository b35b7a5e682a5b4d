"""The index of a safetensors file, and graphs whose weights become references into it."""

from __future__ import annotations

import itertools
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.tensors import stored_tensors
from giffusion.export.weights import MAX_INLINE_BYTES, share_weights

FLOAT = onnx.TensorProto.FLOAT
TYPES = {"float32": FLOAT, "float16": onnx.TensorProto.FLOAT16}
Array = NDArray[Any]


def values(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def brain(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_the_index_says_where_each_floating_point_tensor_lies(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = {
        "single": torch.randn(3, 5),
        "half": torch.randn(2, 3, 4).half(),
        "brain": torch.randn(7).bfloat16(),
        "scalar": torch.tensor(2.5),
        "positions": torch.arange(24),
    }
    save_torch_file(tensors, file, metadata={"format": "pt"})
    raw = file.read_bytes()
    index = {tensor.name: tensor for tensor in stored_tensors(file)}
    assert index.keys() == {"single", "half", "brain", "scalar"}
    assert [index[name].dtype for name in ("single", "half", "brain")] == [
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
        ir.DataType.BFLOAT16,
    ]
    for name, tensor in index.items():
        expected = tensors[name]
        assert tensor.file == file
        assert tensor.shape == tuple(expected.shape)
        stored = raw[tensor.offset : tensor.offset + tensor.length]
        assert stored == expected.flatten().view(torch.uint8).numpy().tobytes()
        assert np.array_equal(tensor.read().astype(np.float32), expected.float().numpy())


def safetensors_bytes(header: object, data: bytes = bytes(16)) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(**changes: object) -> dict[str, object]:
    return {"t": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}


def test_a_header_made_by_hand_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(safetensors_bytes(entry()))
    (tensor,) = stored_tensors(file)
    assert (tensor.name, tensor.shape, tensor.length) == ("t", (2, 2), 16)
    assert tensor.offset == file.stat().st_size - 16


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x08\x00", id="shorter than the length"),
        pytest.param(struct.pack("<Q", 2**62) + b"{}", id="header longer than the file"),
        pytest.param(struct.pack("<Q", 4) + b"nope", id="not JSON"),
        pytest.param(struct.pack("<Q", 2) + b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", id="pointer"),
        pytest.param(safetensors_bytes([]), id="not an object"),
        pytest.param(safetensors_bytes({"t": 3}), id="an entry that is no object"),
        pytest.param(safetensors_bytes({"t": {"dtype": "F32", "shape": [4]}}), id="no offsets"),
        pytest.param(safetensors_bytes(entry(data_offsets=[0])), id="one offset"),
        pytest.param(safetensors_bytes(entry(data_offsets=["0", "16"])), id="offsets as text"),
        pytest.param(safetensors_bytes(entry(data_offsets=[-16, 0])), id="before the data"),
        pytest.param(safetensors_bytes(entry(data_offsets=[16, 0])), id="backwards"),
        pytest.param(safetensors_bytes(entry(shape=[3, 2])), id="a shape of another length"),
        pytest.param(safetensors_bytes(entry(shape=None)), id="no shape"),
        pytest.param(safetensors_bytes(entry(), data=bytes(15)), id="cut short"),
    ],
)
def test_a_malformed_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="is not a safetensors file: expected") as caught:
        stored_tensors(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def traced(shapes: dict[str, tuple[int, ...]], dtype: str = "float32") -> ir.Model:
    """A graph as the tracer leaves it, which returns each weight times x; weights have no value."""
    helper, kind = onnx.helper, TYPES[dtype]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", name], [f"{name}_out"]) for name in shapes],
        "graph",
        [helper.make_tensor_value_info("x", kind, [])],
        [
            helper.make_tensor_value_info(f"{name}_out", kind, shape)
            for name, shape in shapes.items()
        ],
        [
            onnx.numpy_helper.from_array(np.zeros(shape, dtype), name)
            for name, shape in shapes.items()
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = ir.serde.deserialize_model(proto)
    for value in model.graph.initializers.values():
        value.const_value = None
    return model


def shared(folder: Path, model: ir.Model, *files: Path, key: Callable[[str], str] = str) -> Path:
    """Shares a graph's weights with files and saves it there."""
    weights = {tensor.name: tensor for file in files for tensor in stored_tensors(file)}
    share_weights(model, weights, folder, key)
    path = folder / "graph.onnx"
    ir.save(model, path)
    return path


def operators(path: Path) -> list[str]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return [node.op_type for node in nodes if node.op_type != "Mul"]


def external(path: Path) -> dict[str, dict[str, str]]:
    """Where the graph's initializers lie, by name; nothing for those in the graph file itself."""
    graph = onnx.load(path, load_external_data=False).graph
    return {i.name: {item.key: item.value for item in i.external_data} for i in graph.initializer}


def run(path: Path, name: str, dtype: str = "float32") -> Array:
    """Returns a weight times one, as the graph has it where it lies."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run([f"{name}_out"], {"x": np.array(1, dtype)})
    result: Array = output
    return result


def test_a_weight_is_a_reference_to_where_it_is_stored(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "weights.safetensors"
    stored = values(60, 40)
    save_file({"other": values(90, 30, seed=1), "weight": stored}, file)
    path = shared(tmp_path, traced({"weight": (60, 40)}), file)
    (tensor,) = (t for t in stored_tensors(file) if t.name == "weight")
    where = external(path)["weight"]
    assert where["location"] == "unet/weights.safetensors"
    assert (int(where["offset"]), int(where["length"])) == (tensor.offset, tensor.length)
    assert operators(path) == []
    assert run(path, "weight").tobytes() == stored.tobytes()


@pytest.mark.parametrize("computed", ["float32", "float16"])
@pytest.mark.parametrize("kept", ["float32", "float16", "bfloat16"])
def test_weights_of_another_type_are_cast_where_they_are_used(
    tmp_path: Path, kept: str, computed: str
) -> None:
    weight = brain(60, 40).to(getattr(torch, kept))
    file = tmp_path / "weights.safetensors"
    save_torch_file({"weight": weight}, file)
    path = shared(tmp_path, traced({"weight": (60, 40)}, computed), file)
    assert operators(path) == ([] if kept == computed else ["Cast"])
    # The weight keeps its name in either case, so that it can be found by it.
    assert external(path)["weight"]["location"] == "weights.safetensors"
    expected = weight.to(getattr(torch, computed)).numpy()
    assert run(path, "weight", computed).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("kept", "computed"), list(itertools.product(["float32", "float16", "bfloat16"], TYPES))
)
def test_small_weights_are_in_the_graph_file(tmp_path: Path, kept: str, computed: str) -> None:
    file = tmp_path / "weights.safetensors"
    itemsize = getattr(torch, kept).itemsize
    small, large = MAX_INLINE_BYTES // itemsize, MAX_INLINE_BYTES // itemsize + 1
    weights = {
        "small": brain(small).to(getattr(torch, kept)),
        "large": brain(large).to(getattr(torch, kept)),
    }
    save_torch_file(weights, file)
    path = shared(tmp_path, traced({"small": (small,), "large": (large,)}, computed), file)
    assert {name: bool(where) for name, where in external(path).items()} == {
        "small": False,
        "large": True,
    }
    for name, weight in weights.items():
        expected = weight.to(getattr(torch, computed)).numpy()
        assert run(path, name, computed).tobytes() == expected.tobytes()


def test_weights_may_lie_in_several_files_and_have_names_of_their_own(tmp_path: Path) -> None:
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    arrays = {"a": values(60, 40), "b": values(30, 70, seed=1)}
    for file, (name, array) in zip(files, arrays.items(), strict=True):
        save_file({name.upper(): array}, file)
    model = traced({name: array.shape for name, array in arrays.items()})
    path = shared(tmp_path, model, *files, key=str.upper)
    for name, array in arrays.items():
        assert run(path, name).tobytes() == array.tobytes()
    locations = {name: where["location"] for name, where in external(path).items()}
    assert locations == {"a": "first.safetensors", "b": "second.safetensors"}


def test_nothing_of_the_weights_is_in_the_graph_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    stored = values(600, 400)
    save_file({"weight": stored}, file)
    path = shared(tmp_path, traced({"weight": (600, 400)}), file)
    content = path.read_bytes()
    assert len(content) < MAX_INLINE_BYTES
    assert not any(row.tobytes() in content for row in stored[:, :2])


def test_what_the_tracer_made_itself_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"weight": values(60, 40)}, file)
    model = traced({"weight": (60, 40), "constant": (60, 40)})
    constant = np.full((60, 40), 3, np.float32)
    model.graph.initializers["constant"].const_value = ir.tensor(constant, name="constant")
    path = shared(tmp_path, model, file)
    assert external(path)["constant"] == {}
    assert np.array_equal(run(path, "constant"), constant)


def test_a_weight_that_no_file_has_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"weight": values(60, 40)}, file)
    with pytest.raises(ModelError) as caught:
        shared(tmp_path, traced({"weight": (60, 40), "bias": (60,)}), file)
    assert str(caught.value) == ("weight bias is in no file of the checkpoint: it is incomplete")
    assert not (tmp_path / "graph.onnx").exists()


@pytest.mark.parametrize("shape", [(40, 60), (60, 41), (2400,)])
def test_a_weight_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = tmp_path / "weights.safetensors"
    save_file({"weight": values(60, 40)}, file)
    with pytest.raises(ModelError) as caught:
        shared(tmp_path, traced({"weight": shape}), file)
    assert str(caught.value) == (
        f"{file} has weight of shape (60, 40): expected {shape} by its config"
    )
