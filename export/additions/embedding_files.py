"""A textual inversion's file read into vectors for each of a checkpoint's text encoders.

`embeddings.py` calls `read_vectors`. The invariant: what is returned fits every text encoder and is
finite, and nothing of the file is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError
from giffusion.export.additions.files import open_addition, shown
from giffusion.export.additions.lora_keys import split_key
from giffusion.export.checkpoint.tensors import Tensor

MAX_VECTORS = 75
"""What fits into a row of CLIP's 77 tokens, besides begin and end."""
_NAMELESS = "emb_params"
_KEYS = {"text_encoder": "clip_l", "text_encoder_2": "clip_g"}
_FAMILIES = {768: "SD 1", 1024: "SD 2", 1280: "SDXL's second text encoder"}


def read_vectors(
    path: Path, widths: Mapping[str, int]
) -> tuple[Mapping[str, NDArray[np.float32]], str]:
    """Reads an embedding.

    Args:
        path: a safetensors file.
        widths: of the vectors that each text encoder takes.

    Returns:
        The vectors by text encoder, (n, width) float32 each with the same n, and the token that the
        file names, or its own name.

    Raises:
        ModelError: the file is of another kind or for other text encoders, or not finite.
    """
    tensors = open_addition(path)
    keys, token = _assign(path, tensors, list(widths))
    vectors = {part: _vectors(path, key, tensors[key], widths[part]) for part, key in keys.items()}
    counts = {len(of_part) for of_part in vectors.values()}
    if len(counts) > 1:
        raise ModelError(
            f"{path} has {' and '.join(map(str, sorted(counts)))} vectors for the two text encoders"
            ": expected as many for each; get the file again"
        )
    return vectors, token


def _assign(
    path: Path, tensors: Mapping[str, Tensor], parts: list[str]
) -> tuple[Mapping[str, str], str]:
    """Finds the key of each text encoder's vectors, and the token."""
    known = set(_KEYS.values())
    if known <= tensors.keys():
        if len(parts) == 1:
            raise ModelError(
                f"{path} is an embedding for SDXL's two text encoders, but the checkpoint has one: "
                "expected one of its family; use such a one"
            )
        _refuse_others(path, tensors, known)
        return _KEYS, path.stem
    if len(tensors) != 1 or any(split_key(key) for key in tensors):
        raise ModelError(
            f"{path} looks like {_what(tensors)}: expected an embedding with one tensor, or with "
            "clip_l and clip_g; use such a file"
        )
    (key,) = tensors
    if len(parts) > 1:
        raise ModelError(
            f"{path} has vectors for one text encoder ({shown(key)}), but the checkpoint has two: "
            "expected clip_l and clip_g; use an embedding for SDXL"
        )
    return {parts[0]: key}, path.stem if key in {_NAMELESS, *known} else key


def _refuse_others(path: Path, tensors: Mapping[str, Tensor], known: set[str]) -> None:
    for key in tensors:
        if key not in known:
            raise ModelError(
                f"{path}: {shown(key)} is not understood: expected only clip_l and clip_g; remove "
                "it from the file"
            )


def _what(tensors: Mapping[str, Tensor]) -> str:
    if not tensors:
        return "an empty file"
    if any(split_key(key) for key in tensors):
        return "a LoRA, which is added with --lora"
    return f"a checkpoint of {len(tensors)} tensors"


def _vectors(path: Path, key: str, tensor: Tensor, width: int) -> NDArray[np.float32]:
    shape = tensor.shape
    num_vectors = shape[0] if len(shape) == 2 else 1
    if len(shape) not in (1, 2) or not 1 <= num_vectors <= MAX_VECTORS:
        raise ModelError(
            f"{path}: {shown(key)} has the shape {shape}: expected 1 to {MAX_VECTORS} vectors; use "
            "an embedding"
        )
    if shape[-1] != width:
        family = f", as for {_FAMILIES[shape[-1]]}" if shape[-1] in _FAMILIES else ""
        raise ModelError(
            f"{path}: {shown(key)} has vectors of {shape[-1]} numbers{family}, expected {width}: "
            "use an embedding for the checkpoint's family"
        )
    vectors = np.asarray(tensor.read(), np.float32).reshape(num_vectors, width)
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"{path}: {shown(key)} has values that are not finite: expected numbers; get the file "
            "again"
        )
    return vectors
