"""Stand-ins for a model's networks: each is one node in a traced graph, and becomes its graph.

`read.py` traces `giffusion.export.graphs` with them, and `fuse.py` puts Optimum's graphs in
their places, so guidance, the sampler's table and pixel formats are the same as for any model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor, nn

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE
from giffusion.export.graphs import DecodeGraph, DenoiseGraph, EncodeGraph, TextGraph
from giffusion.export.optimum.folder import OptimumFolder
from giffusion.export.optimum.sinusoid import SINUSOID

DOMAIN, OPERATOR = "giffusion", "Network"
"""The node that stands for a network: attributes `part`, its folder, `inputs`, the names of the
node's inputs in that folder's graph, and `output`, the name of the node's output there."""


def stand_in_graph(optimum: OptimumFolder, stage: str) -> nn.Module:
    """Returns one stage's fused graph with stand-ins for its networks.

    Args:
        optimum: the folder that has the networks.
        stage: one of `giffusion.engine.model.GRAPHS`.
    """
    match stage:
        case "text":
            names = [part for part in ("text_encoder", "text_encoder_2") if part in optimum.configs]
            return TextGraph(*(_TextEncoder(name, optimum) for name in names)).eval()
        case "denoise":
            return DenoiseGraph(_UNet()).eval()
        case "decode":
            return DecodeGraph(_Decoder(optimum.configs["vae_decoder"])).eval()
        case "encode":
            return EncodeGraph(_Encoder(optimum.configs["vae_encoder"])).eval()
    raise ValueError(f"unknown stage {stage!r}")


def _run(part: str, output: str, feeds: Mapping[str, Tensor], shape: tuple[Any, ...]) -> Tensor:
    result: Tensor = torch.onnx.ops.symbolic(
        f"{DOMAIN}::{OPERATOR}",
        tuple(feeds.values()),
        {"part": part, "inputs": list(feeds), "output": output},
        dtype=torch.float32,
        shape=shape,
        version=1,
    )
    return result


class _TextEncoder(nn.Module):
    def __init__(self, part: str, optimum: OptimumFolder) -> None:
        super().__init__()
        config = optimum.configs[part]
        self._part = part
        self._width, self._pooled = int(config["hidden_size"]), config.get("projection_dim")
        self._num_layers = int(config["num_hidden_layers"])

    def forward(self, input_ids: Tensor, output_hidden_states: bool = False, **_: object) -> Any:
        feeds = {"input_ids": input_ids}
        shape = (*input_ids.shape, self._width)
        if not output_hidden_states:
            return (_run(self._part, "last_hidden_state", feeds, shape),)
        states = f"hidden_states.{self._num_layers - 1}"
        encoded = SimpleNamespace(hidden_states=[_run(self._part, states, feeds, shape), None])
        if self._part == "text_encoder_2":
            pooled = (input_ids.shape[0], self._pooled)
            encoded.text_embeds = _run(self._part, "text_embeds", feeds, pooled)
        return encoded


class _UNet(nn.Module):
    dtype = torch.float32

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
        added_cond_kwargs: Mapping[str, Tensor] | None = None,
        **_: object,
    ) -> tuple[Tensor]:
        feeds = {
            "sample": sample,
            SINUSOID: timestep,
            "encoder_hidden_states": encoder_hidden_states,
            **(added_cond_kwargs or {}),
        }
        if timestep_cond is not None:
            feeds["timestep_cond"] = timestep_cond
        return (_run("unet", "out_sample", feeds, tuple(sample.shape)),)


class _Autoencoder(nn.Module):
    dtype = torch.float32

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = FrozenDict(config)


class _Decoder(_Autoencoder):
    def decode(self, latents: Tensor, **_: object) -> tuple[Tensor]:
        images, _channels, h, w = latents.shape
        shape = (images, 3, LATENT_SCALE * h, LATENT_SCALE * w)
        return (_run("vae_decoder", "sample", {"latent_sample": latents}, shape),)


class _Encoder(_Autoencoder):
    def encode(self, picture: Tensor) -> Any:
        images, _channels, height, width = picture.shape
        side = (height // LATENT_SCALE, width // LATENT_SCALE)
        if self.config.get("_class_name") == "AutoencoderTiny":
            shape = (images, LATENT_CHANNELS, *side)
            latents = _run("vae_encoder", "latent_sample", {"sample": picture}, shape)
            return SimpleNamespace(latents=latents)
        # The means of a distribution, then its logarithmic variances.
        shape = (images, 2 * LATENT_CHANNELS, *side)
        moments = _run("vae_encoder", "latent_parameters", {"sample": picture}, shape)
        return SimpleNamespace(latents=moments[:, :LATENT_CHANNELS])
