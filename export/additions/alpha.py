"""How strongly a LoRA's layers were trained to work: alpha, where it is not among the tensors.

`lora_files.py` calls it. PEFT writes its configuration into the file's metadata by way of
diffusers (`lora_adapter_metadata`), or beside it (`adapter_config.json`). The invariant: without
any, alpha is the rank, and the product of the matrices is added as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.engine.errors import ModelError
from giffusion.export.additions.files import file_metadata, shown

METADATA_KEY = "lora_adapter_metadata"
CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_PLAIN_NAME = re.compile(r"[\w.]+")


@dataclass(frozen=True, slots=True)
class Strengths:
    """What PEFT's configuration says about the layers of one network.

    Args:
        alpha: of all layers, or None where it is the rank.
        by_module: alphas of those whose names end with a key.
        rank_stabilized: divide by the rank's square root, as rsLoRA (arXiv:2312.03732).
    """

    alpha: float | None = None
    by_module: tuple[tuple[str, float], ...] = ()
    rank_stabilized: bool = False

    def factor(self, module: str, rank: int) -> float:
        """Returns what a layer's product is multiplied by, alpha / rank with plain LoRA.

        Args:
            module: the layer's name in the checkpoint, without `.weight`.
            rank: rows of its lower matrix.
        """
        ending = (a for name, a in self.by_module if f".{module}".endswith(f".{name}"))
        alpha = next(ending, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def read_strengths(path: Path) -> Mapping[str, Strengths]:
    """Reads PEFT's configuration of a LoRA file.

    Returns:
        Strengths by part; those under "" are of any part. Empty where there is no configuration.

    Raises:
        ModelError: the configuration is malformed, or asks for what is no plain LoRA.
    """
    where, config = _config(path)
    prefixes = {key.partition(".")[0] if "." in key else "" for key in config}
    return {prefix: _strengths(where, _under(config, prefix)) for prefix in prefixes}


def _config(path: Path) -> tuple[str, Mapping[str, Any]]:
    text, where = file_metadata(path).get(METADATA_KEY), f"{path}'s {METADATA_KEY}"
    beside = path.with_name(CONFIG_FILE)
    try:
        if text is None and path.name == _WEIGHTS_FILE and beside.is_file():
            text, where = beside.read_text(encoding="utf-8"), str(beside)
        config = {} if text is None else json.loads(text)
    except (OSError, RecursionError, ValueError):
        config = None
    if not isinstance(config, dict):
        raise _malformed(where, "is not a JSON object")
    return where, config


def _under(config: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    if not prefix:
        return {key: value for key, value in config.items() if "." not in key}
    begin = f"{prefix}."
    return {k.removeprefix(begin): value for k, value in config.items() if k.startswith(begin)}


def _strengths(where: str, config: Mapping[str, Any]) -> Strengths:
    for option in ("use_dora", "lora_bias", "fan_in_fan_out"):
        if config.get(option):
            raise _malformed(where, f"has {option}, which is not fused")
    alpha, pattern = config.get("lora_alpha"), config.get("alpha_pattern") or {}
    if not isinstance(pattern, Mapping):
        raise _malformed(where, f"has the alpha_pattern {shown(repr(pattern))}")
    for name in pattern:
        if not _PLAIN_NAME.fullmatch(name):
            raise _malformed(where, f"has the alpha_pattern {shown(name)}, an expression")
    return Strengths(
        None if alpha is None else _number(where, alpha),
        tuple((name, _number(where, value)) for name, value in pattern.items()),
        bool(config.get("use_rslora")),
    )


def _number(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e9 < value < 1e9:
        raise _malformed(where, f"has the alpha {shown(repr(value))}")
    return float(value)


def _malformed(where: str, what: str) -> ModelError:
    return ModelError(
        f"{where} {what}: expected PEFT's configuration of a plain LoRA; save the LoRA anew"
    )
