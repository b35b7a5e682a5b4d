"""Networks with random weights, made where they run; what they cost; and a folder of them.

The same row gives the same weights on one device, so that all contestants compute the same.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.gpu.rows import Row
from giffusion.engine.contract import LATENT_CHANNELS
from giffusion.engine.manifest import FORMAT, Manifest
from giffusion.engine.model import Model, graph_names, latent_size, load_model
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.graphs import DecodeGraph, DenoiseGraph, EncodeGraph, TextGraph
from giffusion.export.model import export_model
from giffusion.export.stages import DTYPES
from giffusion.models import DEFAULT_MODEL, find_model

SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations of the networks, matrix products and convolutions only.

    Args:
        row: of the UNet for one row.
        frame_decode: of the decoder for one frame.
        frame: of one frame from noise to picture.
    """

    row: int
    frame_decode: int
    frame: int


class Networks:
    """The networks of one row.

    Args:
        row: whose.
        precision: what UNet and decoder compute in.
        device: where they are made.
    """

    def __init__(self, row: Row, precision: str, device: str) -> None:
        self.row = row
        self.precision = precision
        self.device = device
        self._stages: dict[tuple[str, str], nn.Module] = {}

    @property
    def vae_precision(self) -> str:
        """What the decoder computes in: bf16 has fp32's range, which SDXL's needs."""
        wide = bool((self.row.architecture.vae or {}).get("force_upcast")) and not self.row.tiny
        return "bf16" if wide and self.precision == "fp16" else self.precision

    def unet(self) -> Any:
        """Returns a UNet of its own."""
        made = self.row.architecture.make_unet(DTYPES[self.precision], self.device)
        return _spread(made)

    def vae(self) -> Any:
        """Returns an autoencoder of its own."""
        dtype = DTYPES[self.vae_precision]
        made = self.row.architecture.make_vae(dtype, self.device, tiny=self.row.tiny)
        return _spread(made)

    def text_encoder(self) -> Any:
        """Returns a text encoder of its own, in fp32.

        Raises:
            ValueError: the row has none.
        """
        if self.row.text is None:
            raise ValueError(f"row {self.row.key} has no text encoder")
        torch.manual_seed(0)
        with torch.device(self.device):
            made: Any = CLIPTextModel(CLIPTextConfig(**self.row.text))
        return made.eval()

    def load_stage(self, folder: Path, stage: str, dtype: str) -> nn.Module:
        """Returns a fused graph, as `giffusion.export.stages.load_stage` does from a folder.

        Each is made once, and all runtimes of the row share it.
        """
        if (stage, dtype) not in self._stages:
            self._stages[stage, dtype] = self._fused(stage)
        return self._stages[stage, dtype]

    def _fused(self, stage: str) -> nn.Module:
        if stage == "text":
            return TextGraph(self.text_encoder())
        if stage == "denoise":
            return DenoiseGraph(self.unet())
        return {"decode": DecodeGraph, "encode": EncodeGraph}[stage](self.vae())

    def model(self, folder: Path) -> Model:
        """Returns a model whose stages `load_stage` makes.

        The folder gets the bundled model's tokenizer and nothing else; instead of the hashes of
        graph files the manifest has that of the row, from which the random weights follow.
        """
        tokens = find_model(DEFAULT_MODEL)
        shutil.copytree(tokens / "tokenizer", folder / "tokenizer")
        made, unet = self.row.architecture, self.row.architecture.unet
        content = json.dumps([asdict(self.row), SCHEDULER], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()
        manifest = Manifest(
            format=FORMAT,
            name=f"{self.row.key} of random weights",
            size=self.row.size,
            size_multiple=made.size_multiple,
            num_tokens=made.num_tokens,
            pad_token_ids=load_model(tokens).manifest.pad_token_ids,
            text_dims=(made.prompt_dim,),
            pooled_dim=made.pooled_dim,
            control_dim=None,
            zero_negative=made.pooled_dim is not None,
            token_vectors={},
            time_dim=made.time_dim,
            guidance_dim=None,
            flip_sin_to_cos=bool(unet.get("flip_sin_to_cos", True)),
            freq_shift=float(unet.get("freq_shift", 0)),
            graphs=dict.fromkeys(graph_names(), digest),
            sources={},
            origin={},
        )
        return Model(folder, manifest, NoiseSchedule.from_config(SCHEDULER))

    def exported(self, folder: Path, dtype: str) -> Model:
        """Writes a checkpoint of the same weights and exports it, for runtimes that read graphs.

        Raises:
            ModelError: the row is of a kind that is not exported.
        """
        self.unet().save_pretrained(folder / "unet")
        self.vae().save_pretrained(folder / "vae")
        if self.row.text is not None:
            self.text_encoder().save_pretrained(folder / "text_encoder")
        shutil.copytree(find_model(DEFAULT_MODEL) / "tokenizer", folder / "tokenizer")
        (folder / "model_index.json").write_text("{}", encoding="utf-8")
        (folder / "scheduler").mkdir()
        config = json.dumps({"_class_name": "EulerDiscreteScheduler", **SCHEDULER})
        (folder / "scheduler" / "scheduler_config.json").write_text(config, encoding="utf-8")
        dtypes = list(dict.fromkeys(("fp32", dtype)))
        export_model(folder, name=f"{self.row.key} of random weights", dtypes=dtypes)
        return load_model(folder)

    def cost(self) -> Cost:
        """Counts operations on tensors without memory; one multiplication and addition is two."""
        made, (height, width) = self.row.architecture, latent_size(self.row.size)
        with torch.device("meta"):
            unet: Any = UNet2DConditionModel(**made.unet)
            vae = self.vae().to("meta")
            latents = torch.empty(1, LATENT_CHANNELS, height, width)
            embeds = torch.empty(1, made.num_tokens, made.prompt_dim)
            timestep = torch.empty(1)
            micro = made.pooled_dim and {
                "text_embeds": torch.empty(1, made.pooled_dim),
                "time_ids": torch.empty(1, 6),
            }
        # Fused attention is not in the counter's tables on every device.
        unet.set_attn_processor(AttnProcessor())
        if not self.row.tiny:
            vae.set_attn_processor(AttnProcessor())
        row = _count(lambda: unet(latents, timestep, embeds, added_cond_kwargs=micro))
        decode = _count(lambda: vae.decode(latents.to(vae.dtype)))
        return Cost(row, decode, row * self.row.rows_per_frame * self.row.steps + decode)


def _spread(network: Any) -> Any:
    """Gives weights the spread that keeps activations at their size (He et al. 2015).

    So half precision sees ordinary numbers, and encoders see pictures that are not flat.
    """
    generator = torch.Generator(next(network.parameters()).device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                std = math.sqrt(1 / math.prod(parameter.shape[1:]))
                parameter.normal_(0, std, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.fill_(1)
    return network


def _count(compute: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        compute()
    return int(counter.get_total_flops())
