"""The autoencoder's names in the original layout, as diffusers has them.

`convert.py` calls `vae_tensors`. The original decoder numbers its levels from the outside, while
diffusers counts in the order of computation; attention is 1x1 convolutions there, linear here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from giffusion.export.checkpoint.tensors import Computed, Tensor

_SKIPPED = ("loss.", "model_ema.")
"""What training left in the files of autoencoders alone."""
_BLOCK = re.compile(
    r"(encoder\.down|decoder\.up)\.(\d+)\.(?:block\.(\d+)\.(.+)|(down|up)sample\.conv)"
)
_MID = re.compile(r"(encoder|decoder)\.mid\.(block_([12])|attn_1)\.(.+)")
_RESNET = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {
    "nin_shortcut": "conv_shortcut"
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_STEM = {
    f"{side}.{old}": f"{side}.{new}"
    for side in ("encoder", "decoder")
    for old, new in (
        ("conv_in", "conv_in"),
        ("norm_out", "conv_norm_out"),
        ("conv_out", "conv_out"),
    )
} | {name: name for name in ("quant_conv", "post_quant_conv")}


def vae_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Gives diffusers' names and shapes to an autoencoder's tensors.

    Args:
        tensors: those of the autoencoder, without `first_stage_model.`.
        config: its diffusers `config.json`.

    Returns:
        The tensors, and the names that no module of an AutoencoderKL has.
    """
    num_levels = len(config["block_out_channels"])
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        if name.startswith(_SKIPPED):
            continue
        new = _rename(name, num_levels)
        if new is None:
            unknown.append(name)
        else:
            renamed[new] = _linear(tensor) if ".attentions." in new else tensor
    return renamed, unknown


def _rename(name: str, num_levels: int) -> str | None:
    stem, _, kind = name.rpartition(".")
    new = _STEM.get(stem) or _block(stem, num_levels) or _mid(stem)
    return new and f"{new}.{kind}"


def _block(stem: str, num_levels: int) -> str | None:
    match = _BLOCK.fullmatch(stem)
    if match is None:
        return None
    side, level, layer, inner, sampler = match.groups()
    block = int(level) if side == "encoder.down" else num_levels - 1 - int(level)
    if sampler:
        return f"{side}_blocks.{block}.{sampler}samplers.0.conv"
    return _RESNET.get(inner) and f"{side}_blocks.{block}.resnets.{layer}.{_RESNET[inner]}"


def _mid(stem: str) -> str | None:
    match = _MID.fullmatch(stem)
    if match is None:
        return None
    side, _, number, inner = match.groups()
    if number is None:
        return _ATTENTION.get(inner) and f"{side}.mid_block.attentions.0.{_ATTENTION[inner]}"
    return _RESNET.get(inner) and f"{side}.mid_block.resnets.{int(number) - 1}.{_RESNET[inner]}"


def _linear(tensor: Tensor) -> Tensor:
    """Returns the matrix of a 1x1 convolution; what is none stays as it is."""
    if len(tensor.shape) <= 2 or set(tensor.shape[2:]) != {1}:
        return tensor
    shape = tensor.shape[:2]
    return Computed(tensor.dtype, shape, lambda: tensor.read().reshape(shape))
