"""Weights stored once: a graph's constants as references into a checkpoint's safetensors files.

`giffusion.export.onnx` calls `share_weights` on a traced graph. Every large constant whose bytes
are a checkpoint's tensor, perhaps widened or transposed by the tracer, becomes external data at
that tensor's offset, followed by the Cast and Transpose that lead back to the constant. Runtimes
fold both at load.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from giffusion.export.checkpoint.tensors import StoredTensor, stored_tensors

MAX_INLINE_BYTES = 4096
"""Constants up to this size stay in the graph file."""
_Key = tuple[tuple[int, ...], str]


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
