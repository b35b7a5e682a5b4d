"""The index of a safetensors file, and graphs whose constants become references into it."""

from __future__ import annotations

import json
import struct
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
from giffusion.export.weights import MAX_INLINE_BYTES, share_weights, stored_tensors

FLOAT = onnx.TensorProto.FLOAT
Array = NDArray[Any]


def values(*shape: int, dtype: str = "float32", seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


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


def sum_graph(constants: dict[str, Array]) -> onnx.ModelProto:
    """A graph that returns each constant times x, one output a constant."""
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", name], [f"{name}_out"]) for name in constants],
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, [])],
        [
            helper.make_tensor_value_info(f"{name}_out", FLOAT, array.shape)
            for name, array in constants.items()
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def shared(folder: Path, constants: dict[str, Array], *files: Path) -> tuple[int, Path]:
    """Shares a graph's weights and saves it; returns what was left, and the file."""
    model = ir.serde.deserialize_model(sum_graph(constants))
    unexplained = share_weights(model, list(files), folder)
    path = folder / "graph.onnx"
    ir.save(model, path)
    return unexplained, path


def operators(path: Path) -> list[str]:
    nodes = onnx.load(path, load_external_data=False).graph.node
    return [node.op_type for node in nodes if node.op_type != "Mul"]


def check_same(path: Path, constants: dict[str, Array]) -> None:
    """The constants come back bit for bit, times one, when the file is run where it lies."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run([f"{name}_out" for name in constants], {"x": np.array(1, np.float32)})
    for array, output in zip(constants.values(), outputs, strict=True):
        assert output.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "transposed", "expected"),
    [
        pytest.param("float32", False, [], id="as stored"),
        pytest.param("float32", True, ["Transpose"], id="transposed"),
        pytest.param("float16", False, ["Cast"], id="widened"),
        pytest.param("float16", True, ["Cast", "Transpose"], id="widened and transposed"),
    ],
)
def test_a_constant_becomes_a_reference(
    tmp_path: Path, dtype: str, transposed: bool, expected: list[str]
) -> None:
    stored = values(60, 40, dtype=dtype)
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "weights.safetensors"
    save_file({"other": values(90, 30, seed=1), "weight": stored}, file)
    wide = stored.astype(np.float32)
    constants = {"c": np.ascontiguousarray(wide.T if transposed else wide)}
    unexplained, path = shared(tmp_path, constants, file)
    assert unexplained == 0
    assert path.stat().st_size < MAX_INLINE_BYTES
    assert operators(path) == expected
    (initializer,) = onnx.load(path, load_external_data=False).graph.initializer
    where = {item.key: item.value for item in initializer.external_data}
    (tensor,) = (t for t in stored_tensors(file) if t.name == "weight")
    assert where["location"] == "unet/weights.safetensors"
    assert (int(where["offset"]), int(where["length"])) == (tensor.offset, tensor.length)
    check_same(path, constants)


def test_brain_floats_are_widened_too(tmp_path: Path) -> None:
    stored = torch.randn(50, 60, generator=torch.Generator().manual_seed(0)).bfloat16()
    file = tmp_path / "weights.safetensors"
    save_torch_file({"weight": stored}, file)
    constants = {"c": stored.float().numpy()}
    unexplained, path = shared(tmp_path, constants, file)
    assert unexplained == 0
    assert operators(path) == ["Cast"]
    check_same(path, constants)


def test_two_uses_of_a_tensor_share_one_reference(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    stored = values(60, 40)
    save_file({"weight": stored}, file)
    constants = {"a": stored, "b": stored.T.copy(), "c": stored.copy()}
    unexplained, path = shared(tmp_path, constants, file)
    assert unexplained == 0
    assert len(onnx.load(path, load_external_data=False).graph.initializer) == 1
    check_same(path, constants)


def test_what_is_stored_nowhere_is_counted_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    stored = values(60, 40)
    save_file({"weight": stored}, file)
    nearly = stored.copy()
    nearly[59, 39] = np.nextafter(nearly[59, 39], np.float32(9))
    small = values(MAX_INLINE_BYTES // 4, seed=3)
    constants = {
        "found": stored,
        "nearly": nearly,
        "reshaped": stored.reshape(40, 60),
        "small": small,
    }
    unexplained, path = shared(tmp_path, constants, file)
    assert unexplained == nearly.nbytes + stored.nbytes
    kept = {
        initializer.name: bool(initializer.external_data)
        for initializer in onnx.load(path, load_external_data=False).graph.initializer
    }
    assert kept == {"nearly": False, "reshaped": False, "small": False, "stored.weight": True}
    check_same(path, constants)


def test_weights_may_lie_in_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    constants = {"a": values(60, 40), "b": values(30, 70, seed=1)}
    for file, (name, array) in zip(files, constants.items(), strict=True):
        save_file({name: array}, file)
    unexplained, path = shared(tmp_path, constants, *files)
    assert unexplained == 0
    check_same(path, constants)
