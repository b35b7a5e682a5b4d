"""The shapes of the models that people render with, to be filled with random weights.

`build_sizes.py` and the GPU benchmark make networks of them. Random weights of the right shape
time the right work and prove no picture. The numbers are those of the published configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn

_FULL_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
_SD = {
    "sample_size": 64,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
}
_TOKENS = 77
INIT_STD = 0.02


@dataclass(frozen=True, slots=True)
class Architecture:
    """The networks of one family of models.

    Args:
        name: what people call it.
        unet: arguments of `UNet2DConditionModel`.
        vae: arguments of `AutoencoderKL`; None for `AutoencoderTiny`.
        side: width and height in pixels that it was trained at.
        num_tokens: tokens a prompt.
        pooled_dim: width of SDXL's pooled embeddings, else None.
    """

    name: str
    unet: dict[str, Any]
    vae: dict[str, Any] | None = field(default_factory=lambda: {"scaling_factor": 0.18215})
    side: int = 512
    num_tokens: int = _TOKENS
    pooled_dim: int | None = None

    @property
    def prompt_dim(self) -> int:
        """Width of the prompt embeddings."""
        return int(self.unet["cross_attention_dim"])

    @property
    def time_dim(self) -> int:
        """Width of the timestep's sinusoid."""
        return int(self.unet["block_out_channels"][0])

    @property
    def size_multiple(self) -> int:
        """Pixels that widths and heights are multiples of."""
        return int(8 * 2 ** (len(self.unet["block_out_channels"]) - 1))

    def make_unet(self, dtype: torch.dtype, device: str = "cpu") -> UNet2DConditionModel:
        """Returns its UNet with random weights."""
        with torch.device("meta"):
            unet = UNet2DConditionModel(**self.unet)
        return _filled(unet, dtype, device)

    def make_vae(
        self, dtype: torch.dtype, device: str = "cpu", *, tiny: bool = False
    ) -> AutoencoderKL | AutoencoderTiny:
        """Returns its autoencoder, or TAESD's, with random weights."""
        with torch.device("meta"):
            vae = AutoencoderTiny() if tiny else AutoencoderKL(**_FULL_VAE, **(self.vae or {}))
        return _filled(vae, dtype, device)


def _filled(module: Any, dtype: torch.dtype, device: str) -> Any:
    """Gives a module without memory random weights, of its final type from the start."""
    module = module.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, INIT_STD, generator=generator)
        for name, buffer in module.named_buffers():
            raise ValueError(f"buffer {name} of {tuple(buffer.shape)} would stay uninitialised")
    result: nn.Module = module.eval()
    return result


SD15 = Architecture("SD 1.5", {**_SD, "cross_attention_dim": 768, "attention_head_dim": 8})
SD21 = Architecture(
    "SD 2.1 / turbo",
    {
        **_SD,
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
)
SDXL = Architecture(
    "SDXL",
    {
        "sample_size": 128,
        "layers_per_block": 2,
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    vae={"scaling_factor": 0.13025, "force_upcast": True},
    side=1024,
    pooled_dim=1280,
)
