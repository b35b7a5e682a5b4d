"""The four fused graphs as torch modules, with the tensors of `giffusion.engine.contract`.

`giffusion.export.onnx` traces them. What lies outside the networks is float32 multiplication and
addition; values are cast to a network's own type at its edge only, so the sampler's state is
exact whatever precision the network runs in.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE, STATE_ROWS, TABLE_COLUMNS
from giffusion.export.nv12 import nv12


class TextGraph(nn.Module):
    """`input_ids (prompts, L) int32 → prompt_embeds (prompts, L, D) float32`."""

    def __init__(self, text_encoder: nn.Module) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden: Tensor = self.text_encoder(input_ids, return_dict=False)[0]
        return hidden.float()


class DenoiseGraph(nn.Module):
    """One evaluation of the UNet for every row, then one sampler step for every slot.

    Shapes and types are those of `giffusion.engine.contract.denoise_spec`. The timestep enters
    behind the UNet's own sinusoid, which would lose it in half precision. SDXL takes its pooled
    embeddings and size ids besides; their sinusoids are the UNet's own, in float32.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet: Any = unet
        for module in unet.modules():
            for name, child in module.named_children():
                if isinstance(child, GEGLU):
                    setattr(module, name, SplitGEGLU(child))
        setattr(self.unet, "get_time_embed", _given_time_proj)  # noqa: B010 - not a submodule

    def forward(
        self,
        state: Tensor,
        scale: Tensor,
        time_proj: Tensor,
        row_slot: Tensor,
        cond: Tensor,
        mix: Tensor,
        table: Tensor,
        noise: Tensor,
        pooled: Tensor | None = None,
        size_ids: Tensor | None = None,
    ) -> Tensor:
        dtype = self.unet.dtype
        # The UNet joins both in float32, and casts what they become.
        micro = {} if pooled is None else {"text_embeds": pooled, "time_ids": size_ids}
        scaled = state[:, 0] * scale[:, None, None, None]
        row_output: Tensor = self.unet(
            scaled.index_select(0, row_slot).to(dtype),
            time_proj.index_select(0, row_slot),
            cond.to(dtype),
            added_cond_kwargs=micro,
            return_dict=False,
        )[0]
        # MatMul and Einsum would be run in half precision or TF32; a product and a sum are not.
        # Rows come first: runtimes add up a leading axis in order, so that the idle rows in
        # between change nothing; inner axes are summed in a tree, whose shape they would change.
        weights = mix.T[:, :, None, None, None]
        weighted = weights * row_output.float()[:, None]
        # Another slot's row that overflowed must not reach this one as 0 · NaN.
        output = _sum_rows(torch.where(weights != 0, weighted, 0.0))
        terms = torch.cat([state, output[:, None], noise[:, None]], dim=1)
        return (table[:, :, :, None, None, None] * terms[:, None]).sum(2)


def _sum_rows(rows: Tensor) -> Tensor:
    """Adds rows up in their order, so that idle ones in between change nothing.

    Runtimes do so along a leading axis; torch itself sums it in a tree or in strides.
    """
    if torch.compiler.is_exporting():
        return rows.sum(0)
    total: Tensor = functools.reduce(torch.add, rows)
    return total


class SplitGEGLU(nn.Module):
    """GEGLU (Shazeer 2020) as two products with half of the weights each.

    One product whose result is split, as diffusers has it, costs a copy: runtimes on the CPU have
    no fast Split along the last axis.
    """

    def __init__(self, whole: GEGLU) -> None:
        super().__init__()
        self.proj = whole.proj

    def forward(self, hidden: Tensor) -> Tensor:
        weights = self.proj.weight.chunk(2)
        biases = (None, None) if self.proj.bias is None else self.proj.bias.chunk(2)
        linear, gate = (F.linear(hidden, *pair) for pair in zip(weights, biases, strict=True))
        return linear * F.gelu(gate)


def _given_time_proj(sample: Tensor, timestep: Tensor) -> Tensor:
    return timestep.to(sample.dtype)


class DecodeGraph(nn.Module):
    """Latents to pictures, in both pixel formats of `giffusion.engine.frames`.

    `latents (images, 4, h, w) float32 → rgb (images, 8h, 8w, 3) and nv12 (images, 12h, 8w) uint8`.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        unscaled = latents / self.vae.config.scaling_factor
        picture: Tensor = self.vae.decode(unscaled.to(self.vae.dtype), return_dict=False)[0]
        levels = ((picture.float() / 2 + 0.5).clamp(0, 1) * 255).round()
        # TensorRT takes bytes at a graph's very edge alone.
        return levels.permute(0, 2, 3, 1).to(torch.uint8), nv12(levels)


class EncodeGraph(nn.Module):
    """`rgb (images, 8h, 8w, 3) uint8 → latents (images, 4, h, w) float32`.

    A distribution's mode is taken, not a sample, so that an init picture's latents are a
    function of the picture.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae

    def forward(self, rgb: Tensor) -> Tensor:
        picture = rgb.float().permute(0, 3, 1, 2) / 127.5 - 1
        encoded = self.vae.encode(picture.to(self.vae.dtype))
        latents: Tensor = (
            encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        )
        scaled: Tensor = latents.float() * self.vae.config.scaling_factor
        return scaled


def example_inputs(
    graph: nn.Module,
    *,
    num_tokens: int,
    prompt_dim: int,
    time_dim: int,
    side: int,
    pooled_dim: int | None = None,
) -> dict[str, Tensor]:
    """Returns inputs to trace one of the graphs with.

    Args:
        graph: an instance of one of the graphs above.
        num_tokens: L, tokens a prompt.
        prompt_dim: D, width of the prompt embeddings.
        time_dim: width of the timestep's sinusoid.
        side: latent height and width to trace with.
        pooled_dim: width of SDXL's pooled embeddings; None for other models.
    """
    generator = torch.Generator().manual_seed(0)
    images, slots, rows = 2, 3, 4
    latents = torch.randn(images, LATENT_CHANNELS, side, side, generator=generator)
    if isinstance(graph, TextGraph):
        return {"input_ids": torch.ones(images, num_tokens, dtype=torch.int32)}
    if isinstance(graph, DecodeGraph):
        return {"latents": latents}
    if isinstance(graph, EncodeGraph):
        pixels = side * LATENT_SCALE
        return {"rgb": torch.full((images, pixels, pixels, 3), 128, dtype=torch.uint8)}
    latent = (LATENT_CHANNELS, side, side)
    micro = {}
    if pooled_dim is not None:
        micro = {
            "pooled": torch.randn(rows, pooled_dim, generator=generator),
            "size_ids": torch.full((rows, 6), 1024.0),
        }
    return {
        "state": torch.randn(slots, STATE_ROWS, *latent, generator=generator),
        "scale": torch.ones(slots),
        "time_proj": torch.randn(slots, time_dim, generator=generator),
        "row_slot": torch.tensor([0, 1, 2, 2], dtype=torch.int32),
        "cond": torch.randn(rows, num_tokens, prompt_dim, generator=generator),
        "mix": torch.rand(slots, rows, generator=generator),
        "table": torch.rand(slots, STATE_ROWS, TABLE_COLUMNS, generator=generator),
        "noise": torch.randn(slots, *latent, generator=generator),
        **micro,
    }
