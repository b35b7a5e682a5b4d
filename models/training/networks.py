"""The networks of the bundled model and their sizes: built here, and nowhere else.

The training builds them anew, `publish` writes them with their configurations. The invariant: each
is a stock class of diffusers or transformers, so that what is trained is a folder they load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

NUM_TOKENS = 24
"""Positions of a caption, as the corpus stores them."""

SCHEDULER: dict[str, Any] = {
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}
"""The noise schedule. It ends at a signal of 1.6 % instead of Stable Diffusion's 6.8 %: there the
mean of a plain background still shows through the noise, and pure noise asks for a grey one."""

_DOWN = {True: "CrossAttnDownBlock2D", False: "DownBlock2D"}
_UP = {True: "CrossAttnUpBlock2D", False: "UpBlock2D"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the model is.

    Attributes:
        image: side of a picture in pixels; a latent's is an eighth.
        channels: of the U-Net's levels, multiples of `head`.
        attention: whether each level attends.
        layers: residual blocks a level on the way down.
        head: channels of an attention head.
        text_width: of the text encoder, a multiple of 64, and of the cross-attention.
        text_layers: of the text encoder.
        vocabulary: number of token ids.
        encoder: channels of the autoencoder's encoder.
        decoder: channels of its decoder.
    """

    image: int = 256
    channels: tuple[int, ...] = (64, 128, 160)
    attention: tuple[bool, ...] = (False, True, False)
    layers: int = 2
    head: int = 32
    text_width: int = 192
    text_layers: int = 3
    vocabulary: int = 4096
    encoder: int = 32
    decoder: int = 64

    @property
    def latent(self) -> int:
        return self.image // 8


BUNDLED = Sizes()
"""What is trained for the project."""

TOY = Sizes(64, (32, 64), (False, True), 1, 32, 64, 1, 4096, 8, 8)
"""Small enough to see the whole training run on a CPU in a minute."""

SIZES = {"bundled": BUNDLED, "toy": TOY}


class Coder(Protocol):
    """What the trainings use of an `AutoencoderTiny`."""

    @property
    def encoder(self) -> nn.Module:
        """Pictures (b, 3, s, s) in [-1, 1] to latents (b, 4, s / 8, s / 8)."""

    @property
    def decoder(self) -> nn.Module:
        """The other way."""


class Denoiser(nn.Module):
    """The text encoder and the U-Net that are trained together.

    Args:
        text_encoder: a `CLIPTextModel`.
        unet: a `UNet2DConditionModel` that attends to its states.
    """

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet

    @classmethod
    def new(cls, sizes: Sizes) -> Denoiser:
        """One of untrained networks."""
        return cls(text_encoder(sizes), unet(sizes))

    @property
    def latent_side(self) -> int:
        """Height and width of the U-Net's latents."""
        side: int = cast(Any, self.unet).config.sample_size
        return side

    def embed(self, token_ids: Tensor) -> Tensor:
        """Token ids (b, 24) to what the U-Net attends to, (b, 24, text_width)."""
        states: Tensor = self.text_encoder(token_ids).last_hidden_state
        return states

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """Returns the v-prediction, (b, 4, h, w), for noisy latents of that shape."""
        velocity: Tensor = self.unet(latents, timesteps, states, return_dict=False)[0]
        return velocity


def text_encoder(sizes: Sizes) -> nn.Module:
    """Returns a new `CLIPTextModel` of transformers; its last layer's states are what is used."""
    from transformers import CLIPTextConfig, CLIPTextModel

    width = sizes.text_width
    model: nn.Module = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=sizes.vocabulary,
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=sizes.text_layers,
            num_attention_heads=width // 64,
            max_position_embeddings=NUM_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    return model


def unet(sizes: Sizes) -> nn.Module:
    """Returns a new `UNet2DConditionModel` of diffusers that predicts zero everywhere."""
    from diffusers import UNet2DConditionModel

    model: nn.Module = UNet2DConditionModel(
        sample_size=sizes.latent,
        block_out_channels=sizes.channels,
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.text_width,
        # The key is named for what it was meant to be; it holds the number of heads.
        attention_head_dim=tuple(width // sizes.head for width in sizes.channels),
        down_block_types=tuple(_DOWN[attends] for attends in sizes.attention),
        up_block_types=tuple(_UP[attends] for attends in reversed(sizes.attention)),
        use_linear_projection=True,
    )
    _quieten(model)
    return model


def autoencoder(sizes: Sizes) -> nn.Module:
    """Returns a new `AutoencoderTiny` of diffusers, eight times smaller on the inside."""
    from diffusers import AutoencoderTiny

    model: nn.Module = AutoencoderTiny(
        encoder_block_out_channels=(sizes.encoder,) * 4,
        decoder_block_out_channels=(sizes.decoder,) * 4,
        num_encoder_blocks=(1, 1, 2, 3),
        num_decoder_blocks=(3, 3, 2, 1),
    )
    _keep_variance(model)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def cross_attention(unet: nn.Module) -> list[nn.Module]:
    """The parts of a U-Net that attend to the text."""
    return [module for name, module in unet.named_modules() if name.endswith(".attn2")]


def coder(model: nn.Module) -> Coder:
    """An autoencoder as what it is; PyTorch gives its parts no types."""
    return cast(Coder, model)


@torch.no_grad()
def _keep_variance(model: nn.Module) -> None:
    """Starts an autoencoder so that signals pass it at their strength.

    It has no normalisation: with PyTorch's own initial weights a picture hardly shows in what comes
    out, and hundreds of steps go by until it does. Blocks start as what they add to: nothing.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d):
            continue
        # All but the outputs are followed by a ReLU, which halves the variance.
        output = module.out_channels < 8
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if output else "relu")
        if name.endswith(".conv.4"):
            nn.init.zeros_(module.weight)
        if module.bias is not None:
            # The decoder's pictures are between 0 and 1, and start grey.
            nn.init.constant_(module.bias, 0.5 if module.out_channels == 3 else 0.0)


def _quieten(model: nn.Module) -> None:
    """Zeroes what each block adds, so that a deep network starts as a shallow one (ADM's way)."""
    for name, module in model.named_modules():
        if name.endswith(("conv2", "proj_out", "conv_out")):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
