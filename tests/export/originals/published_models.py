"""The published models at their size, with nothing in their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from giffusion.export.originals.published import published

NETWORKS: Mapping[str, Any] = {
    "unet": UNet2DConditionModel.from_config,
    "vae": AutoencoderKL.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "text_encoder_2": lambda config: CLIPTextModelWithProjection(CLIPTextConfig(**config)),
}


class PublishedModel:
    """A model as `original_layout` takes pipelines, of tensors with shapes only."""

    def __init__(self, family: str) -> None:
        configs = published(family)
        with torch.device("meta"):
            for part in NETWORKS.keys() & configs.keys():
                setattr(self, part, NETWORKS[part](configs[part]))


@cache
def published_model(family: str) -> PublishedModel:
    """Returns a family's model, the same one each time."""
    return PublishedModel(family)
