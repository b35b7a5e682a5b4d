"""A model's networks one by one, with the inputs and outputs that Optimum's exporter gives them.

`write.py` traces these. Names, order and axes are those of optimum-onnx's `model_configs.py`
(CLIPTextOnnxConfig, UNetOnnxConfig, VaeEncoderOnnxConfig, VaeDecoderOnnxConfig). The invariant:
parameters have the names that `giffusion.export.stages.stage_weights` knows them by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE
from giffusion.engine.manifest import Manifest
from giffusion.export.stages import shapes_of_stage

_LATENT_SIDE = 2
"""Latent height and width to trace with, in units of the model's own multiple."""
Axes = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class PlainGraph:
    """One network to trace.

    Args:
        part: the folder that Optimum keeps it in.
        stage: the one of `giffusion.engine.model.GRAPHS` that runs it.
        module: the network, its parameters without values.
        inputs: example inputs by name, in order.
        input_axes: the axes of each input, in order; a name where an axis varies.
        output_axes: the axes of each output, in order.
    """

    part: str
    stage: str
    module: nn.Module
    inputs: Mapping[str, Tensor]
    input_axes: Mapping[str, Axes]
    output_axes: Mapping[str, Axes]


def plain_graphs(folder: Path, manifest: Manifest) -> list[PlainGraph]:
    """Returns the networks of a model folder, as Optimum would export them.

    Args:
        folder: as `giffusion export` writes it.
        manifest: its manifest.

    Raises:
        ModelError: a part is missing or of a kind that the engine does not render.
    """
    text = shapes_of_stage(folder, "text")
    encoders = [text.text_encoder]
    if manifest.pooled_dim is not None:
        encoders.append(text.text_encoder_2)
    return [
        *(_text(encoder, index, manifest) for index, encoder in enumerate(encoders)),
        _unet(shapes_of_stage(folder, "denoise").unet, manifest),
        _decoder(shapes_of_stage(folder, "decode").vae, manifest),
        _encoder(shapes_of_stage(folder, "encode").vae, manifest),
    ]


class _Text(nn.Module):
    def __init__(self, encoder: Any, name: str, outputs: list[str]) -> None:
        super().__init__()
        setattr(self, name, encoder)
        self._name, self._outputs = name, outputs

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        encoded = getattr(self, self._name)(input_ids, output_hidden_states=True)
        made = {f"hidden_states.{i}": state for i, state in enumerate(encoded.hidden_states)}
        return tuple(
            made[name] if name in made else getattr(encoded, name) for name in self._outputs
        )


def _text(encoder: Any, index: int, manifest: Manifest) -> PlainGraph:
    part = ("text_encoder", "text_encoder_2")[index]
    width, tokens = manifest.text_dims[index], ("batch_size", "sequence_length")
    outputs: dict[str, Axes] = {"last_hidden_state": (*tokens, width)}
    if index == 0:
        outputs["pooler_output"] = ("batch_size", width)
    else:
        assert manifest.pooled_dim is not None
        outputs = {"text_embeds": ("batch_size", manifest.pooled_dim)} | outputs
    if manifest.pooled_dim is not None:
        states = range(encoder.config.num_hidden_layers + 1)
        outputs |= {f"hidden_states.{i}": (*tokens, width) for i in states}
    ids = torch.ones(2, manifest.num_tokens, dtype=torch.int64)
    module = _Text(encoder, part, list(outputs))
    return PlainGraph(part, "text", module, {"input_ids": ids}, {"input_ids": tokens}, outputs)


class _UNet(nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        # The fused graph's UNet is given its sinusoid; this one makes its own again.
        vars(unet).pop("get_time_embed", None)
        self.unet = unet

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        timestep_cond: Tensor | None = None,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        added = {} if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
        noise: Tensor = self.unet(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=timestep_cond,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return noise


def _unet(unet: Any, manifest: Manifest) -> PlainGraph:
    latents: Axes = ("batch_size", LATENT_CHANNELS, "height", "width")
    axes: dict[str, Axes] = {
        "sample": latents,
        "timestep": (),
        "encoder_hidden_states": ("batch_size", "sequence_length", manifest.prompt_dim),
    }
    if manifest.guidance_dim is not None:
        axes["timestep_cond"] = ("batch_size", manifest.guidance_dim)
    if manifest.pooled_dim is not None:
        axes["text_embeds"] = ("batch_size", manifest.pooled_dim)
        axes["time_ids"] = ("batch_size", 6)
    inputs = {name: _example(shape, manifest) for name, shape in axes.items()}
    return PlainGraph("unet", "denoise", _UNet(unet), inputs, axes, {"out_sample": latents})


class _Decoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample: Tensor) -> Tensor:
        sample: Tensor = self.vae.decode(latent_sample, return_dict=False)[0]
        return sample


def _decoder(vae: Any, manifest: Manifest) -> PlainGraph:
    height, width = (f"latent_{side} * {LATENT_SCALE}" for side in ("height", "width"))
    axes: dict[str, Axes] = {
        "latent_sample": ("batch_size", LATENT_CHANNELS, "latent_height", "latent_width")
    }
    inputs = {name: _example(shape, manifest) for name, shape in axes.items()}
    outputs: dict[str, Axes] = {"sample": ("batch_size", 3, height, width)}
    return PlainGraph("vae_decoder", "decode", _Decoder(vae), inputs, axes, outputs)


class _Encoder(nn.Module):
    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, sample: Tensor) -> Tensor:
        encoded = self.vae.encode(sample)
        result: Tensor = (
            encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.parameters
        )
        return result


def _encoder(vae: Any, manifest: Manifest) -> PlainGraph:
    height, width = (f"sample_{side} / {LATENT_SCALE}" for side in ("height", "width"))
    axes: dict[str, Axes] = {"sample": ("batch_size", 3, "sample_height", "sample_width")}
    inputs = {name: _example(shape, manifest) for name, shape in axes.items()}
    # The tiny autoencoder's latents are no distribution.
    name, channels = "latent_sample", LATENT_CHANNELS
    if vae.config._class_name == "AutoencoderKL":
        name, channels = "latent_parameters", 2 * LATENT_CHANNELS
    outputs: dict[str, Axes] = {name: ("batch_size", channels, height, width)}
    return PlainGraph("vae_encoder", "encode", _Encoder(vae), inputs, axes, outputs)


def _example(axes: Axes, manifest: Manifest) -> Tensor:
    side = _LATENT_SIDE * manifest.size_multiple // LATENT_SCALE
    sizes = {"batch_size": 2, "sequence_length": manifest.num_tokens}
    for name in ("height", "width"):
        sizes |= {name: side, f"latent_{name}": side, f"sample_{name}": LATENT_SCALE * side}
    shape = [axis if isinstance(axis, int) else sizes[axis] for axis in axes]
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
