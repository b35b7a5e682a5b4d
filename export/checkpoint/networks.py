"""The networks that are rendered: their classes, and themselves without memory for weights.

`check.py` and `giffusion.export.stages` make them. The invariant: what a configuration can name is
one of these classes, and nothing in it names code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.quiet import quiet_diffusers

_CLASSES: Mapping[str, tuple[Any, ...]] = {
    "unet": (UNet2DConditionModel,),
    "vae": (AutoencoderKL, AutoencoderTiny),
    "decoder": (AutoencoderTiny,),
    "controlnet": (ControlNetModel,),
    "text_encoder": (CLIPTextModel,),
    "text_encoder_2": (CLIPTextModelWithProjection,),
}
TEXT_SETTINGS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "layer_norm_eps",
    "attention_dropout",
    "initializer_factor",
    "initializer_range",
)
"""What makes a text encoder; the rest of such a config is of generating text, or names code."""


def network_class(name: str, config: Mapping[str, Any], where: str | None = None) -> Any:
    """Returns the class that a part's configuration names.

    Args:
        name: one of `giffusion.export.checkpoint.checkpoint.WEIGHTS_FILES`.
        config: the part's `config.json`.
        where: what it is called in messages; its name by default.

    Raises:
        ModelError: it is of a kind that is not rendered.
    """
    where = where or name
    classes = {kind.__name__: kind for kind in _CLASSES[name]}
    if config.get("quantization_config") is not None:
        raise ModelError(f"{where} is quantised: expected plain fp32, fp16 or bf16 weights")
    if name.startswith("text_encoder"):
        # Which of the two classes is the pipeline's matter, whatever the config says.
        named = config.get("architectures") or ["CLIPTextModel"]
        if named not in (["CLIPTextModel"], ["CLIPTextModelWithProjection"]):
            raise ModelError(f"{where} is a {shown(named)}: expected {' or '.join(classes)}")
        return next(iter(classes.values()))
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in classes:
        raise ModelError(f"{where} is a {shown(kind)}: expected {' or '.join(classes)}")
    return classes[kind]


def make_network(kind: Any, config: Mapping[str, Any], where: str) -> nn.Module:
    """Makes a network on the meta device, where its weights take no memory.

    Args:
        kind: its class, as `network_class` gives it.
        config: its configuration.
        where: what it is called in messages.

    Raises:
        ModelError: the configuration is not such a network's.
    """
    try:
        with torch.device("meta"), quiet_diffusers():
            if kind in (CLIPTextModel, CLIPTextModelWithProjection):
                known = {key: config[key] for key in TEXT_SETTINGS if key in config}
                network = kind(CLIPTextConfig(**known))
            else:
                network = kind.from_config(dict(config))
    except Exception as error:  # the classes raise whatever a wrong value makes them stumble on
        raise ModelError(
            f"{where} has a config.json that is no {kind.__name__}'s: {one_line(error)[:200]}"
        ) from None
    assert isinstance(network, nn.Module)
    return network


def shown(value: object) -> str:
    """Returns a value of a configuration as messages show it."""
    return one_line(repr(value) if value is not None else "none")[:100]
