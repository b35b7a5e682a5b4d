"""What a safetensors file is that is no Stable Diffusion checkpoint, for a message that names it.

`single_file.py` calls it before it converts anything. Names and shapes are those that the files of
each kind have; what is recognised by none is left to the converter to refuse.
"""

from __future__ import annotations

from collections.abc import Mapping

from giffusion.export.originals.unet import UNET_PREFIX

Shapes = Mapping[str, tuple[int, ...]]
CONV_IN = f"{UNET_PREFIX}input_blocks.0.0.weight"
_MARKS = (
    (("lora_up", "lora_down", "lora_A.", "lora_B.", ".lora.up", "lora_unet_", "lora_te", "hada_w1",
      "lokr_w", "oft_blocks"),
     "a LoRA: expected a checkpoint; give it as a LoRA beside one"),
    (("control_model.", "input_hint_block.", "controlnet_", "lllite_", "control_add"),
     "a ControlNet: expected a checkpoint; ControlNets are not rendered"),
    (("joint_blocks.",), "Stable Diffusion 3, of another architecture"),
    (("double_blocks.", "single_blocks.", "double_stream_blocks."),
     "a diffusion transformer such as Flux, of another architecture"),
    (("time_stack.", "time_mixer", "motion_modules."),
     "a video model or motion module, of another architecture"),
    (("ip_adapter.", "image_proj."), "an IP-Adapter: expected a checkpoint"),
    (("edm_mean", "edm_vpred."),
     "a model trained in EDM's formulation, such as Playground 2.5 or CosXL"),
    ((f"{UNET_PREFIX}layers.", f"{UNET_PREFIX}blocks.", f"{UNET_PREFIX}transformer_blocks.",
      "clip_txt_mapper."),
     "a model of another architecture"),
)  # fmt: skip
"""Parts of names, and what a file is that has them."""
_IN_CHANNELS = {
    5: "a depth-to-image model",
    7: "the x4 upscaler",
    8: "an instruct-pix2pix model",
    9: "an inpainting model",
}
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""Families by the width of the prompt embeddings that their UNet attends to."""
_EXPECTED = "expected SD 1.x, SD 2.x, SDXL base or an LCM or turbo model of these"


def family(shapes: Shapes) -> tuple[str | None, str]:
    """Tells a file's family by its names and shapes.

    Args:
        shapes: those of all of its tensors.

    Returns:
        `sd1`, `sd2` or `sdxl`, and ""; or None and what the file is, for the end of a message.
    """
    for marks, meaning in _MARKS:
        if any(mark in name for name in shapes for mark in marks):
            return None, meaning if "expected" in meaning else f"{meaning}: {_EXPECTED}"
    if not any(name.startswith(UNET_PREFIX) for name in shapes):
        return None, _without_unet(shapes)
    if len(shapes.get(CONV_IN, ())) != 4:
        return None, f"a checkpoint without the tensor '{CONV_IN}' of four axes: {_EXPECTED}"
    in_channels = shapes[CONV_IN][1]
    if in_channels != 4:
        kind = _IN_CHANNELS.get(in_channels, "a model")
        return None, f"{kind} with {in_channels} input channels: expected 4; {_EXPECTED}"
    return _by_width(shapes)


def _by_width(shapes: Shapes) -> tuple[str | None, str]:
    keys = (name for name in shapes if name.startswith(UNET_PREFIX) and "attn2.to_k.weight" in name)
    key = next(keys, None)
    width = shapes[key][-1] if key and shapes[key] else None
    has_labels = any(name.startswith(f"{UNET_PREFIX}label_emb.") for name in shapes)
    if width == 1280:
        return None, f"SDXL's refiner: {_EXPECTED}"
    if width not in _WIDTHS:
        return None, f"a model that attends to prompts of width {width}: {_EXPECTED}"
    if has_labels and width != 2048:
        return None, f"a class- or image-conditioned model such as SD 2.1 unCLIP: {_EXPECTED}"
    return _WIDTHS[width], ""


def _without_unet(shapes: Shapes) -> str:
    def some(*beginnings: str) -> bool:
        return any(name.startswith(beginnings) for name in shapes)

    if some("down_blocks.", "unet.", "mid_block.attentions."):
        return "a network in diffusers' layout: expected a whole checkpoint; give its folder"
    if some("input_blocks."):
        return (
            "a UNet alone: its VAE and text encoder are missing; expected a whole checkpoint in"
            " one file"
        )
    if some("first_stage_model.", "encoder.conv_in", "decoder.conv_in", "encoder.layers.",
            "decoder.layers."):  # fmt: skip
        return "a VAE alone: expected a whole checkpoint; give it as a VAE beside one"
    if some("emb_params", "string_to_param", "clip_l", "clip_g"):
        return (
            "an embedding of textual inversion: expected a whole checkpoint; give it as an"
            " embedding beside one"
        )
    if some("text_model.", "cond_stage_model.", "conditioner."):
        return "a text encoder alone: expected a whole checkpoint"
    first = next(iter(shapes), None)
    holds = f"of {len(shapes)} tensors such as {first!r}" if first else "without tensors"
    return f"a file {holds}: {_EXPECTED}, in the original layout"
