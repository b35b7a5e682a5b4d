"""How LoRA files call the layers that they change, in every spelling there is.

`lora_files.py` calls it. Trainers write underscores for dots, which cannot be undone by looking at
a name; so all spellings of a checkpoint's own weights are made, and names are looked up among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from giffusion.export.checkpoint.checkpoint import Checkpoint

Weight: TypeAlias = tuple[str, str]
"""A part of a checkpoint, and a name in its `tensors`."""

_TENSOR = re.compile(
    # x.lora_down, x.lora_A, x.lora.down, x.lora_linear_layer.down, and x.to_q_lora.down, of which
    # the end is a part of the layer's name.
    r"(?P<layer>.+?)(?:\.lora_|\.lora\.|\.lora_linear_layer\.|(?<=_lora)\.)"
    r"(?P<piece>down|up|mid|A|B)(?:\.default)?\.weight",
    re.DOTALL,
)
_ALPHA = re.compile(
    r"(?P<layer>.+?)(?:\.lora|\.lora_linear_layer)?(?:\.down\.weight)?\.alpha", re.DOTALL
)
_PIECES = {"A": "down", "B": "up"}
_PEFT_PREFIX = "base_model.model."
_KOHYA_PREFIXES = {
    "unet": ("lora_unet_",),
    "text_encoder": ("lora_te_", "lora_te1_"),
    "text_encoder_2": ("lora_te2_",),
}
_TEXT_MODEL = "text_model."
_OLD_PROJECTIONS = {
    ".to_q": ".to_q_lora",
    ".to_k": ".to_k_lora",
    ".to_v": ".to_v_lora",
    ".to_out.0": ".to_out_lora",
    ".q_proj": ".to_q_lora",
    ".k_proj": ".to_k_lora",
    ".v_proj": ".to_v_lora",
    ".out_proj": ".to_out_lora",
}
_OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_out": "out.2",
}
_RESNET = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_BLOCK = re.compile(
    r"(?P<way>down|up)_blocks\.(?P<block>\d+)\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\."
    r"(?P<layer>\d+)\.(?P<rest>.+)"
)


def split_key(key: str) -> tuple[str, str] | None:
    """Splits the name of a tensor into a layer's and a piece's.

    Returns:
        The layer as the file calls it, without PEFT's prefix, and `down`, `up`, `mid` or `alpha`;
        None for a name that is none of LoRA's.
    """
    key = key.replace(_PEFT_PREFIX, "", 1)
    if found := _TENSOR.fullmatch(key):
        piece = found["piece"]
        return found["layer"], _PIECES.get(piece, piece)
    if found := _ALPHA.fullmatch(key):
        return found["layer"], "alpha"
    return None


def layer_names(checkpoint: Checkpoint) -> Mapping[str, Weight]:
    """Returns all names that LoRA files may have for a checkpoint's weights.

    Those of kohya's trainer (`lora_unet_down_blocks_0_…`, and with the original code's block names
    `lora_unet_input_blocks_1_…`), those of diffusers (`unet.….processor.to_q_lora`, before that
    without `unet.`) and those of PEFT (`unet.….to_q`).
    """
    names: dict[str, Weight] = {}
    single = "text_encoder_2" not in checkpoint.parts
    for part in _KOHYA_PREFIXES:
        if part not in checkpoint.parts:
            continue
        bare = part == "unet" or (part == "text_encoder" and single)
        depth = checkpoint.parts[part].config.get("layers_per_block")
        for tensor in checkpoint.parts[part].tensors:
            if tensor.endswith(".weight"):
                module = tensor.removesuffix(".weight")
                for name in _spellings(part, module, depth, bare):
                    names.setdefault(name, (part, tensor))
    return names


def _spellings(part: str, module: str, depth: object, bare: bool) -> Iterator[str]:
    modules = {module, module.removeprefix(_TEXT_MODEL)}
    dotted = {name for module in modules for name in _dotted(module)}
    yield from (f"{part}.{name}" for name in dotted)
    if bare:
        yield from dotted
    if part == "unet" and isinstance(depth, int):
        modules.update(original_names(module, depth))
    for prefix in _KOHYA_PREFIXES[part]:
        yield from (prefix + name.replace(".", "_") for name in modules)


def _dotted(module: str) -> Iterator[str]:
    yield module
    for end, old in _OLD_PROJECTIONS.items():
        if module.endswith(end):
            layer = module.removesuffix(end)
            yield from (layer + old, f"{layer}.processor{old}", f"{layer}.processor{end}")


def original_names(module: str, layers_per_block: int) -> tuple[str, ...]:
    """Returns what the code that Stable Diffusion was trained with may call a layer of the UNet.

    Blocks are numbered through there: `input_blocks`, `middle_block` and `output_blocks` of the
    latent-diffusion repository's openaimodel.py, whose names SDXL's LoRAs often have.

    Args:
        module: diffusers' name of a layer.
        layers_per_block: of the UNet's config; its way up has one more.

    Returns:
        The name; two for an upsampler, which comes after attention where there is some; none for
        a layer that has the same name there.
    """
    for name, original in _OUTER.items():
        if module == name or module.startswith(f"{name}."):
            return (original + _inner(module.removeprefix(name)),)
    found = _BLOCK.fullmatch(module)
    if found is None:
        return ()
    layer, rest = int(found["layer"]), _inner(f".{found['rest']}")
    first = int(found["block"]) * (layers_per_block + 1)
    match found["way"], found["kind"]:
        case "down", "downsamplers":
            return (f"input_blocks.{first + layers_per_block + 1}.0.op",)
        case "up", "upsamplers":
            last = first + layers_per_block
            return tuple(f"output_blocks.{last}.{place}{rest}" for place in (1, 2))
        case "down", kind:
            return (f"input_blocks.{1 + first + layer}.{int(kind == 'attentions')}{rest}",)
        case _, kind:
            return (f"output_blocks.{first + layer}.{int(kind == 'attentions')}{rest}",)


def _inner(rest: str) -> str:
    name = rest.removeprefix(".")
    return f".{_RESNET[name]}" if name in _RESNET else rest
