"""The weights in a pickle, read by torch's restricted unpickler and written as safetensors.

Called by `worker.py` in its sandbox. The invariants: nothing that a pickle names is called
but what torch allows for tensors, and one tensor at a time is held beside the mapped file.
"""

from __future__ import annotations

import errno
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

_KEPT = {"torch.float16": "F16", "torch.float32": "F32", "torch.bfloat16": "BF16"}
# Counters, indices and masks; smaller whole numbers are quantised weights, and are refused.
_LEFT_OUT = ("torch.int64", "torch.int32", "torch.bool")
_CAST = "torch.float64"
# Bookkeeping of training frameworks beside the weights, which is left out.
_INERT = (
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
)


class _Inert:
    """Stands for a class or function of `_INERT`, and does nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class Refusal(Exception):
    """The pickle holds no weights, or such as cannot be kept."""


def convert_weights(source: Path, output: BinaryIO) -> dict[str, Any]:
    """Writes a pickle's weights as a safetensors file.

    Args:
        source: a file that `torch.save` wrote.
        output: takes the file.

    Returns:
        `num_tensors`, and the names `left_out` and `cast`, as in `pickles.Conversion`.

    Raises:
        Refusal: it holds no weights, or such as cannot be kept.
        Exception: what torch raises of pickles that it refuses or cannot read; see `explain`.
    """
    state = _state(_load(source))
    tensors, left_out, cast = _sort(state)
    if not tensors:
        raise Refusal("it holds no tensors of weights")
    _write(tensors, output)
    return {"num_tensors": len(tensors), "left_out": left_out, "cast": cast}


def _load(source: Path) -> Any:
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (_Inert, name) for name in _INERT
    ]
    with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
        # Of pickles that are newer than torch's, which it then reads or refuses.
        warnings.simplefilter("ignore")
        # Only the format that is a zip file can be mapped rather than read.
        return torch.load(
            source, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(source)
        )


def _state(loaded: Any) -> Mapping[Any, Any]:
    """Returns the weights by name, out of what trainers put around them."""
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        # What stands beside the weights must not hide one of the same name.
        beside = {name: None for name in loaded if name != "state_dict"}
        return {**beside, **loaded["state_dict"]}
    if isinstance(loaded, Mapping) and isinstance(loaded.get("string_to_param"), Mapping):
        # A textual inversion embedding; its one tensor stands under the word that it trained.
        vectors = list(loaded["string_to_param"].values())
        if len(vectors) != 1:
            raise Refusal(f"it is an embedding of {len(vectors)} words: expected one")
        return {**{name: None for name in loaded}, "emb_params": vectors[0]}
    if not isinstance(loaded, Mapping):
        raise Refusal(f"it holds a {type(loaded).__name__}: expected tensors by name")
    return loaded


def _sort(state: Mapping[Any, Any]) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Returns what is kept, the names of what is left out, and of what is cast to float32."""
    kept: dict[str, torch.Tensor] = {}
    left_out, cast = [], []
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or str(value.dtype) in _LEFT_OUT:
            left_out.append(str(name))
            continue
        if not isinstance(name, str) or name == "__metadata__":
            raise Refusal(f"a tensor is called {name!r:.100}: expected another name")
        if value.layout != torch.strided or str(value.dtype) not in (*_KEPT, _CAST):
            raise Refusal(
                f"tensor {name} is {value.layout} {value.dtype}: expected float16, bfloat16 or "
                "float32"
            )
        if str(value.dtype) == _CAST:
            cast.append(name)
        kept[name] = value.detach()
    return kept, left_out, cast


def _write(tensors: Mapping[str, torch.Tensor], output: BinaryIO) -> None:
    """Writes a safetensors file, holding one tensor at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        dtype = torch.float32 if str(tensor.dtype) == _CAST else tensor.dtype
        begin, end = end, end + tensor.numel() * dtype.itemsize
        header[name] = {
            "dtype": _KEPT[str(dtype)],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    output.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        values = tensor.to(torch.float32) if str(tensor.dtype) == _CAST else tensor
        # numpy has no bfloat16, and everything has bytes.
        output.write(values.contiguous().flatten().view(torch.uint8).numpy().data)


def explain(error: BaseException) -> str:
    """Says in a line why a pickle was not converted."""
    text = " ".join(str(error).split())
    if isinstance(error, Refusal):
        return text
    if match := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks for {match[1]}, which weights have no need of: do not trust it"
    if isinstance(error, MemoryError) or "alloc" in text:
        return "it needs more memory than its size explains"
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return "it would become larger than its size explains: do not trust it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, pickle.UnpicklingError):
        # The rest of torch's text advises to read it without the restrictions.
        detail = re.search(r"WeightsUnpickler error: (.{0,100}?)(?: Check the doc|$)", text)
        return "it is no pickle of weights" + (f" ({detail[1]})" if detail else "")
    return f"it cannot be read as weights ({type(error).__name__}: {text:.200})"
