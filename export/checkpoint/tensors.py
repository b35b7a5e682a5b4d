"""Tensors that are on the disk, or are computed from such, and are read one at a time.

Every reader and editor of checkpoints deals in `Tensor`s. The invariant: making one reads nothing.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError

Array = NDArray[np.generic]
DTYPES = {
    "F16": ir.DataType.FLOAT16,
    "F32": ir.DataType.FLOAT,
    "BF16": ir.DataType.BFLOAT16,
}
"""The types that weights have, by the names that safetensors gives them."""


class Tensor(Protocol):
    """A tensor of a checkpoint."""

    @property
    def dtype(self) -> ir.DataType:
        """What `read` returns, one of `DTYPES`' values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""

    def read(self) -> Array:
        """Returns its values, which may be mapped from the disk and must not be written to."""


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor that is made of others when it is read.

    Args:
        dtype: what `compute` returns.
        shape: the shape of what it returns.
        compute: makes the values anew at every call.
    """

    dtype: ir.DataType
    shape: tuple[int, ...]
    compute: Callable[[], Array]

    def read(self) -> Array:
        """Returns the values."""
        return self.compute()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies in a safetensors file; offsets and lengths in bytes."""

    file: Path
    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    offset: int
    length: int

    def read(self) -> Array:
        """Returns the tensor as stored, mapped rather than read."""
        if not self.length:
            return np.empty(self.shape, self.dtype.numpy())
        raw = np.memmap(self.file, np.uint8, "r", offset=self.offset, shape=(self.length,))
        return raw.view(self.dtype.numpy()).reshape(self.shape)

    def rows(self, begin: int, end: int) -> StoredTensor:
        """Returns the part with these indices of the first axis."""
        row = self.length // self.shape[0]
        return replace(
            self,
            shape=(end - begin, *self.shape[1:]),
            offset=self.offset + begin * row,
            length=(end - begin) * row,
        )

    def pieces(self) -> Iterator[StoredTensor]:
        """Yields the tensor, and the halves of a matrix along its first axis, as GEGLU uses it."""
        yield self
        if len(self.shape) in (1, 2) and self.shape[0] % 2 == 0:
            half = self.shape[0] // 2
            for part in range(2):
                piece = self.rows(part * half, (part + 1) * half)
                yield replace(piece, name=f"{self.name}.{part}")


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
    except RecursionError:
        raise ModelError(f"{file} is not a safetensors file: its header is nested") from None


def read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Returns the header of a file that `stored_tensors` accepts, and where its data begin.

    The header has an entry with `dtype`, `shape` and `data_offsets` for each tensor, of whatever
    type, and may have texts about the file under `__metadata__`.
    """
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > file.stat().st_size:
            raise ValueError
        header: dict[str, Any] = json.loads(stream.read(length))
    return header, 8 + length


def _parse(file: Path) -> list[StoredTensor]:
    file_length = file.stat().st_size
    header, data = read_header(file)
    tensors = []
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in DTYPES:
            continue
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = (data + offset for offset in entry["data_offsets"])
        length = int(math.prod(shape) * dtype.itemsize)
        if not data <= begin <= end <= file_length or end - begin != length:
            raise ValueError
        tensors.append(StoredTensor(file, name, dtype, shape, begin, length))
    return tensors
