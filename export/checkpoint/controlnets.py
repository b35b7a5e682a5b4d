"""ControlNets: networks that steer a UNet by a picture, each for one kind of picture.

`giffusion export` calls `add_controlnet` on what a reader returned. The invariant: a ControlNet
that is put in takes what the UNet takes, and returns what the UNet adds to its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.folder import read_part
from giffusion.export.pickles.convert import is_pickle, refuse_pickle

PART = "controlnet"
_EXPECTED = "the folder of a diffusers ControlNetModel, with its config.json"
_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "in_channels": (4,),
    "conditioning_channels": (3,),
    "controlnet_conditioning_channel_order": ("rgb",),
    "global_pool_conditions": (False,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
}
"""What is rendered of a ControlNet's settings, the default first."""
_SHARED: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
}
"""Settings that have to be the UNet's own, with their defaults."""
_NUM_HALVINGS = 3


def add_controlnet(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Gives a checkpoint a ControlNet.

    Args:
        checkpoint: any.
        path: a folder of diffusers' `ControlNetModel`.

    Returns:
        The checkpoint with the part `controlnet`; its files are among the sources.

    Raises:
        ModelError: it is missing, incomplete, a pickle, in the original layout, or for another
            UNet.
    """
    if path.is_file():
        _refuse_file(path)
    if not path.is_dir():
        raise ModelError(f"ControlNet {path} does not exist: expected {_EXPECTED}")
    part, files = read_part(path, PART)
    check_controlnet(part.config, checkpoint.parts["unet"].config, str(path))
    return replace(
        checkpoint,
        parts={**checkpoint.parts, PART: part},
        sources={**checkpoint.sources, **{f"{PART}/{file.name}": file for file in files}},
    )


def check_controlnet(config: Mapping[str, Any], unet: Mapping[str, Any], where: str) -> None:
    """Checks that a ControlNet is of a kind that is rendered, and made for a UNet.

    Args:
        config: the ControlNet's.
        unet: the UNet's.
        where: what the ControlNet is called in messages.

    Raises:
        ModelError: it is not.
    """
    for name, allowed in _SETTINGS.items():
        value = config.get(name, allowed[0])
        if value not in allowed:
            raise ModelError(
                f"{where} has {name}={_text(value)}: expected {_text(allowed[0])}; such a "
                "ControlNet is not rendered"
            )
    widths = config.get("conditioning_embedding_out_channels", (16, 32, 96, 256))
    if not isinstance(widths, list | tuple) or len(widths) != _NUM_HALVINGS + 1:
        raise ModelError(
            f"{where} has conditioning_embedding_out_channels={_text(widths)}: expected "
            f"{_NUM_HALVINGS + 1} widths, for maps of the pictures' size"
        )
    for name, default in _SHARED.items():
        value, wanted = (_plain(entries.get(name, default)) for entries in (config, unet))
        if value != wanted:
            raise ModelError(
                f"{where} is a ControlNet of {name}={_text(value)}: expected {_text(wanted)}, as "
                "the model's UNet; take one that was trained for the model's family"
            )


def _refuse_file(path: Path) -> None:
    if is_pickle(path):
        refuse_pickle(path)
    raise ModelError(
        f"ControlNet {path} is a file: expected {_EXPECTED}; ControlNets in the original layout "
        "are not read"
    )


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _text(value: object) -> str:
    return one_line(repr(value) if value is not None else "none")[:100]
