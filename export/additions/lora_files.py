"""A LoRA file read into layers, each with the weight of the checkpoint that it changes.

`lora.py` calls `read_layers`. The invariant: every tensor of the file is in a layer whose shapes
fit its weight, or the file is refused in a line.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from giffusion.engine.errors import ModelError
from giffusion.export.additions.alpha import Strengths, read_strengths
from giffusion.export.additions.files import open_addition, shown
from giffusion.export.additions.lora_keys import Weight, layer_names, split_key
from giffusion.export.additions.lora_kinds import (
    checkpoint_family,
    lora_family,
    other_method,
    what_else,
)
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.tensors import Tensor

_Pieces: TypeAlias = Mapping[str, tuple[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Layer:
    """The change of one weight, factor · up @ down.

    Args:
        name: what the file calls it, for messages.
        down: (rank, in) or (rank, in, h, w).
        up: (out, rank) or (out, rank, 1, 1).
        mid: None, or between them a convolution (rank, rank, h, w), LoCon's CP decomposition.
        factor: alpha / rank.
    """

    name: str
    down: Tensor
    up: Tensor
    mid: Tensor | None
    factor: float

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of the product; None where the matrices do not fit each other."""
        down, up = self.down.shape, self.up.shape
        if len(down) not in (2, 4) or len(up) not in (2, 4) or math.prod(up[2:]) != 1:
            return None
        if self.mid is None:
            return (up[0], *down[1:]) if up[1] == down[0] > 0 else None
        mid = self.mid.shape
        fits = len(mid) == 4 and (mid[0], mid[1]) == (up[1], down[0]) and min(mid) > 0
        return (up[0], down[1], *mid[2:]) if fits and math.prod(down[2:]) == 1 else None


def read_layers(path: Path, checkpoint: Checkpoint) -> Mapping[Weight, Layer]:
    """Reads a LoRA file's names, shapes and alphas; its matrices stay on the disk.

    Args:
        path: a safetensors file as kohya's trainer, diffusers or PEFT writes it.
        checkpoint: what the LoRA is for.

    Raises:
        ModelError: the file is of another kind, has names that are not understood, changes weights
            that the checkpoint does not have, or has shapes that do not fit.
    """
    named = _split(path, open_addition(path))
    found = _resolve(path, named, checkpoint)
    strengths = read_strengths(path)
    layers = {}
    for weight, pieces in found.items():
        layer = _layer(path, weight, pieces, strengths)
        _check_shape(path, layer, weight, checkpoint, named)
        layers[weight] = layer
    return layers


def _split(path: Path, tensors: Mapping[str, Tensor]) -> Mapping[str, _Pieces]:
    """Groups a file's tensors by its own names of layers."""
    if method := other_method(tensors):
        raise ModelError(
            f"{path} holds {method[0]} ({shown(method[1])}), which is not fused: expected a plain "
            "LoRA; use one, or convert the file"
        )
    split = {key: split_key(key) for key in tensors}
    if not any(split.values()):
        raise ModelError(
            f"{path} has no LoRA's names: it looks like {what_else(tensors)}; expected a LoRA that "
            "kohya's trainer, diffusers or PEFT wrote"
        )
    layers: dict[str, dict[str, tuple[str, Tensor]]] = defaultdict(dict)
    for key, parts in split.items():
        if parts is None:
            raise ModelError(
                f"{path}: {shown(key)} is not understood: expected the names of a LoRA's matrices "
                "and alphas; use a plain LoRA"
            )
        _add(path, layers[parts[0]], parts[1], key, tensors[key])
    return layers


def _add(
    path: Path, pieces: dict[str, tuple[str, Tensor]], piece: str, key: str, tensor: Tensor
) -> None:
    if piece in pieces:
        raise ModelError(
            f"{path}: {shown(key)} and {shown(pieces[piece][0])} are for the same weight: expected "
            "one of them; remove the other"
        )
    pieces[piece] = key, tensor


def _resolve(
    path: Path, named: Mapping[str, _Pieces], checkpoint: Checkpoint
) -> Mapping[Weight, _Pieces]:
    """Groups the tensors by the checkpoint's weights instead."""
    known = layer_names(checkpoint)
    unknown = [name for name in named if name not in known]
    if unknown:
        raise ModelError(
            f"{path}: {len(unknown)} of its {len(named)} layers match no weight of "
            f"{shown(checkpoint.name)}, such as {shown(unknown[0])}{_seems(named, checkpoint)}"
        )
    found: dict[Weight, dict[str, tuple[str, Tensor]]] = defaultdict(dict)
    for name, pieces in named.items():
        for piece, (key, tensor) in pieces.items():
            _add(path, found[known[name]], piece, key, tensor)
    return found


def _seems(named: Mapping[str, _Pieces], checkpoint: Checkpoint) -> str:
    downs = {name: pieces["down"][1] for name, pieces in named.items() if "down" in pieces}
    family, own = lora_family(downs), checkpoint_family(checkpoint)
    if family is None or family == own:
        return ": expected a LoRA for a model of the same architecture; use such a one"
    expected = f"one for {own}" if own else "one for the checkpoint's family"
    return f": the LoRA seems to be for {family}, expected {expected}; use such a one"


def _layer(path: Path, weight: Weight, pieces: _Pieces, all_: Mapping[str, Strengths]) -> Layer:
    some_key = next(iter(pieces.values()))[0]
    for piece in ("down", "up"):
        if piece not in pieces:
            raise ModelError(
                f"{path}: {shown(some_key)} has no matrix '{piece}' beside it: expected pairs of "
                "down and up; get the file again"
            )
    (key, down), (_, up) = pieces["down"], pieces["up"]
    mid = pieces["mid"][1] if "mid" in pieces else None
    part, tensor = weight
    module = tensor.removesuffix(".weight")
    rank = down.shape[0] if down.shape else 0
    strengths = all_.get(part, all_.get("", Strengths()))
    if "alpha" not in pieces:
        factor = strengths.factor(module, max(rank, 1))
    elif all_:
        raise ModelError(
            f"{path} gives alphas both as tensors ({shown(pieces['alpha'][0])}) and in PEFT's "
            "configuration: expected one of them; save the LoRA anew"
        )
    else:
        factor = _alpha(path, *pieces["alpha"]) / max(rank, 1)
    return Layer(key, down, up, mid, factor)


def _alpha(path: Path, key: str, tensor: Tensor) -> float:
    if math.prod(tensor.shape) != 1:
        raise ModelError(
            f"{path}: {shown(key)} has the shape {tensor.shape}: expected one number; get the file "
            "again"
        )
    alpha = float(tensor.read().reshape(()))
    if not math.isfinite(alpha):
        raise ModelError(f"{path}: {shown(key)} is {alpha}: expected a finite number; train anew")
    return alpha


def _check_shape(
    path: Path,
    layer: Layer,
    weight: Weight,
    checkpoint: Checkpoint,
    named: Mapping[str, _Pieces],
) -> None:
    part, tensor = weight
    expected = checkpoint.parts[part].tensors[tensor].shape
    if layer.shape is None:
        mid = "" if layer.mid is None else f", mid {layer.mid.shape}"
        raise ModelError(
            f"{path}: the matrices of {shown(layer.name)} do not fit each other: down "
            f"{layer.down.shape}, up {layer.up.shape}{mid}; get the file again"
        )
    # A linear layer and a 1×1 convolution are the same, and models have been saved as both.
    if _trimmed(layer.shape) != _trimmed(expected):
        raise ModelError(
            f"{path}: {shown(layer.name)} changes a weight of shape {layer.shape}, but {part}'s "
            f"{tensor} has {expected}{_seems(named, checkpoint)}"
        )


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if len(shape) == 4 and shape[2:] == (1, 1) else shape
