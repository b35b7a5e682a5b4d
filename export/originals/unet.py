"""The UNet's names in the original layout, as diffusers has them.

`convert.py` calls `unet_tensors`. The original code (openaimodel.py of CompVis and Stability) puts
resnets, transformers and resampling into one numbered list; diffusers nests them in blocks. Which
number is what follows from the configuration, and what is inside a module is named by suffix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from giffusion.export.checkpoint.tensors import Tensor

UNET_PREFIX = "model.diffusion_model."
COND_PROJ = ("time_embed.cond_proj.weight", "time_embedding.cond_proj.weight")
"""What LCM's guidance enters by; converters write either name."""
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_STEM = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "time_embed.cond_proj": "time_embedding.cond_proj",
    "time_embedding.cond_proj": "time_embedding.cond_proj",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def unet_tensors(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], list[str]]:
    """Gives diffusers' names to a UNet's tensors.

    Args:
        tensors: those of the UNet, without `model.diffusion_model.`.
        config: its diffusers `config.json`.

    Returns:
        The tensors, and the names that no module of such a UNet has.
    """
    modules = dict(_modules(config))
    renamed: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        new = _rename(name, modules)
        if new is None:
            unknown.append(name)
        else:
            renamed[new] = tensor
    return renamed, unknown


def _modules(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields each numbered module's original and diffusers' name, in the original's order."""
    num_layers = int(config["layers_per_block"])
    yield from _down(config["down_block_types"], num_layers)
    yield "middle_block.0", "mid_block.resnets.0"
    yield "middle_block.1", "mid_block.attentions.0"
    yield "middle_block.2", "mid_block.resnets.1"
    yield from _up(config["up_block_types"], num_layers)


def _down(types: list[str], num_layers: int) -> Iterator[tuple[str, str]]:
    number = 1
    for block, kind in enumerate(types):
        for layer in range(num_layers):
            yield f"input_blocks.{number}.0", f"down_blocks.{block}.resnets.{layer}"
            if "CrossAttn" in kind:
                yield f"input_blocks.{number}.1", f"down_blocks.{block}.attentions.{layer}"
            number += 1
        if block < len(types) - 1:
            yield f"input_blocks.{number}.0.op", f"down_blocks.{block}.downsamplers.0.conv"
            number += 1


def _up(types: list[str], num_layers: int) -> Iterator[tuple[str, str]]:
    number = 0
    for block, kind in enumerate(types):
        for layer in range(num_layers + 1):
            yield f"output_blocks.{number}.0", f"up_blocks.{block}.resnets.{layer}"
            if "CrossAttn" in kind:
                yield f"output_blocks.{number}.1", f"up_blocks.{block}.attentions.{layer}"
            if layer == num_layers and block < len(types) - 1:
                place = 2 if "CrossAttn" in kind else 1
                yield (
                    f"output_blocks.{number}.{place}.conv",
                    f"up_blocks.{block}.upsamplers.0.conv",
                )
            number += 1


def _rename(name: str, modules: Mapping[str, str]) -> str | None:
    stem, _, kind = name.rpartition(".")
    if stem in _STEM:
        return f"{_STEM[stem]}.{kind}"
    if stem in modules:
        return f"{modules[stem]}.{kind}"
    place, inner = _split(stem, 2 if stem.startswith("middle_block.") else 3)
    if place not in modules:
        return None
    if ".attentions." in modules[place]:
        return f"{modules[place]}.{inner}.{kind}"
    return f"{modules[place]}.{_RESNET[inner]}.{kind}" if inner in _RESNET else None


def _split(name: str, num_parts: int) -> tuple[str, str]:
    parts = name.split(".")
    return ".".join(parts[:num_parts]), ".".join(parts[num_parts:])
