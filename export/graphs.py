"""The fused graphs as torch modules, with the tensors of `giffusion.engine.contract`.

`giffusion.export.onnx` traces them. What lies outside the networks is float32 multiplication and
addition; values are cast to a network's own type at its edge only, so the sampler's state is
exact whatever precision the network runs in.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from torch import Tensor, nn

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.export.control_graphs import control_residuals
from giffusion.export.nv12 import nv12


class TextGraph(nn.Module):
    """`input_ids (prompts, L) int32 → prompt_embeds (prompts, L, D) float32`.

    With SDXL's second encoder, `input_ids, input_ids_2 → prompt_embeds, pooled (prompts, P)`: both
    encoders' embeddings side by side, each without its last layer and its norm.
    """

    def __init__(self, text_encoder: nn.Module, text_encoder_2: nn.Module | None = None) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.text_encoder_2 = text_encoder_2

    def forward(
        self, input_ids: Tensor, input_ids_2: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        if self.text_encoder_2 is None:
            hidden: Tensor = self.text_encoder(input_ids, return_dict=False)[0]
            return hidden.float()
        first = self.text_encoder(input_ids, output_hidden_states=True)
        second = self.text_encoder_2(input_ids_2, output_hidden_states=True)
        embeds = [encoded.hidden_states[-2].float() for encoded in (first, second)]
        return torch.cat(embeds, dim=-1), second.text_embeds.float()


class DenoiseGraph(nn.Module):
    """One evaluation of the UNet for every row, then one sampler step for every slot.

    Shapes and types are those of `giffusion.engine.contract.denoise_spec`. The timestep enters
    behind the UNet's own sinusoid, which would lose it in half precision. SDXL takes its pooled
    embeddings and size ids besides; their sinusoids are the UNet's own, in float32. LCM takes the
    guidance scale's sinusoid. With a ControlNet, each slot has a map's embedding and its scale.
    """

    def __init__(self, unet: nn.Module, controlnet: nn.Module | None = None) -> None:
        super().__init__()
        self.unet: Any = unet
        self.controlnet: Any = controlnet
        for module in self.modules():
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
        guidance_embed: Tensor | None = None,
        control: Tensor | None = None,
        control_scale: Tensor | None = None,
    ) -> Tensor:
        dtype = self.unet.dtype
        # The UNet joins both in float32, and casts what they become.
        micro = {} if pooled is None else {"text_embeds": pooled, "time_ids": size_ids}
        residuals: Mapping[str, Any] = {}
        if guidance_embed is not None:
            guidance_embed = guidance_embed.index_select(0, row_slot).to(dtype)
        scaled = state[:, 0] * scale[:, None, None, None]
        row_latents = scaled.index_select(0, row_slot).to(dtype)
        row_time = time_proj.index_select(0, row_slot)
        if control is not None and control_scale is not None:
            residuals = control_residuals(
                self.controlnet,
                row_latents,
                row_time,
                cond.to(dtype),
                micro,
                control.index_select(0, row_slot).to(dtype),
                control_scale.index_select(0, row_slot).to(dtype),
            )
        row_output: Tensor = self.unet(
            row_latents,
            row_time,
            cond.to(dtype),
            timestep_cond=guidance_embed,
            added_cond_kwargs=micro,
            return_dict=False,
            **residuals,
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
        unscaled = _unscaled(latents, self.vae.config)
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
        return _scaled(latents.float(), self.vae.config)


def _unscaled(latents: Tensor, config: Any) -> Tensor:
    """Returns latents as the autoencoder has them; some keep a mean and a deviation a channel."""
    mean, std = (_channels(config, name) for name in ("latents_mean", "latents_std"))
    factor = float(config.scaling_factor)
    if mean is None or std is None:
        return latents / factor
    return latents * std / factor + mean


def _scaled(latents: Tensor, config: Any) -> Tensor:
    """Returns an autoencoder's latents as the UNet sees them."""
    mean, std = (_channels(config, name) for name in ("latents_mean", "latents_std"))
    factor = float(config.scaling_factor)
    if mean is None or std is None:
        return latents * factor
    return (latents - mean) * factor / std


def _channels(config: Any, name: str) -> Tensor | None:
    values = config.get(name)
    return None if values is None else torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)


def example_inputs(spec: GraphSpec, *, side: int) -> dict[str, Tensor]:
    """Returns inputs to trace or compare a graph with: random, the same ones every time.

    Args:
        spec: the graph's contract.
        side: latent height and width.
    """
    axes = example_axes(side)
    generator = torch.Generator().manual_seed(0)
    return {t.name: _example(t, t.resolve(axes), axes, generator) for t in spec.inputs}


def example_axes(side: int) -> dict[str, int]:
    """Returns the sizes of the axes of `example_inputs`, by name."""
    return {"prompts": 2, "images": 2, "slots": 3, "rows": 4, "h": side, "w": side}


def _example(
    tensor: TensorSpec, shape: tuple[int, ...], axes: Mapping[str, int], generator: torch.Generator
) -> Tensor:
    if tensor.name == "row_slot":
        return torch.arange(axes["rows"], dtype=torch.int32) % axes["slots"]
    if tensor.name == "size_ids":
        return torch.full(shape, 1024.0)
    if tensor.dtype == "int32":
        # Ids that every vocabulary has.
        return torch.randint(0, 8, shape, dtype=torch.int32, generator=generator)
    if tensor.dtype == "uint8":
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return torch.randn(shape, generator=generator)
