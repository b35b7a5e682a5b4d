"""Small pipelines with random weights, one of every family of models that export takes.

Their architectures are the families' own, only narrower, so that a whole one is made, exported and
rendered in seconds. Contrast is what random weights give: little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
)

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
WORDS = ["!", "<unk>", "<s>", "</s>", "a", "red", "house", "dog", "on", "the", "moon"]
NUM_TOKENS = 8
PROMPT_DIM = 48
LATENT_SIDE = 8


def make(family: str) -> Any:
    """Returns a family's small pipeline, the same one every time."""
    torch.manual_seed(0)
    pipeline = FAMILIES[family]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(family: str, folder: Path, **options: Any) -> Path:
    """Writes a family's small pipeline as a diffusers folder, and returns the folder."""
    make(family).save_pretrained(folder, safe_serialization=True, **options)
    return folder


def vae(**changes: Any) -> Any:
    """Returns a full autoencoder that halves pictures three times."""
    options: dict[str, Any] = {
        "block_out_channels": (16,) * 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 64,
        "scaling_factor": 0.18215,
    }
    return AutoencoderKL(**options | changes)


def tiny_vae() -> Any:
    """Returns TAESD's autoencoder, narrower."""
    return AutoencoderTiny(
        encoder_block_out_channels=(16,) * 4,
        decoder_block_out_channels=(16,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )


def text_encoder(width: int = PROMPT_DIM, **changes: Any) -> Any:
    """Returns CLIP's text encoder of some width, with a projection where its width is given."""
    options: dict[str, Any] = {
        "vocab_size": 32,
        "hidden_size": width,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": NUM_TOKENS,
        "hidden_act": "quick_gelu",
        "pad_token_id": 1,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }
    kind: Any = CLIPTextModelWithProjection if "projection_dim" in changes else CLIPTextModel
    return kind(CLIPTextConfig(**options | changes))


def tokenizer(pad_token: str = "</s>") -> Any:
    """Returns a tokenizer of a few words."""
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    kind: Any = PreTrainedTokenizerFast
    return kind(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad_token,
        model_max_length=NUM_TOKENS,
    )


def unet(**changes: Any) -> Any:
    """Returns a UNet of two levels, by default as SD 1's."""
    options: dict[str, Any] = {
        "sample_size": LATENT_SIDE,
        "block_out_channels": (32, 64),
        "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": PROMPT_DIM,
        "attention_head_dim": 8,
        "norm_num_groups": 16,
    }
    return UNet2DConditionModel(**options | changes)


def _pipeline(kind: Any = StableDiffusionPipeline, **parts: Any) -> Any:
    defaults: dict[str, Any] = {
        "vae": parts.pop("vae", None) or vae(),
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }
    return kind(**defaults | parts)


def _sd1(**parts: Any) -> Any:
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    return _pipeline(**{"unet": unet(), "scheduler": scheduler} | parts)


def _sd2(**scheduler: Any) -> Any:
    """SD 2: linear projections, heads by width, the text encoder's pad token is another."""
    options: dict[str, Any] = {
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction",
    }
    return _pipeline(
        unet=unet(use_linear_projection=True, attention_head_dim=(4, 8)),
        text_encoder=text_encoder(hidden_act="gelu"),
        tokenizer=tokenizer("!"),
        scheduler=DDIMScheduler(**BETAS, **options | scheduler),
    )


def _sd_turbo() -> Any:
    return _pipeline(
        unet=unet(use_linear_projection=True, attention_head_dim=(4, 8)),
        text_encoder=text_encoder(hidden_act="gelu"),
        tokenizer=tokenizer("!"),
        scheduler=EulerDiscreteScheduler(**BETAS, steps_offset=1, timestep_spacing="trailing"),
    )


def _lcm() -> Any:
    """LCM: the UNet takes the guidance scale."""
    return _pipeline(
        LatentConsistencyModelPipeline,
        unet=unet(time_cond_proj_dim=32),
        scheduler=LCMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True, steps_offset=1),
    )


def _sdxl(**parts: Any) -> Any:
    """SDXL: two text encoders, pooled embeddings and size ids, more transformers at the bottom."""
    pooled_dim, ids_dim = 40, 16
    options: dict[str, Any] = {
        "vae": vae(scaling_factor=0.13025, force_upcast=True),
        "text_encoder": text_encoder(32),
        "text_encoder_2": text_encoder(PROMPT_DIM, projection_dim=pooled_dim, hidden_act="gelu"),
        "tokenizer": tokenizer(),
        "tokenizer_2": tokenizer("!"),
        "unet": unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(2, 4),
            cross_attention_dim=32 + PROMPT_DIM,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=ids_dim,
            projection_class_embeddings_input_dim=6 * ids_dim + pooled_dim,
        ),
        "scheduler": EulerDiscreteScheduler(**BETAS, steps_offset=1),
        "force_zeros_for_empty_prompt": True,
        "add_watermarker": False,
    }
    return StableDiffusionXLPipeline(**options | parts)


def _sdxl_turbo() -> Any:
    scheduler = EulerAncestralDiscreteScheduler(
        **BETAS, steps_offset=1, timestep_spacing="trailing"
    )
    return _sdxl(scheduler=scheduler)


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "sd1": _sd1,
    "sd1-tiny": lambda: _sd1(vae=tiny_vae()),
    "sd2": _sd2,
    "sd2-base": lambda: _sd2(prediction_type="epsilon"),
    "sd-turbo": _sd_turbo,
    "lcm": _lcm,
    "sdxl": _sdxl,
    "sdxl-turbo": _sdxl_turbo,
}
"""What makes each family's pipeline."""
