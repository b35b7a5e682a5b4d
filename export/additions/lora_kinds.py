"""What a file is that is not a LoRA for the checkpoint: another method, or for another model.

`lora_files.py` calls it to refuse files. The invariant: a kind is told from names and shapes alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.tensors import Tensor

FAMILIES = {768: "SD 1", 1024: "SD 2", 2048: "SDXL"}
"""Families by the width of the prompts that their UNets take."""
_TEXT = {768: "SD 1", 1024: "SD 2"}
_METHODS = {
    "LoHa": r"\.hada_",
    "LoKr": r"\.lokr_",
    "OFT": r"\.(b?oft_|oft_R)",
    "DoRA": r"\.(dora_scale$|lora_magnitude_vector)",
    "IA3": r"\.(on_input$|ia3_)",
    "GLoRA": r"\.[ab][12]\.weight$",
    "VeRA": r"\bvera_lambda_",
    "bundled embeddings": r"^bundle_emb\b",
    "LoRA of embeddings": r"\.lora_embedding_",
    "whole differences of weights": r"\.(diff|diff_b|w_norm|b_norm)$",
    "weights saved whole": r"\.modules_to_save\.",
    "LoRA with biases": r"\.lora_(B|up)(\.\w+)?\.bias$",
    "a trained scalar": r"\.scalar$",
}
_NAMED_FAMILIES = {
    "FLUX": r"(double|single)(_transformer)?_blocks",
    "SD 3": r"joint_blocks|lora_te3_|text_encoder_3|^transformer\.|lora_transformer_",
    "SDXL": r"lora_te2_|text_encoder_2",
}
_PROMPT_KEY = re.compile(r"attn2[._](processor\.)?to_[kv](_lora)?")
_TEXT_QUERY = re.compile(r"self_attn[._](q_proj|to_q_lora)")


def other_method(keys: Iterable[str]) -> tuple[str, str] | None:
    """Finds a name in a file that another method than LoRA has put there.

    Returns:
        The method and the name, or None.
    """
    for key in keys:
        for method, pattern in _METHODS.items():
            if re.search(pattern, key):
                return method, key
    return None


def what_else(tensors: Mapping[str, Tensor]) -> str:
    """Says what a file without a LoRA's names looks like."""
    names = list(tensors)
    if not names:
        return "an empty file"
    if {"emb_params", "clip_l", "clip_g"} & tensors.keys() or (
        len(names) == 1 and len(tensors[names[0]].shape) <= 2
    ):
        return "a textual inversion, which is added with --embedding"
    if any(re.match(r"model\.diffusion_model\.|(conv_in|input_blocks\.0\.0)\.", n) for n in names):
        return "a whole checkpoint"
    return "something else"


def lora_family(layers: Mapping[str, Tensor]) -> str | None:
    """Tells from the layers of a LoRA what family of models it seems to be for.

    Args:
        layers: the lower matrices by the names of the layers.

    Returns:
        The family, or None where nothing tells.
    """
    for family, pattern in _NAMED_FAMILIES.items():
        if any(re.search(pattern, name) for name in layers):
            return family
    return _family_of(layers, _PROMPT_KEY, FAMILIES) or _family_of(layers, _TEXT_QUERY, _TEXT)


def _family_of(
    layers: Mapping[str, Tensor], name: re.Pattern[str], families: Mapping[int, str]
) -> str | None:
    widths = (d.shape[1] for key, d in layers.items() if name.search(key) and len(d.shape) > 1)
    return next((families[width] for width in widths if width in families), None)


def checkpoint_family(checkpoint: Checkpoint) -> str | None:
    """Returns the family of a checkpoint, or None where its width is no family's."""
    width = checkpoint.parts["unet"].config.get("cross_attention_dim")
    return FAMILIES.get(width) if isinstance(width, int) else None
