"""Networks of a pipeline's folder, as what the trainings go on from.

The invariant: each is loaded from its folder alone, in float32, or refused in a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from giffusion.engine.errors import InputError, one_line
from giffusion.models.training.networks import Denoiser


def load_denoiser(folder: Path) -> Denoiser:
    """Returns the text encoder and the U-Net of a pipeline's folder.

    Raises:
        InputError: the folder lacks one of them.
    """
    return Denoiser(load_text_encoder(folder / "text_encoder"), load_unet(folder / "unet"))


def load_autoencoder(folder: Path) -> nn.Module:
    """Returns the `AutoencoderTiny` of a folder.

    Raises:
        InputError: the folder holds none, or one of other latents.
    """
    from diffusers import AutoencoderTiny

    model = _load(folder, "AutoencoderTiny", AutoencoderTiny.from_pretrained)
    config = cast(Any, model).config
    sizes = (len(config.encoder_block_out_channels), config.latent_channels)
    if sizes != (4, 4):
        raise InputError(
            f"{folder}: an AutoencoderTiny of {sizes[0]} levels and {sizes[1]} latent channels: "
            "expected 4 and 4"
        )
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def load_unet(folder: Path) -> nn.Module:
    """Returns the `UNet2DConditionModel` of a folder.

    Raises:
        InputError: the folder holds none.
    """
    from diffusers import UNet2DConditionModel

    return _load(folder, "UNet2DConditionModel", UNet2DConditionModel.from_pretrained)


def load_text_encoder(folder: Path) -> nn.Module:
    """Returns the `CLIPTextModel` of a folder.

    Raises:
        InputError: the folder holds none.
    """
    from transformers import CLIPTextModel

    return _load(folder, "CLIPTextModel", CLIPTextModel.from_pretrained)


def _load(folder: Path, kind: str, load: Callable[..., Any]) -> nn.Module:
    file = folder / "config.json"
    if not file.is_file():
        raise InputError(f"{folder}: no config.json: name the folder of a {kind}")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    # diffusers calls it a class name, transformers a list of architectures.
    listed = config if isinstance(config, dict) else {}
    named = [listed.get("_class_name"), *(listed.get("architectures") or [])]
    if kind not in named:
        raise InputError(f"{file}: of {named[-1]}: name the folder of a {kind}")
    try:
        model: nn.Module = load(str(folder), low_cpu_mem_usage=False, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: not a {kind}: {one_line(error)}") from None
    return model.float()
