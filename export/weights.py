"""Weights stored once: a graph's constants as references into a checkpoint's safetensors files.

`giffusion.export.onnx` calls `share_weights` on a traced graph. Every large constant whose bytes
are a checkpoint's tensor, perhaps widened or transposed by the tracer, becomes external data at
that tensor's offset, followed by the Cast and Transpose that lead back to the constant. Runtimes
fold both at load.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError

MAX_INLINE_BYTES = 4096
"""Constants up to this size stay in the graph file."""
_DTYPES = {
    "F16": ir.DataType.FLOAT16,
    "F32": ir.DataType.FLOAT,
    "BF16": ir.DataType.BFLOAT16,
}
_Key = tuple[tuple[int, ...], str]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies in a safetensors file; offsets and lengths in bytes."""

    file: Path
    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    length: int

    def read(self) -> NDArray[np.generic]:
        """Returns the tensor as stored, mapped rather than read."""
        raw = np.memmap(self.file, np.uint8, "r", offset=self.offset, shape=(self.length,))
        return raw.view(self.dtype.numpy()).reshape(self.shape)

    def pieces(self) -> Iterator[StoredTensor]:
        """Yields the tensor, and the halves of a matrix along its first axis, as GEGLU uses it."""
        yield self
        if len(self.shape) == 2 and self.shape[0] % 2 == 0:
            half = self.length // 2
            for part in range(2):
                yield replace(
                    self,
                    name=f"{self.name}.{part}",
                    shape=(self.shape[0] // 2, self.shape[1]),
                    offset=self.offset + part * half,
                    length=half,
                )


def stored_tensors(file: Path) -> list[StoredTensor]:
    """Lists the floating-point tensors of a safetensors file.

    The format: https://github.com/huggingface/safetensors, eight bytes of header length, a JSON
    header with types, shapes and offsets, then the data.

    Raises:
        ModelError: the file is not in that format.
    """
    try:
        return _parse(file)
    except (struct.error, AttributeError, KeyError, TypeError, ValueError):
        raise ModelError(
            f"{file} is not a safetensors file: expected a checkpoint that diffusers saved with "
            "safe_serialization=True"
        ) from None


def _parse(file: Path) -> list[StoredTensor]:
    file_length = file.stat().st_size
    with file.open("rb") as stream:
        (header_length,) = struct.unpack("<Q", stream.read(8))
        if header_length > file_length:
            raise ValueError
        header = json.loads(stream.read(header_length))
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in _DTYPES:
            continue
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = (8 + header_length + offset for offset in entry["data_offsets"])
        length = int(math.prod(shape) * dtype.itemsize)
        if not 8 + header_length <= begin <= end <= file_length or end - begin != length:
            raise ValueError
        tensors.append(StoredTensor(file, name, dtype, shape, begin, length))
    return tensors


def share_weights(model: ir.Model, files: list[Path], folder: Path) -> int:
    """Points the graph's large constants into the checkpoint's files.

    Args:
        model: a traced graph; changed in place.
        files: the safetensors files that its weights came from, below `folder`.
        folder: where the graph will be saved; external data is found relative to it.

    Returns:
        The number of bytes of large constants that no stored tensor explains; they stay the
        graph's own.
    """
    graph = model.graph
    large = {
        name: value
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > MAX_INLINE_BYTES
    }
    wanted = {value.const_value.dtype for value in large.values() if value.const_value is not None}
    index = _index(files, wanted)
    unexplained = 0
    shared: dict[StoredTensor, ir.Value] = {}
    begin = graph[0]
    for name, value in large.items():
        assert value.const_value is not None
        array = value.const_value.numpy()
        found = index.get((value.const_value.dtype, _key(array)))
        if found is None:
            unexplained += array.nbytes
            continue
        tensor, transposed = found
        stored = shared.setdefault(tensor, _external(tensor, folder))
        nodes = _restore(stored, tensor, value.const_value.dtype, transposed)
        result = nodes[-1].outputs[0] if nodes else stored
        for node in nodes:
            graph.insert_before(begin, node)
        value.replace_all_uses_with(result)
        del graph.initializers[name]
    for stored in shared.values():
        graph.register_initializer(stored)
    return unexplained


def _index(
    files: list[Path], dtypes: set[ir.DataType]
) -> Mapping[tuple[ir.DataType, _Key], tuple[StoredTensor, bool]]:
    index: dict[tuple[ir.DataType, _Key], tuple[StoredTensor, bool]] = {}
    for file in files:
        for tensor in (piece for whole in stored_tensors(file) for piece in whole.pieces()):
            if tensor.length <= MAX_INLINE_BYTES // 4:
                continue
            stored = tensor.read()
            for dtype in dtypes:
                array = stored.astype(dtype.numpy())
                index.setdefault((dtype, _key(array)), (tensor, False))
                if array.ndim == 2:
                    index.setdefault((dtype, _key(array.T)), (tensor, True))
    return index


def _key(array: NDArray[np.generic]) -> _Key:
    data = np.ascontiguousarray(array).view(np.uint8)
    return array.shape, hashlib.sha256(data.data).hexdigest()


def _external(tensor: StoredTensor, folder: Path) -> ir.Value:
    location = tensor.file.relative_to(folder).as_posix()
    constant = ir.ExternalTensor(
        location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=f"stored.{tensor.name}",
        base_dir=folder,
    )
    return ir.Value(
        name=constant.name,
        shape=constant.shape,
        type=ir.TensorType(tensor.dtype),
        const_value=constant,
    )


def _restore(
    stored: ir.Value, tensor: StoredTensor, dtype: ir.DataType, transposed: bool
) -> list[ir.Node]:
    nodes = []
    last = stored
    if tensor.dtype != dtype:
        nodes.append(ir.node("Cast", [last], {"to": dtype}))
        last = nodes[-1].outputs[0]
    if transposed:
        nodes.append(ir.node("Transpose", [last], {"perm": [1, 0]}))
    return nodes
