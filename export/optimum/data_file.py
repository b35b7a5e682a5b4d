"""Weights of a graph moved into a file of their own, one at a time.

`fuse.py` and `write.py` call it before they save a graph. The invariant: afterwards no weight
refers to a file besides that one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
from onnx_ir.external_data import convert_tensors_to_external

from giffusion.export.weights import MAX_INLINE_BYTES

DATA_FILE = "model.onnx_data"
"""What Optimum calls such a file."""


def move_weights(values: Iterable[ir.Value], folder: Path, file: str) -> bool:
    """Writes weights, as they are stored, into a file; small ones become part of the graph.

    Args:
        values: initializers, in the order in which they are to lie in the file.
        folder: where the graph will be saved.
        file: the file's path in that folder; it is written anew.

    Returns:
        Whether there is such a file, which needs a weight above `MAX_INLINE_BYTES`.
    """
    large = []
    for value in values:
        tensor = value.const_value
        assert tensor is not None
        if tensor.nbytes > MAX_INLINE_BYTES:
            large.append((value, tensor))
        elif isinstance(tensor, ir.ExternalTensor):
            value.const_value = ir.tensor(
                tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name
            )
    if not large:
        return False
    (folder / file).parent.mkdir(exist_ok=True)
    moved = convert_tensors_to_external([tensor for _, tensor in large], folder, file)
    for (value, _), external in zip(large, moved, strict=True):
        value.const_value = external
    return True
