"""Files that are added to a checkpoint, opened: LoRAs and embeddings.

`lora_files.py` and `embeddings.py` call it. The invariant: every tensor of a file is listed or is
refused by name, and no value is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from safetensors import SafetensorError, safe_open

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.tensors import DTYPES, Array, Computed, Tensor, stored_tensors
from giffusion.export.pickles.convert import is_pickle, refuse_pickle

MAX_SHOWN = 120
"""Characters of a file's own names that messages show."""
_NUMBERS = ("F64", "I64", "I32", "I16", "I8", "U8")


def open_addition(path: Path) -> Mapping[str, Tensor]:
    """Lists the tensors of a safetensors file, in its order.

    Single numbers of other types than weights have are listed as float32: trainers write a LoRA's
    alpha as a float64 or a whole number.

    Raises:
        ModelError: the file is missing, is not a safetensors file, or holds a tensor of a type
            that is not read.
    """
    types = _types(path)
    tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in stored_tensors(path)}
    for name, (dtype, shape) in types.items():
        if dtype in DTYPES:
            continue
        if dtype not in _NUMBERS or any(size != 1 for size in shape):
            raise ModelError(
                f"{path}: {shown(name)} has the type {dtype}: expected {', '.join(DTYPES)}; "
                "convert the file to one of them"
            )
        tensors[name] = Computed(ir.DataType.FLOAT, shape, partial(_number, path, name))
    return {name: tensors[name] for name in types}


def file_metadata(path: Path) -> Mapping[str, str]:
    """Returns the text entries of a safetensors file that `open_addition` has opened."""
    with safe_open(path, "numpy") as file:
        return file.metadata() or {}


def shown(name: str) -> str:
    """Returns a name that was read from a file, fit for a message."""
    line = one_line(name)
    line = line if line.isprintable() else ascii(line)
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1]}…"


def with_source(sources: Mapping[str, Path], label: str, path: Path) -> Mapping[str, Path]:
    """Returns a checkpoint's sources and one more; equal labels are numbered."""
    label, number = shown(label), 2
    unique = label
    while unique in sources:
        unique, number = f"{label} #{number}", number + 1
    return {**sources, unique: path}


def _types(path: Path) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    try:
        if not path.is_file():
            raise ModelError(f"{one_line(path)} is missing: expected a safetensors file")
        if is_pickle(path):
            refuse_pickle(path)
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.offset_keys()}
            return {
                name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()
            }
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(
            f"{path} is not a safetensors file: {shown(str(error))}; get it again"
        ) from None


def _number(path: Path, name: str) -> Array:
    with safe_open(path, "numpy") as file:
        return np.asarray(file.get_tensor(name), np.float32)
