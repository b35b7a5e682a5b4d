"""A ControlNet in two pieces: what is computed once a frame, and what each step computes.

Zhang, Rao and Agrawala 2023, "Adding Conditional Control to Text-to-Image Diffusion Models"
(arXiv:2302.05543). `ControlGraph` is a graph of its own, `control_residuals` is called by the
denoise graph. The invariant: both together compute what diffusers' `ControlNetModel` does; its own
forward wants numbers of timesteps, whose sinusoids would be lost in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class ControlGraph(nn.Module):
    """`rgb (images, 8h, 8w, 3) uint8 → control (images, C, h, w) float32`, a map's embedding.

    Args:
        controlnet: a ControlNet, or a module with its `controlnet_cond_embedding` alone.
    """

    def __init__(self, controlnet: nn.Module) -> None:
        super().__init__()
        self.controlnet: Any = controlnet

    def forward(self, rgb: Tensor) -> Tensor:
        embedding = self.controlnet.controlnet_cond_embedding
        picture = rgb.float().permute(0, 3, 1, 2) / 255
        control: Tensor = embedding(picture.to(embedding.conv_in.weight.dtype))
        return control.float()


def control_residuals(
    controlnet: Any,
    latents: Tensor,
    time_proj: Tensor,
    cond: Tensor,
    micro: Mapping[str, Tensor | None],
    control: Tensor,
    scale: Tensor,
) -> dict[str, Any]:
    """Runs a ControlNet's blocks on the rows of a batch.

    Args:
        controlnet: diffusers' `ControlNetModel`.
        latents: scaled for the model, (R, 4, h, w), of the network's type.
        time_proj: the timesteps' sinusoids, (R, C) float32.
        cond: prompt embeddings, (R, L, D), of the network's type.
        micro: SDXL's pooled embeddings and size ids, float32, as `added_cond_kwargs`; else empty.
        control: the maps' embeddings, (R, C, h, w), of the network's type.
        scale: factor of what is returned, (R,), of the network's type.

    Returns:
        What diffusers' `UNet2DConditionModel` adds to its own, as keyword arguments of its forward.
    """
    embedded = _time_embedding(controlnet, time_proj.to(latents.dtype), micro)
    hidden = controlnet.conv_in(latents) + control
    outputs = [hidden]
    for block in controlnet.down_blocks:
        hidden, states = block(hidden, embedded, **_prompts(block, cond))
        outputs += states
    middle = controlnet.mid_block
    hidden = middle(hidden, embedded, **_prompts(middle, cond))
    factor = scale[:, None, None, None]
    blocks = zip(controlnet.controlnet_down_blocks, outputs, strict=True)
    return {
        "down_block_additional_residuals": tuple(
            block(output) * factor for block, output in blocks
        ),
        "mid_block_additional_residual": controlnet.controlnet_mid_block(hidden) * factor,
    }


def _time_embedding(
    controlnet: Any, time_proj: Tensor, micro: Mapping[str, Tensor | None]
) -> Tensor:
    embedded: Tensor = controlnet.time_embedding(time_proj)
    pooled, size_ids = micro.get("text_embeds"), micro.get("time_ids")
    if pooled is None or size_ids is None:
        return embedded
    sizes = controlnet.add_time_proj(size_ids.flatten()).reshape(pooled.shape[0], -1)
    joined = torch.cat([pooled, sizes], dim=-1).to(embedded.dtype)
    added: Tensor = controlnet.add_embedding(joined)
    return embedded + added


def _prompts(block: Any, cond: Tensor) -> dict[str, Tensor]:
    """Some blocks attend to the prompt, and others do not take it."""
    return {"encoder_hidden_states": cond} if getattr(block, "has_cross_attention", False) else {}
