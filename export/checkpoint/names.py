"""The names that networks' weights have in older folders, made today's.

Called by the readers of diffusers folders. The invariant: names of one meaning become one name,
and what is dropped is named here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.tensors import Computed, StoredTensor, Tensor

TEXT_PREFIX = "text_model."
_BUFFERS = ("position_ids", "num_updates", "global_step")
_TEXT_MODULES = ("embeddings.", "encoder.", "final_layer_norm.")
_OLD_ATTENTION = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
_ATTENTION_WEIGHT = re.compile(r".*\.attentions\.\d+\.to_(q|k|v|out\.0)\.weight")
_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def is_leftover(name: str) -> bool:
    """Whether a name is a counter's or an index's, which no network computes with."""
    return name.rpartition(".")[2] in _BUFFERS


def canonical_tensors(part: str, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Gives a part's tensors the names that diffusers and transformers give them today.

    Text encoders get their `text_model.`, which transformers 5 leaves out, and lose position ids;
    the first one, whose pooled output no pipeline takes, its projection too. The attention of an
    autoencoder, which was made of 1×1 convolutions once, gets linear layers.

    Args:
        part: one of `giffusion.export.checkpoint.checkpoint.WEIGHTS_FILES`.
        tensors: its tensors by the names in the file.
        where: what the file is called in messages.

    Raises:
        ModelError: two tensors have the same meaning.
    """
    rename = _text_name if part.startswith("text_encoder") else _vae_name
    result: dict[str, Tensor] = {}
    for old, tensor in tensors.items():
        if is_leftover(old) or (part == "text_encoder" and old == "text_projection.weight"):
            continue
        name = rename(old) if part not in ("unet", "controlnet") else old
        if name in result:
            raise ModelError(f"{where} has {old!r} and {name!r}, which are one weight: keep one")
        result[name] = _linear(tensor) if part == "vae" and _is_attention(name) else tensor
    return result


def _text_name(name: str) -> str:
    return TEXT_PREFIX + name if name.startswith(_TEXT_MODULES) else name


def _vae_name(name: str) -> str:
    match = _OLD_ATTENTION.fullmatch(name)
    return f"{match[1]}.{_ATTENTION[match[2]]}.{match[3]}" if match else name


def _is_attention(name: str) -> bool:
    return _ATTENTION_WEIGHT.fullmatch(name) is not None


def _linear(tensor: Tensor) -> Tensor:
    """A 1×1 convolution's weight (out, in, 1, 1) as a linear layer's (out, in)."""
    if len(tensor.shape) != 4 or tensor.shape[2:] != (1, 1):
        return tensor
    shape = tensor.shape[:2]
    if isinstance(tensor, StoredTensor):
        return replace(tensor, shape=shape)
    return Computed(tensor.dtype, shape, lambda: tensor.read().reshape(shape))
