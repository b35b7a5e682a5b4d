"""A checkpoint in the one form that export works on: configurations, and tensors still on disk.

Readers return one, editors (`additions/`, `autoencoders.py`) return another,
`write.py` writes it. The invariant: names and configurations are those of a diffusers folder,
wherever the checkpoint came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.export.checkpoint.tensors import Tensor

WEIGHTS_FILES = {
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "decoder": "diffusion_pytorch_model.safetensors",
    "controlnet": "diffusion_pytorch_model.safetensors",
}
"""The file in each part's folder that its weights are written to."""


@dataclass(frozen=True, slots=True)
class Part:
    """One network.

    Args:
        config: its `config.json`.
        tensors: its weights by the names that diffusers or transformers gives them; those of text
            encoders begin with `text_model.`, or are `text_projection.weight`.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """One tokenizer.

    Args:
        tokenizer: its `tokenizer.json`.
        config: its `tokenizer_config.json`, which names the pad token.
    """

    tokenizer: Mapping[str, Any]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A text-to-image model.

    Args:
        name: what it is called, from its folder or file.
        pipeline: its `model_index.json`.
        scheduler: its `scheduler_config.json`.
        parts: `unet`, `vae`, `text_encoder`, and with SDXL `text_encoder_2`; `decoder` where
            pictures are decoded by another autoencoder than they are encoded by, `controlnet` where
            maps steer them.
        vocabularies: `tokenizer`, and with SDXL `tokenizer_2`.
        sources: the files that were read, by what they are called in messages and manifests.
    """

    name: str
    pipeline: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    parts: Mapping[str, Part]
    vocabularies: Mapping[str, Vocabulary]
    sources: Mapping[str, Path]
