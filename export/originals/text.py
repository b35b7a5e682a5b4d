"""The text encoders' names in the original layout, as transformers has them.

`convert.py` calls `clip_tensors` for OpenAI's CLIP, which the original code took from
transformers, and `open_clip_tensors` for OpenCLIP's, whose attention is one stacked matrix.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from giffusion.export.checkpoint.tensors import Computed, Tensor

_UNUSED = {"text_projection", "text_projection.weight", "logit_scale", "attn_mask"}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_STEM = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_INNER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}


def clip_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Gives current names to the tensors of OpenAI's CLIP.

    Args:
        tensors: those of the text encoder, without `cond_stage_model.` or
            `conditioner.embedders.0.`; the unused projection and scale of CLIP are left out.

    Returns:
        The tensors, and the names that are none of a text encoder.
    """
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        inner = name.removeprefix("transformer.")
        if inner in _UNUSED or inner.endswith("position_ids"):
            continue
        if inner == name:
            unknown.append(name)
        else:
            # Files of before transformers 4 named the layers without it.
            renamed["text_model." + inner.removeprefix("text_model.")] = tensor
    return renamed, unknown


def open_clip_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Gives transformers' names to the tensors of OpenCLIP's text encoder.

    SD 2 was trained on the last layer but one: its configuration has one layer less than the file.

    Args:
        tensors: those of the text encoder, without `cond_stage_model.model.` and the like.
        config: its `config.json`; the projection is kept where it is a
            `CLIPTextModelWithProjection`.

    Returns:
        The tensors, and the names that are none of such a text encoder.
    """
    projected = "CLIPTextModelWithProjection" in config["architectures"]
    num_layers = int(config["num_hidden_layers"])
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        layer = _LAYER.fullmatch(name)
        if name in _STEM:
            renamed[_STEM[name]] = tensor
        elif projected and name in ("text_projection", "text_projection.weight"):
            # OpenCLIP's parameter multiplies from the right, a linear layer's from the left.
            turned = _transposed(tensor) if name == "text_projection" else tensor
            renamed["text_projection.weight"] = turned
        elif layer and int(layer[1]) < num_layers + (not projected):
            inner = dict(_layer(layer[2], tensor))
            unknown += [] if inner else [name]
            if int(layer[1]) < num_layers:
                prefix = f"text_model.encoder.layers.{layer[1]}."
                renamed |= {prefix + new: value for new, value in inner.items()}
        elif name not in _UNUSED:
            unknown.append(name)
    return renamed, unknown


def _layer(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yields what a tensor of a layer is to transformers; nothing if it is none."""
    stem, _, kind = name.rpartition(".")
    if stem in _INNER:
        yield f"{_INNER[stem]}.{kind}", tensor
    elif name in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind = name.rpartition("_")[2]
        for i, projection in enumerate("qkv"):
            yield f"self_attn.{projection}_proj.{kind}", _third(tensor, i)


def _third(tensor: Tensor, index: int) -> Tensor:
    """Returns a third of the rows; what has no thirds stays, for its shape to tell."""
    if not tensor.shape or tensor.shape[0] % 3:
        return tensor
    size = tensor.shape[0] // 3
    rows = slice(index * size, (index + 1) * size)
    return Computed(tensor.dtype, (size, *tensor.shape[1:]), lambda: tensor.read()[rows])


def _transposed(tensor: Tensor) -> Tensor:
    return Computed(tensor.dtype, tensor.shape[::-1], lambda: np.ascontiguousarray(tensor.read().T))
