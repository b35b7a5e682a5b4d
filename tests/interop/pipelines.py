# Another environment's packages.
# mypy: ignore-errors
"""Small random pipelines, made with the older diffusers and transformers that Optimum pins.

Runs in the virtual environment that `run` makes; `giffusion` is not installed there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MERGES = ["r e", "re d</w>", "h o", "ho u", "s e</w>", "hou se</w>", "t h", "th e</w>", "o n</w>"]
NUM_TOKENS = 16


def make(family: str, scratch: Path) -> Any:
    """Returns a family's pipeline: `sd1`, `sd2`, `lcm` or `sdxl`; the same weights every time."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(scratch, "<|endoftext|>")
    parts: dict[str, Any] = {
        "vae": _vae(scaling_factor=0.13025 if family == "sdxl" else 0.18215),
        "tokenizer": tokenizer,
        "text_encoder": CLIPTextModel(_text_config(tokenizer, 32)),
        "scheduler": DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False),
    }
    if family == "sdxl":
        return _sdxl(parts, scratch)
    parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if family == "lcm":
        scheduler = LCMScheduler(**BETAS, clip_sample=False)
        parts |= {"unet": _unet(time_cond_proj_dim=24), "scheduler": scheduler}
        return LatentConsistencyModelPipeline(**parts)
    if family == "sd2":
        parts["unet"] = _unet(use_linear_projection=True, attention_head_dim=(4, 8))
        parts["scheduler"] = EulerDiscreteScheduler(**BETAS, prediction_type="v_prediction")
    return StableDiffusionPipeline(**{"unet": _unet()} | parts)


def _sdxl(parts: dict[str, Any], scratch: Path) -> Any:
    tokenizer_2 = _tokenizer(scratch, "!")
    width, pooled_dim, ids_dim = 48, 40, 16
    text_2 = _text_config(tokenizer_2, width, projection_dim=pooled_dim, hidden_act="gelu")
    unet = _unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=32 + width,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=ids_dim,
        projection_class_embeddings_input_dim=6 * ids_dim + pooled_dim,
    )
    return StableDiffusionXLPipeline(
        **parts
        | {
            "unet": unet,
            "tokenizer_2": tokenizer_2,
            "text_encoder_2": CLIPTextModelWithProjection(text_2),
            "scheduler": EulerDiscreteScheduler(**BETAS, steps_offset=1),
            "add_watermarker": False,
        }
    )


def _unet(**changes: Any) -> Any:
    options: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**options | changes)


def _vae(scaling_factor: float) -> Any:
    return AutoencoderKL(
        block_out_channels=(16,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=scaling_factor,
    )


def _text_config(tokenizer: Any, width: int, **changes: Any) -> Any:
    options: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": NUM_TOKENS,
        "hidden_act": "quick_gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return CLIPTextConfig(**options | changes)


def _tokenizer(scratch: Path, pad_token: str) -> Any:
    """CLIP's kind of tokenizer with few merges: every byte, every byte at a word's end."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += [merge.replace(" ", "") for merge in MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = scratch / "vocab.json", scratch / "merges.txt"
    vocabulary.write_text(json.dumps({word: index for index, word in enumerate(words)}))
    merges.write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return CLIPTokenizer(
        vocabulary, merges, pad_token=pad_token, model_max_length=NUM_TOKENS, unk_token=words[-1]
    )
