"""Checkpoints of the published models' shapes with random weights, written one tensor at a time.

`export.py` exports them. The invariant: nothing is kept in memory but the tensor that is written,
and a tensor's values follow from its name. They have the scale that training gives, so that signals
neither vanish nor overflow on their way; they prove no picture.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from giffusion.export.checkpoint.check import empty_network
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES, Checkpoint, Part
from giffusion.export.checkpoint.networks import network_class
from giffusion.export.checkpoint.tensors import Array, Computed, Tensor
from giffusion.export.checkpoint.vocabularies import openai_vocabulary
from giffusion.export.checkpoint.write import write_tensors
from giffusion.export.originals.published import PAD_TOKENS, published

DTYPE = ir.DataType.FLOAT16
"""What published files are in."""
INIT_STD = 0.02
_ATTENTION = re.compile(r"(.*attn[12]\.to_(?:q|k|v|out\.0))\.weight")
_TEXT = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_NARROW: Mapping[str, Mapping[str, Any]] = {
    "unet": {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "sample_size": 8,
        "cross_attention_dim": 32,
    },
    "vae": {"block_out_channels": [32] * 4, "layers_per_block": 1, "sample_size": 64},
    "text_encoder": {"hidden_size": 32, **_TEXT},
}
"""What a quick run changes in SD 1's configurations."""


def random_checkpoint(family: str, *, narrow: bool = False) -> Checkpoint:
    """Returns a family's model with random weights that are computed when they are read.

    Args:
        family: one of `giffusion.export.originals.published.FAMILIES`.
        narrow: a model of few and small layers, to see that things work; of `sd1` alone.
    """
    assert not narrow or family == "sd1"
    configs = published(family)
    pipeline, scheduler = configs.pop("pipeline"), configs.pop("scheduler")
    changes = _NARROW if narrow else {}
    return Checkpoint(
        name=family,
        pipeline=pipeline,
        scheduler=scheduler,
        parts={name: _part(name, {**configs[name], **changes.get(name, {})}) for name in configs},
        vocabularies={name: openai_vocabulary(pad) for name, pad in PAD_TOKENS[family].items()},
        sources={},
    )


def weights_bytes(checkpoint: Checkpoint) -> int:
    """Returns how much a checkpoint's weights take as they are."""
    tensors = (tensor for part in checkpoint.parts.values() for tensor in part.tensors.values())
    return sum(math.prod(tensor.shape) * int(tensor.dtype.itemsize) for tensor in tensors)


def stored_bytes(folder: Path) -> int:
    """Returns how much the weights in a model folder take."""
    files = (folder / part / name for part, name in WEIGHTS_FILES.items())
    return sum(file.stat().st_size for file in files if file.is_file())


def write_lora(checkpoint: Checkpoint, file: Path, *, rank: int) -> int:
    """Writes a LoRA on all attention layers of a UNet, by diffusers' names.

    Args:
        checkpoint: what it is for.
        file: the new file.
        rank: of each layer.

    Returns:
        The number of layers.
    """
    layers: dict[str, Tensor] = {}
    for name, weight in checkpoint.parts["unet"].tensors.items():
        if match := _ATTENTION.fullmatch(name):
            wide, narrow = weight.shape
            layers |= {
                key: _tensor(key, shape)
                for key, shape in (
                    (f"unet.{match[1]}.lora_A.weight", (rank, narrow)),
                    (f"unet.{match[1]}.lora_B.weight", (wide, rank)),
                )
            }
    write_tensors(layers, file, None, file.name)
    return len(layers) // 2


def _part(name: str, config: Mapping[str, Any]) -> Part:
    network = empty_network(network_class(name, config), config, name)
    tensors: dict[str, Tensor] = {
        key: _tensor(key, tuple(tensor.shape)) for key, tensor in network.state_dict().items()
    }
    return Part(config, tensors)


def _tensor(name: str, shape: tuple[int, ...]) -> Computed:
    return Computed(DTYPE, shape, partial(_values, name, shape))


def _values(name: str, shape: tuple[int, ...]) -> Array:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    values = generator.standard_normal(shape, np.float32)
    is_table = "embedding.weight" in name
    values *= INIT_STD if len(shape) == 1 or is_table else 1 / math.sqrt(math.prod(shape[1:]))
    if len(shape) == 1 and name.endswith("weight"):
        values += 1  # a norm's
    return values.astype(DTYPE.numpy())
