"""Random LoRAs for the small pipelines, and files of them in every style that trainers write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from giffusion.export.additions.lora_keys import original_names
from giffusion.export.checkpoint.checkpoint import Checkpoint

Weight = tuple[str, str]
Matrix = NDArray[np.float32]
Pairs = Mapping[Weight, tuple[Matrix, Matrix]]
RANK = 2
_TARGETS = re.compile(
    r".*(to_q|to_out\.0|proj_in|ff\.net\.2|conv1|conv_shortcut|downsamplers\.0\.conv"
    r"|upsamplers\.0\.conv|conv_in|conv_out|time_emb_proj|linear_1|q_proj|out_proj|fc1"
    r"|text_projection)\.weight"
)
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def random_pairs(checkpoint: Checkpoint, seed: int = 0) -> Pairs:
    """Returns down and up for weights of every kind in the UNet and the text encoders."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for part in ("unet", *_TEXT_ENCODERS):
        for name, tensor in (
            checkpoint.parts[part].tensors.items() if part in checkpoint.parts else ()
        ):
            if _TARGETS.fullmatch(name):
                out, *rest = tensor.shape
                down = rng.normal(0, 0.2, (RANK, *rest)).astype(np.float32)
                up = rng.normal(0, 0.2, (out, RANK, *(1 for _ in rest[1:]))).astype(np.float32)
                pairs[part, name] = down, up
    return pairs


def write_pairs(path: Path, pairs: Pairs, style: str, alpha: float | None = None) -> Path:
    """Writes a LoRA in one of `STYLES`, with that alpha of every layer."""
    tensors: dict[str, NDArray[np.generic]] = {}
    single = not any(part == "text_encoder_2" for part, _ in pairs)
    for (part, tensor), (down, up) in pairs.items():
        module = tensor.removesuffix(".weight")
        down_key, up_key, alpha_key = STYLES[style](part, module, single)
        tensors |= {down_key: down, up_key: up}
        if alpha is not None:
            tensors[alpha_key] = np.asarray(alpha, np.float32)
    save_file(tensors, path)
    return path


def kohya(part: str, module: str, single: bool = True) -> tuple[str, str, str]:
    """`lora_unet_down_blocks_0_…`."""
    text = "lora_te_" if single else "lora_te1_"
    prefix = {"unet": "lora_unet_", "text_encoder": text, "text_encoder_2": "lora_te2_"}[part]
    name = prefix + module.replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"


def _kohya_original(part: str, module: str, single: bool) -> tuple[str, str, str]:
    """The second upsampler's name is SDXL's, where attention comes before."""
    names = original_names(module, 2) if part == "unet" else ()
    return kohya(part, names[-1] if names else module, single)


def _peft(part: str, module: str, single: bool) -> tuple[str, str, str]:
    name = f"{part}.{module}"
    return f"{name}.lora_A.weight", f"{name}.lora_B.weight", f"{name}.alpha"


def _peft_saved(part: str, module: str, single: bool) -> tuple[str, str, str]:
    """As transformers 5 names its modules, without `text_model.`, in PEFT's own wrapping."""
    name = f"{part}.base_model.model.{module.removeprefix('text_model.')}"
    return f"{name}.lora_A.default.weight", f"{name}.lora_B.default.weight", f"{name}.alpha"


def _diffusers(part: str, module: str, single: bool) -> tuple[str, str, str]:
    infix = "lora" if part == "unet" else "lora_linear_layer"
    name = f"{part}.{module}"
    return f"{name}.{infix}.down.weight", f"{name}.{infix}.up.weight", f"{name}.alpha"


def _diffusers_old(part: str, module: str, single: bool) -> tuple[str, str, str]:
    if part == "unet" and re.search(r"attn\d\.", module):
        module = re.sub(r"\.to_(q|out)(\.0)?$", r".processor.to_\1_lora", module)
    elif part != "unet" and "self_attn" in module:
        module = re.sub(r"\.(q|out)_proj$", r".to_\1_lora", module)
    else:
        return _diffusers(part, module, single)
    name = f"{part}.{module}"
    return f"{name}.down.weight", f"{name}.up.weight", f"{name}.alpha"


STYLES: Mapping[str, Callable[[str, str, bool], tuple[str, str, str]]] = {
    "kohya": kohya,
    "kohya-original": _kohya_original,
    "peft": _peft,
    "peft-saved": _peft_saved,
    "diffusers": _diffusers,
    "diffusers-old": _diffusers_old,
}
"""Names of down, up and alpha in each style."""
