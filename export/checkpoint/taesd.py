"""TAESD's decoder in its author's layout, as diffusers' AutoencoderTiny.

`autoencoders.py` calls it. The layout is that of https://github.com/madebyollin/taesd: one
sequence of layers, of which the first clamps and has no weights; diffusers has the same sequence
without it, so its numbers are one less. The invariant: the configuration is read off the layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import Part
from giffusion.export.checkpoint.tensors import Tensor

_LAYER = re.compile(r"(\d{1,4})\.((?:conv\.\d|skip)\.)?(weight|bias)")
_FIRST = "1.weight"


def taesd_decoder(tensors: Mapping[str, Tensor], where: str) -> Part:
    """Takes a decoder of TAESD's own layout.

    Args:
        tensors: those of `taesd_decoder.safetensors` or `taesdxl_decoder.safetensors`.
        where: what the file is called in messages.

    Returns:
        An AutoencoderTiny with the tensors `decoder.…` alone, not checked for completeness.

    Raises:
        ModelError: the tensors are not such a decoder's.
    """
    unknown = [name for name in tensors if not _LAYER.fullmatch(name)]
    if unknown or _FIRST not in tensors or len(tensors[_FIRST].shape) != 4:
        what = f"has {unknown[0]!r}" if unknown else f"lacks the first layer, {_FIRST!r}"
        raise ModelError(
            f"{where} {what}: expected TAESD's own taesd_decoder.safetensors, or the folder of an "
            "AutoencoderTiny"
        )
    width, latent_channels = tensors[_FIRST].shape[:2]
    num_blocks = list(_runs_of_blocks(tensors))
    config: dict[str, Any] = {
        "_class_name": "AutoencoderTiny",
        "act_fn": "relu",
        "decoder_block_out_channels": [width] * len(num_blocks),
        "encoder_block_out_channels": [width] * len(num_blocks),
        "force_upcast": False,
        "in_channels": 3,
        "latent_channels": latent_channels,
        "latent_magnitude": 3,
        "latent_shift": 0.5,
        "num_decoder_blocks": num_blocks,
        "num_encoder_blocks": num_blocks[::-1],
        "out_channels": 3,
        "scaling_factor": 1.0,
        "upsample_fn": "nearest",
        "upsampling_scaling_factor": 2,
    }
    return Part(config, {_diffusers_name(name): tensor for name, tensor in tensors.items()})


def _runs_of_blocks(tensors: Mapping[str, Tensor]) -> Iterator[int]:
    """Yields how many blocks there are between one upsampling and the next."""
    blocks = sorted({int(name.partition(".")[0]) for name in tensors if ".conv." in name})
    begin = 0
    for i in range(1, len(blocks) + 1):
        if i == len(blocks) or blocks[i] != blocks[i - 1] + 1:
            yield i - begin
            begin = i


def _diffusers_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"decoder.layers.{int(layer) - 1}.{rest}"
