"""Checks that parts are networks which are rendered, and that their tensors are just theirs.

Called by the readers and editors of checkpoints. What a network's tensors are is asked of its own
class, made of the configuration without memory. The invariant: a part that passes loads with no
weight missing, left over or of another shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import CLIPTextModel

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE
from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import Part
from giffusion.export.checkpoint.networks import make_network, shown

NUM_SIZE_IDS = 6
"""Numbers about a picture's size that SDXL's UNet takes; its refiner takes 5."""
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
    network = make_network(kind, config, where)
    if kind is CLIPTextModel and not any(n.startswith("text_model.") for n in network.state_dict()):
        network = nn.ModuleDict({"text_model": network})
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
            f"{where} has {shown(channels[0])} input and {shown(channels[1])} output channels: "
            f"expected {LATENT_CHANNELS} and {LATENT_CHANNELS}; {kind or 'such a model'} is not "
            "rendered"
        )
    for key, allowed in _UNET_SETTINGS.items():
        if config.get(key) not in allowed:
            expected = " or ".join(str(value or "none") for value in allowed)
            raise ModelError(
                f"{where} has {key}={shown(config[key])}: expected {expected}; such a model is not "
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
            f"{where} has {shown(latents)} latent channels: expected {LATENT_CHANNELS}; "
            "autoencoders of SD 3, Flux and later models do not fit"
        )
    for key in ("latents_mean", "latents_std"):
        values = config.get(key)
        if values is not None and not _are_numbers(values):
            raise ModelError(
                f"{where} has {key}={shown(values)}: expected {LATENT_CHANNELS} numbers, or none"
            )
    widths = config.get("block_out_channels", config.get("decoder_block_out_channels"))
    if not isinstance(widths, list | tuple) or 2 ** (len(widths) - 1) != LATENT_SCALE:
        raise ModelError(
            f"{where} has block_out_channels={shown(widths)}: expected four widths, of an "
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


def _are_numbers(values: object) -> bool:
    if not isinstance(values, list | tuple) or len(values) != LATENT_CHANNELS:
        return False
    return all(isinstance(value, int | float) for value in values)
