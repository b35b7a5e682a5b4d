"""LoRAs fused into a checkpoint's weights, one weight at a time when it is read.

`giffusion export --lora FILE:SCALE` calls `parse_lora` and `fuse_loras`. The invariant: the
checkpoint keeps its names, shapes and types, and weights that no LoRA changes are the same objects.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.schedules.limits import plain_number
from giffusion.export.additions.files import shown, with_source
from giffusion.export.additions.lora_files import Layer, read_layers
from giffusion.export.additions.lora_keys import Weight
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part
from giffusion.export.checkpoint.tensors import Array, Computed, Tensor


@dataclass(frozen=True, slots=True)
class _Change:
    file: Path
    layer: Layer
    factor: float


def parse_lora(text: str) -> tuple[Path, float]:
    """Reads an option's value, `FILE` or `FILE:SCALE`.

    The last `:` ends the file's name only if a number follows; `C:\\a.safetensors` is a name. A
    file whose own name ends so is written with its scale, `odd:1:1`.

    Returns:
        The file and the scale, 1 where there is none.

    Raises:
        SettingsError: there is no file, or the scale is not finite.
    """
    name, colon, tail = text.rpartition(":")
    scale = plain_number(tail) if colon else math.nan
    if math.isnan(scale) and tail.strip().lower().lstrip("+-") not in ("nan", "inf", "infinity"):
        name, scale = text, 1.0
    if not name.strip():
        raise SettingsError(f"{text!r} names no LoRA: expected FILE or FILE:SCALE")
    _check_scale(shown(name), scale)
    return Path(name), scale


def fuse_loras(checkpoint: Checkpoint, loras: Sequence[tuple[Path, float]]) -> Checkpoint:
    """Adds LoRAs to a checkpoint's weights: W' = W + Σ scale · (alpha / rank) · up @ down.

    The sum of LoRA (arXiv:2106.09685, section 4.1), in float32 and in the given order, is rounded
    to the weight's type once.

    Args:
        checkpoint: what the LoRAs were trained for.
        loras: files and scales; a negative scale takes a LoRA away.

    Returns:
        The checkpoint with the changed weights, none of which has been computed yet; reading one
        raises ModelError if it leaves the range of its type or the LoRA is not finite.

    Raises:
        ModelError: a file is not a plain LoRA for this checkpoint.
        SettingsError: a scale is not finite.
    """
    changes: dict[Weight, list[_Change]] = defaultdict(list)
    sources = checkpoint.sources
    for path, scale in loras:
        _check_scale(shown(path.name), scale)
        for weight, layer in read_layers(path, checkpoint).items():
            changes[weight].append(_Change(path, layer, scale * layer.factor))
        sources = with_source(sources, f"lora {path.name}:{scale:g}", path)
    parts = dict(checkpoint.parts)
    for (part, name), of_weight in changes.items():
        tensors = parts[part].tensors
        fused = _fused(name, tensors[name], tuple(of_weight))
        parts[part] = Part(parts[part].config, {**tensors, name: fused})
    return replace(checkpoint, parts=parts, sources=sources)


def _check_scale(name: str, scale: float) -> None:
    if not math.isfinite(scale):
        raise SettingsError(f"the scale of LoRA {name} is {scale}: expected a finite number")


def _fused(name: str, weight: Tensor, changes: tuple[_Change, ...]) -> Computed:
    return Computed(weight.dtype, weight.shape, partial(_add, name, weight, changes))


def _add(name: str, weight: Tensor, changes: tuple[_Change, ...]) -> Array:
    total = weight.read().astype(np.float32)
    with np.errstate(all="ignore"):
        for change in changes:
            total += np.float32(change.factor) * product(change.layer).reshape(weight.shape)
        fused: Array = total.astype(weight.dtype.numpy())
    if not np.isfinite(fused).all():
        files = ", ".join(dict.fromkeys(str(change.file) for change in changes))
        raise ModelError(
            f"{name} with {files} is not finite as {weight.dtype.name}: expected a LoRA of finite "
            "numbers; lower its scale or export as float32"
        )
    return fused


def product(layer: Layer) -> NDArray[np.float32]:
    """Computes the change of a weight before its factor.

    Returns:
        up @ down over the rank, (out, in) or (out, in, h, w), float32.
    """
    down, up = _float(layer.down), _float(layer.up)
    up = up.reshape(up.shape[:2])
    shape = layer.shape
    assert shape is not None
    if layer.mid is None:
        return (up @ down.reshape(down.shape[0], -1)).reshape(shape)
    mid = _float(layer.mid)
    inner = (up @ mid.reshape(mid.shape[0], -1)).reshape(shape[0], mid.shape[1], -1)
    down = down.reshape(down.shape[:2])
    change: NDArray[np.float32] = np.einsum("oqk,qi->oik", inner, down, optimize=True)
    return change.reshape(shape)


def _float(tensor: Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.read(), np.float32)
