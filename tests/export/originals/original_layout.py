"""Checkpoints in the original layout, made from diffusers models for the tests of their reader.

The names are written the other way round than in the product, and for two layers a block, as all
published models have; diffusers' own converters take them back.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
UNET = "model.diffusion_model."
VAE = "first_stage_model."
BUFFERS = {
    "betas": torch.zeros(3),
    "alphas_cumprod": torch.zeros(3),
    "sqrt_recipm1_alphas_cumprod": torch.zeros(3),
    "posterior_mean_coef2": torch.zeros(3),
    "model_ema.decay": torch.zeros(1),
    "model_ema.diffusion_modelinput_blocks00weight": torch.zeros(3),
    "first_stage_model.loss.logvar": torch.zeros(1),
}
"""What files have that no network here uses."""
_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
_STEM = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("time_embedding.cond_proj", "time_embed.cond_proj"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)
_TEXT = (
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
    ("self_attn.out_proj", "attn.out_proj"),
)


def original(pipeline: Any) -> State:
    """Returns a whole pipeline as the original code would have saved it."""
    state = {UNET + name: tensor for name, tensor in unet(pipeline.unet.state_dict()).items()}
    state |= {VAE + name: tensor for name, tensor in vae(pipeline.vae.state_dict()).items()}
    first = text_state(pipeline.text_encoder)
    if hasattr(pipeline, "text_encoder_2"):
        second = open_clip(text_state(pipeline.text_encoder_2))
        state |= {f"conditioner.embedders.0.transformer.{k}": v for k, v in first.items()}
        state |= {f"conditioner.embedders.1.model.{k}": v for k, v in second.items()}
    elif pipeline.text_encoder.config.hidden_act == "gelu":
        state |= {f"cond_stage_model.model.{k}": v for k, v in open_clip(first).items()}
    else:
        state |= {f"cond_stage_model.transformer.{k}": v for k, v in first.items()}
    return state


def configs(pipeline: Any) -> dict[str, dict[str, Any]]:
    """Returns the configurations of a pipeline's networks as they are in a diffusers folder."""
    found = {"unet": dict(pipeline.unet.config), "vae": dict(pipeline.vae.config)}
    found["unet"].pop("time_cond_proj_dim")
    for name in ("text_encoder", "text_encoder_2"):
        if hasattr(pipeline, name):
            encoder = getattr(pipeline, name)
            found[name] = encoder.config.to_dict() | {"architectures": [type(encoder).__name__]}
    return found


def states(pipeline: Any) -> dict[str, State]:
    """Returns what a pipeline's networks hold, by canonical names."""
    found = {"unet": pipeline.unet.state_dict(), "vae": pipeline.vae.state_dict()}
    for name in ("text_encoder", "text_encoder_2"):
        if hasattr(pipeline, name):
            found[name] = text_state(getattr(pipeline, name))
    return found


def text_state(encoder: Any) -> State:
    """Returns a text encoder's tensors with the prefix `text_model.`."""
    return {
        name if name.startswith("text_") else f"text_model.{name}": tensor
        for name, tensor in encoder.state_dict().items()
    }


def unet(state: Mapping[str, Tensor]) -> State:
    """Renames a UNet's tensors."""
    crossed = {name.split(".")[1] for name in state if re.match(r"up_blocks\.\d+\.att", name)}
    return {_unet_name(name, crossed): tensor for name, tensor in state.items()}


def _unet_name(name: str, crossed: set[str]) -> str:
    for new, old in _STEM:
        if name.startswith(f"{new}."):
            return name.replace(new, old, 1)
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = 1 if parts[1] == "attentions" else 2 * int(parts[2])
        return _inner(f"middle_block.{place}", parts[1], parts[3:])
    side, block, kind, layer = parts[0], int(parts[1]), parts[2], int(parts[3])
    if kind == "downsamplers":
        return f"input_blocks.{3 * block + 3}.0.op.{parts[-1]}"
    if kind == "upsamplers":
        place = 2 if parts[1] in crossed else 1
        return f"output_blocks.{3 * block + 2}.{place}.conv.{parts[-1]}"
    number = 3 * block + layer
    base = f"input_blocks.{number + 1}" if side == "down_blocks" else f"output_blocks.{number}"
    return _inner(f"{base}.{int(kind == 'attentions')}", kind, parts[4:])


def _inner(place: str, kind: str, rest: list[str]) -> str:
    inner = ".".join(rest)
    if kind == "resnets":
        for new, old in _RESNET:
            inner = inner.replace(new, old)
    return f"{place}.{inner}"


def vae(state: Mapping[str, Tensor]) -> State:
    """Renames an autoencoder's tensors, with attention as 1x1 convolutions."""
    levels = 1 + max(int(name.split(".")[2]) for name in state if "down_blocks" in name)
    return dict(_vae_entry(name, tensor, levels) for name, tensor in state.items())


def _vae_entry(name: str, tensor: Tensor, levels: int) -> tuple[str, Tensor]:
    if ".attentions.0." in name and tensor.ndim == 2:
        tensor = tensor[:, :, None, None]
    for new, old in (
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("resnets", "block"),
        ("down_blocks", "down"),
    ):
        name = name.replace(new, old)
    name = re.sub(r"up_blocks\.(\d+)", lambda block: f"up.{levels - 1 - int(block[1])}", name)
    return name, tensor


def open_clip(state: Mapping[str, Tensor]) -> State:
    """Renames a text encoder's tensors, with its attention's three projections in one."""
    return dict(_open_clip_entries(state))


def _open_clip_entries(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in state.items():
        if name == "text_projection.weight":
            yield "text_projection", tensor.T.contiguous()
        elif ".q_proj." in name:
            stacked = [state[name.replace(".q_", f".{x}_")] for x in "qkv"]
            kind = name.rpartition(".")[2]
            place = name.replace("text_model.encoder.layers", "transformer.resblocks")
            place = place.partition(".self_attn")[0]
            yield f"{place}.attn.in_proj_{kind}", torch.cat(stacked)
        elif ".k_proj." not in name and ".v_proj." not in name:
            yield _open_clip_name(name), tensor


def _open_clip_name(name: str) -> str:
    for new, old in _TEXT:
        name = name.replace(new, old)
    for new, old in (
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("text_model.final_layer_norm", "ln_final"),
        ("text_model.embeddings.token_embedding", "token_embedding"),
        ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ):
        name = name.replace(new, old)
    return name


def write_sparse(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[str, str] | None = None,
    data: bytes = b"",
) -> Path:
    """Writes a safetensors file whose values are zeros that take no room on the disk.

    Args:
        path: where to.
        shapes: the tensors, of type F16 where `dtypes` says nothing else.
        metadata: the header's `__metadata__`.
        dtypes: types of single tensors.
        data: the first bytes of the values, which are those of the first tensor.
    """
    sizes = {"F16": 2, "F32": 4, "I64": 8, "F8_E4M3": 1, "I8": 1}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, shape in shapes.items():
        dtype = (dtypes or {}).get(name, "F16")
        length = sizes[dtype] * int(torch.Size(shape).numel())
        offsets = [offset, offset + length]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        offset += length
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text + data)
        stream.truncate(8 + len(text) + offset)
    return path
