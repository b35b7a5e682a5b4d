"""A checkpoint written as a diffusers folder, one tensor at a time.

`giffusion export` calls `write_checkpoint` on a folder of `staging.py`. The invariant: memory holds
one tensor, of a large one stored as it is wanted not even that, and no finite weight becomes
infinite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from giffusion.engine.errors import ModelError, SettingsError, nearest
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES, Checkpoint, Part, Vocabulary
from giffusion.export.checkpoint.networks import TEXT_SETTINGS, network_class
from giffusion.export.checkpoint.tensors import DTYPES, Array, Tensor

WRITTEN_DTYPES = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}
"""What weights can be written in."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_TORCH_NAMES = {
    ir.DataType.FLOAT: "float32",
    ir.DataType.FLOAT16: "float16",
    ir.DataType.BFLOAT16: "bfloat16",
}
_CHUNK = 1 << 18
"""Values that are converted at once."""
_ALIGNMENT = 8


def write_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    dtype: str | None,
    progress: Callable[[str], None],
) -> None:
    """Writes a checkpoint as a folder that diffusers loads, with old and new transformers.

    Args:
        checkpoint: what to write.
        folder: an empty folder, as `staged_folder` yields it.
        dtype: what to write the weights in, `fp32`, `fp16` or `bf16`; None as they are stored.
        progress: called with a line before each part.

    Raises:
        SettingsError: there is no such type.
        ModelError: a weight is too large for fp16.
        OSError: the folder cannot be written; `staged_folder` says it in a line.
    """
    if dtype is not None and dtype not in WRITTEN_DTYPES:
        raise SettingsError(f"unknown type of weights '{dtype}': {nearest(dtype, WRITTEN_DTYPES)}")
    wanted = WRITTEN_DTYPES[dtype] if dtype else None
    _write_json(folder / "model_index.json", checkpoint.pipeline)
    _write_json(folder / "scheduler" / "scheduler_config.json", checkpoint.scheduler)
    for name, vocabulary in checkpoint.vocabularies.items():
        _write_vocabulary(folder / name, vocabulary)
    for name, part in checkpoint.parts.items():
        size = sum(_length(tensor, wanted) for tensor in part.tensors.values())
        progress(f"{checkpoint.name}: writing {name}, {size / 1e6:,.0f} MB")
        _write_json(folder / name / "config.json", _config(name, part, wanted))
        write_tensors(part.tensors, folder / name / WEIGHTS_FILES[name], wanted, name)


def write_tensors(
    tensors: Mapping[str, Tensor], file: Path, dtype: ir.DataType | None, where: str
) -> None:
    """Writes a safetensors file.

    The format: https://github.com/huggingface/safetensors. Wider types come first and names in
    their order, as the format's own library does, so that every tensor is aligned to its type.

    Args:
        tensors: what to write, by name.
        file: the new file.
        dtype: what to write all of them in; None as they are.
        where: what the tensors are of, for messages.

    Raises:
        ModelError: a finite value does not fit the type.
    """
    order = sorted(tensors, key=lambda name: (-(dtype or tensors[name].dtype).itemsize, name))
    with file.open("xb") as stream:
        _write_header({name: tensors[name] for name in order}, stream, dtype)
        for name in order:
            for values in _converted(tensors[name], dtype, f"{where}: {name!r}"):
                stream.write(values.view(np.uint8).data)


def _write_header(
    tensors: Mapping[str, Tensor], stream: BinaryIO, dtype: ir.DataType | None
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + _length(tensor, dtype)
        header[name] = {
            "dtype": _NAMES[dtype or tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    stream.write(len(text).to_bytes(8, "little") + text)


def _length(tensor: Tensor, dtype: ir.DataType | None) -> int:
    return int(np.prod(tensor.shape, dtype=np.int64)) * int((dtype or tensor.dtype).itemsize)


def _converted(tensor: Tensor, dtype: ir.DataType | None, where: str) -> Iterator[Array]:
    """Yields a tensor's values in pieces, flat."""
    values = tensor.read()
    assert values.shape == tensor.shape, where
    assert values.dtype == tensor.dtype.numpy(), where
    flat = np.ascontiguousarray(values).reshape(-1)
    for begin in range(0, flat.size, _CHUNK):
        piece = flat[begin : begin + _CHUNK]
        yield piece if dtype in (None, tensor.dtype) else _cast(piece, dtype, where)


def _cast(values: Array, dtype: ir.DataType | None, where: str) -> Array:
    assert dtype is not None
    with np.errstate(over="ignore"):
        result = values.astype(dtype.numpy())
    overflown = np.isinf(result) & np.isfinite(values)
    if overflown.any():
        value = float(values[overflown][0])
        # From float32 only the very largest round up to bf16's infinity.
        advice = "bf16 or fp32" if dtype == ir.DataType.FLOAT16 else "fp32"
        raise ModelError(f"{where} has the value {value:.6g}, too large here: write {advice}")
    return result


def _config(name: str, part: Part, dtype: ir.DataType | None) -> dict[str, Any]:
    if not name.startswith("text_encoder"):
        return {key: value for key, value in part.config.items() if key != "_name_or_path"}
    config = {key: part.config[key] for key in TEXT_SETTINGS if key in part.config}
    stored = {dtype or tensor.dtype for tensor in part.tensors.values()}
    widest = max(stored, key=lambda kind: (kind.itemsize, kind == ir.DataType.BFLOAT16))
    # Transformers 5 calls it dtype, which older ones do not heed; all heed the older name.
    return config | {
        "architectures": [network_class(name, part.config, name).__name__],
        "model_type": "clip_text_model",
        "torch_dtype": _TORCH_NAMES[widest],
    }


def _write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Writes a tokenizer; and as older transformers read it, where it is of their kind."""
    _write_json(folder / "tokenizer.json", vocabulary.tokenizer)
    _write_json(folder / "tokenizer_config.json", vocabulary.config)
    model = vocabulary.tokenizer.get("model") or {}
    if model.get("type") == "BPE" and "vocab" in model and "merges" in model:
        _write_json(folder / "vocab.json", model["vocab"])
        pairs = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
        text = "\n".join(["#version: 0.2", *pairs, ""])
        (folder / "merges.txt").write_text(text, encoding="utf-8")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(content), indent=2) + "\n"
    path.write_text(text, encoding="utf-8")
