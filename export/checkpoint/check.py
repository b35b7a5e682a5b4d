"""Checks that parts are networks which are rendered, and that their tensors are just theirs.

Called by the readers and editors of checkpoints. What a network's tensors are is asked of its own
class, made of the configuration without memory. The invariant: a part that passes loads with no
weight missing, left over or of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE
from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.checkpoint import Part

NUM_SIZE_IDS = 6
"""Numbers about a picture's size that SDXL's UNet takes; its refiner takes 5."""
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
_KINDS = {
    5: "a depth-guided model",
    7: "an upscaler",
    8: "an instruct-pix2pix model",
    9: "an inpainting model",
}
"""What UNets with so many input channels are."""
_UNET_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "addition_embed_type": (None, "text_time"),
    "time_embedding_type": (None, "positional"),
    "attention_type": (None, "default"),
}


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
            raise ModelError(f"{where} is a {_text(named)}: expected {' or '.join(classes)}")
        return next(iter(classes.values()))
    kind = config.get("_class_name")
    if not isinstance(kind, str) or kind not in classes:
        raise ModelError(f"{where} is a {_text(kind)}: expected {' or '.join(classes)}")
    return classes[kind]


def check_part(part: Part, where: str, kind: Any, *, prefix: str = "") -> None:
    """Checks that a part has all weights of its class, each of its shape, and no others.

    Args:
        part: the network.
        where: what it is called in messages.
        kind: its class, as `network_class` gives it.
        prefix: check only the names that begin so, for one half of an autoencoder.

    Raises:
        ModelError: a weight is missing, left over or of another shape, or the configuration is
            not such a network's.
    """
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in empty_network(kind, part.config, where).state_dict().items()
        if name.startswith(prefix)
    }
    missing = [name for name in expected if name not in part.tensors]
    if missing:
        raise ModelError(
            f"{where} lacks {len(missing)} of {len(expected)} weights of a {kind.__name__}, such "
            f"as {missing[0]!r}: it is incomplete, or its config.json is another model's"
        )
    for name, tensor in part.tensors.items():
        if name not in expected:
            raise ModelError(
                f"{where} has {name!r}, which no {kind.__name__} of its config.json has: expected "
                "a plain model's weights"
            )
        if tensor.shape != expected[name]:
            raise ModelError(
                f"{where}: {name!r} has the shape {tensor.shape}: expected {expected[name]} by its "
                "config.json"
            )


def empty_network(kind: Any, config: Mapping[str, Any], where: str) -> nn.Module:
    """Makes a network on the meta device, where it takes no memory.

    Args:
        kind: its class, as `network_class` gives it.
        config: its configuration.
        where: what it is called in messages.

    Raises:
        ModelError: the configuration is not such a network's.
    """
    try:
        with torch.device("meta"):
            if kind in (CLIPTextModel, CLIPTextModelWithProjection):
                known = {key: config[key] for key in TEXT_SETTINGS if key in config}
                network = kind(CLIPTextConfig(**known))
            else:
                network = kind.from_config(dict(config))
    except Exception as error:  # the classes raise whatever a wrong value makes them stumble on
        raise ModelError(
            f"{where} has a config.json that is no {kind.__name__}'s: {one_line(error)[:200]}"
        ) from None
    if kind is CLIPTextModel and not any(n.startswith("text_model.") for n in network.state_dict()):
        network = nn.ModuleDict({"text_model": network})
    assert isinstance(network, nn.Module)
    return network


def check_unet(config: Mapping[str, Any], where: str) -> None:
    """Checks that a UNet's inputs are those that the engine gives.

    Raises:
        ModelError: it is an inpainting, editing, class-conditioned, … model, or SDXL's refiner.
    """
    channels = config.get("in_channels", 4), config.get("out_channels", 4)
    if channels != (LATENT_CHANNELS, LATENT_CHANNELS):
        kind = _KINDS.get(channels[0]) if isinstance(channels[0], int) else None
        raise ModelError(
            f"{where} has {_text(channels[0])} input and {_text(channels[1])} output channels: "
            f"expected {LATENT_CHANNELS} and {LATENT_CHANNELS}; {kind or 'such a model'} is not "
            "rendered"
        )
    for key, allowed in _UNET_SETTINGS.items():
        if config.get(key) not in allowed:
            expected = " or ".join(str(value or "none") for value in allowed)
            raise ModelError(
                f"{where} has {key}={_text(config[key])}: expected {expected}; such a model is not "
                "rendered"
            )
    if config.get("addition_embed_type") == "text_time":
        _check_size_ids(config, where)


def _check_size_ids(config: Mapping[str, Any], where: str) -> None:
    width = config.get("projection_class_embeddings_input_dim")
    ids_dim, prompt_dim = config.get("addition_time_embed_dim"), config.get("cross_attention_dim")
    if not all(type(value) is int for value in (width, ids_dim, prompt_dim)):
        raise ModelError(
            f"{where} has no projection_class_embeddings_input_dim, addition_time_embed_dim or "
            "cross_attention_dim: expected an SDXL UNet's config.json"
        )
    assert isinstance(width, int)
    assert isinstance(ids_dim, int)
    assert isinstance(prompt_dim, int)
    # The refiner has one text encoder, so its prompts' width is that of its pooled embeddings.
    if width == (NUM_SIZE_IDS - 1) * ids_dim + prompt_dim:
        raise ModelError(
            f"{where} is SDXL's refiner, which takes {NUM_SIZE_IDS - 1} size ids: expected the "
            f"base model, which takes {NUM_SIZE_IDS}; export that"
        )


def check_vae(config: Mapping[str, Any], where: str) -> None:
    """Checks that an autoencoder's latents and pictures are those that the engine has.

    Raises:
        ModelError: it is another family's, such as SD 3's.
    """
    latents = config.get("latent_channels", 4)
    if latents != LATENT_CHANNELS:
        raise ModelError(
            f"{where} has {_text(latents)} latent channels: expected {LATENT_CHANNELS}; "
            "autoencoders of SD 3, Flux and later models do not fit"
        )
    for key in ("latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise ModelError(f"{where} has {key}: expected none, such latents are not rendered")
    widths = config.get("block_out_channels", config.get("decoder_block_out_channels"))
    if not isinstance(widths, list | tuple) or 2 ** (len(widths) - 1) != LATENT_SCALE:
        raise ModelError(
            f"{where} has block_out_channels={_text(widths)}: expected four widths, of an "
            f"autoencoder whose pictures are {LATENT_SCALE} times its latents"
        )


def check_fit(parts: Mapping[str, Part], where: str) -> None:
    """Checks that the text encoders make what the UNet takes, by the shapes of their weights.

    Args:
        parts: those of a checkpoint, each checked for itself.
        where: what the checkpoint is called in messages.

    Raises:
        ModelError: a width differs.
    """
    taken = {
        tensor.shape[-1]
        for name, tensor in parts["unet"].tensors.items()
        if name.endswith("attn2.to_k.weight")
    }
    encoders = [part for name, part in parts.items() if name.startswith("text_encoder")]
    made = sum(part.tensors["text_model.final_layer_norm.weight"].shape[0] for part in encoders)
    _fit(where, "prompt embeddings", taken, made)
    if "text_encoder_2" in parts:
        pooled = parts["text_encoder_2"].tensors["text_projection.weight"].shape[0]
        ids_dim = parts["unet"].config["addition_time_embed_dim"]
        width = parts["unet"].tensors["add_embedding.linear_1.weight"].shape[1]
        _fit(where, "pooled embeddings", {width - NUM_SIZE_IDS * ids_dim}, pooled)


def _fit(where: str, what: str, taken: set[int], made: int) -> None:
    if taken != {made}:
        widths = " and ".join(map(str, sorted(taken))) or "none"
        raise ModelError(
            f"{where}: the UNet takes {what} of the width {widths}, the text encoders make "
            f"{made}: expected parts of one model"
        )


def _text(value: object) -> str:
    return one_line(repr(value) if value is not None else "none")[:100]
