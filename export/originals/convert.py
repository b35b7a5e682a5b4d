"""Networks in the original layout of CompVis and Stability, as parts of a checkpoint.

`single_file.py` calls `original_parts`; `autoencoders.py` calls `original_vae` for an autoencoder
alone. The invariant: a part has every tensor of its network, in its shape, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.check import empty_network
from giffusion.export.checkpoint.checkpoint import Part
from giffusion.export.checkpoint.tensors import Tensor
from giffusion.export.originals.published import published
from giffusion.export.originals.text import clip_tensors, open_clip_tensors
from giffusion.export.originals.unet import COND_PROJ, UNET_PREFIX, unet_tensors
from giffusion.export.originals.vae import vae_tensors

Config = Mapping[str, Any]
VAE_PREFIXES = ("first_stage_model.", "vae.")
PREFIXES = {
    "unet": (UNET_PREFIX,),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": ("conditioner.embedders.1.",),
}
"""What the names of each part's tensors begin with, one of these in one file."""
NAMES = {
    "unet": "UNet",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}


def original_parts(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Config], source: str
) -> dict[str, Part]:
    """Takes a file in the original layout apart.

    Args:
        tensors: all of the file's by their original names, without what is knowingly skipped.
        configs: the `config.json` of each part that the model has; the UNet's is completed with
            `time_cond_proj_dim` where the file has LCM's projection.
        source: what the file is called in messages.

    Returns:
        The parts, with the names and shapes that diffusers and transformers give them.

    Raises:
        ModelError: a part or a tensor is missing, unknown, or of another shape.
    """
    left = dict(tensors)
    parts = {}
    for part, config in configs.items():
        prefix = _prefix(part, left)
        own = {name: left.pop(name) for name in list(left) if name.startswith(prefix)}
        if not own:
            raise ModelError(
                f"{source} has no {NAMES[part]}: expected tensors named {prefix}…; "
                "get the whole checkpoint, not one that has been pruned of it"
            )
        inner = {name.removeprefix(prefix): tensor for name, tensor in own.items()}
        parts[part] = _CONVERTERS[part](inner, config, f"{source}: its {NAMES[part]}", prefix)
    _refuse_unknown(list(left), source)
    return parts


def original_vae(tensors: Mapping[str, Tensor], family: str) -> Part:
    """Takes an autoencoder alone, of the file of a whole model or of its own.

    Args:
        tensors: those of the autoencoder, each with or each without `first_stage_model.`.
        family: the model that it is for, one of `published.FAMILIES`: it tells the configuration.

    Raises:
        ModelError: a tensor is missing, unknown, or of another shape.
    """
    prefix = next((p for p in VAE_PREFIXES if any(name.startswith(p) for name in tensors)), "")
    inner = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return _vae(inner, published(family)["vae"], "the VAE in the original layout", prefix)


def _prefix(part: str, tensors: Mapping[str, Tensor]) -> str:
    candidates = PREFIXES[part]
    found = (p for p in candidates if any(name.startswith(p) for name in tensors))
    return next(found, candidates[0])


def _unet(tensors: Mapping[str, Tensor], config: Config, what: str, prefix: str) -> Part:
    dims = [tensors[name].shape[-1:] for name in COND_PROJ if name in tensors]
    if dims and dims[0]:
        config = {**config, "time_cond_proj_dim": dims[0][0]}
    renamed, unknown = unet_tensors(tensors, config)
    return _part(UNet2DConditionModel, renamed, unknown, config, what, prefix)


def _vae(tensors: Mapping[str, Tensor], config: Config, what: str, prefix: str) -> Part:
    renamed, unknown = vae_tensors(tensors, config)
    return _part(AutoencoderKL, renamed, unknown, config, what, prefix)


def _text(tensors: Mapping[str, Tensor], config: Config, what: str, prefix: str) -> Part:
    if any(name.startswith("model.") for name in tensors):
        inner = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
        renamed, unknown = open_clip_tensors(inner, config)
    else:
        renamed, unknown = clip_tensors(tensors)
    projected = "CLIPTextModelWithProjection" in config["architectures"]
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return _part(kind, renamed, unknown, config, what, prefix)


_CONVERTERS = {"unet": _unet, "vae": _vae, "text_encoder": _text, "text_encoder_2": _text}


def _part(
    kind: Any,
    tensors: Mapping[str, Tensor],
    unknown: list[str],
    config: Config,
    what: str,
    prefix: str,
) -> Part:
    _refuse_unknown([prefix + name for name in unknown], what)
    network = empty_network(kind, config, what)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise ModelError(
            f"{what} lacks {_listed(missing)} (by diffusers' name): expected a "
            "whole checkpoint of a known model; get the file again, or another one"
        )
    _refuse_unknown([name for name in tensors if name not in expected], what)
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ModelError(
                f"{what} has {name} (by diffusers' name) in the shape "
                f"{list(tensors[name].shape)}: expected {list(shape)}; models of other "
                "architectures are not exported"
            )
    return Part(config, tensors)


def _refuse_unknown(names: list[str], what: str) -> None:
    if names:
        raise ModelError(
            f"{what} has {_listed(names)}, of unknown meaning: expected only the tensors of a "
            "Stable Diffusion checkpoint in the original layout; export from its diffusers folder"
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
    return f"the tensor {names[0]!r}{more}"
