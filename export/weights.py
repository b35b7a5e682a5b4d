"""Weights stored once: a graph's constants as references into a checkpoint's safetensors files.

`giffusion.export.onnx` calls `share_weights` on a traced graph, whose weights have names and no
values. Each becomes external data at its tensor's offset, followed by a Cast where the graph
computes in another type. Runtimes fold that at load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.tensors import StoredTensor

MAX_INLINE_BYTES = 4096
"""Weights up to this size are copied into the graph file."""


def share_weights(
    model: ir.Model,
    weights: Mapping[str, StoredTensor],
    folder: Path,
    key: Callable[[str], str] = str,
) -> None:
    """Points the graph's weights into the checkpoint's files.

    Args:
        model: a traced graph whose weights are initializers without values; changed in place.
        weights: where they lie, in files below `folder`.
        folder: where the graph will be saved; external data is found relative to it.
        key: from an initializer's name to that in `weights`.

    Raises:
        ModelError: a weight is not there, or has another shape.
    """
    graph = model.graph
    begin = graph[0]
    for name, value in list(graph.initializers.items()):
        if value.const_value is not None:
            continue
        tensor = _stored(value, weights.get(key(name)), name)
        assert value.dtype is not None
        if tensor.length <= MAX_INLINE_BYTES:
            array = tensor.read().astype(value.dtype.numpy())
            value.const_value = ir.tensor(array, dtype=value.dtype, name=name)
            continue
        stored = _external(tensor, folder, name)
        if tensor.dtype == value.dtype:
            value.const_value = stored
            continue
        # The stored tensor takes the name, so that a weight can be found by it.
        del graph.initializers[name]
        cast = ir.node("Cast", [_initializer(stored)], {"to": value.dtype})
        value.replace_all_uses_with(cast.outputs[0])
        graph.insert_before(begin, cast)
        graph.register_initializer(cast.inputs[0])  # type: ignore[arg-type]


def _stored(value: ir.Value, tensor: StoredTensor | None, name: str) -> StoredTensor:
    if tensor is None:
        raise ModelError(f"weight {name} is in no file of the checkpoint: it is incomplete")
    shape = tuple(value.shape.numpy()) if value.shape is not None else None
    if shape != tensor.shape:
        raise ModelError(
            f"{tensor.file} has {tensor.name} of shape {tensor.shape}: expected {shape} by its "
            "config"
        )
    return tensor


def _external(tensor: StoredTensor, folder: Path, name: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        tensor.file.relative_to(folder).as_posix(),
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=ir.Shape(tensor.shape),
        name=name,
        base_dir=folder,
    )


def _initializer(constant: ir.ExternalTensor) -> ir.Value:
    return ir.Value(
        name=constant.name,
        shape=constant.shape,
        type=ir.TensorType(constant.dtype),
        const_value=constant,
    )
