"""Configurations of the published models, which single files come without.

`single_file.py` and `convert.py` call it. The values are those of the models' own folders:
SD 1.5, SD 2.1 (768, v-prediction), SD 2.1 base (512, epsilon) and SDXL base 1.0.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from giffusion.engine.errors import SettingsError, nearest

FAMILIES = ("sd1", "sd2", "sd2-base", "sdxl")
PAD_TOKENS = {
    "sd1": {"tokenizer": "<|endoftext|>"},
    "sd2": {"tokenizer": "!"},
    "sd2-base": {"tokenizer": "!"},
    "sdxl": {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"},
}
"""What each tokenizer of a family fills rows with."""


def published(family: str) -> dict[str, Any]:
    """Returns the configurations of a family, a new copy each time.

    Args:
        family: one of `FAMILIES`.

    Returns:
        `pipeline` (its model_index.json), `scheduler`, and a `config.json` for each of `unet`,
        `vae`, `text_encoder`, and with SDXL `text_encoder_2`.

    Raises:
        SettingsError: there is no such family.
    """
    if family not in FAMILIES:
        raise SettingsError(f"unknown family of models '{family}': {nearest(family, FAMILIES)}")
    text = files(__package__).joinpath("data", f"{family}.json").read_text(encoding="utf-8")
    configs: dict[str, Any] = json.loads(text)
    return configs
