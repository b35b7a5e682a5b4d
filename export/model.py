"""A diffusers folder made renderable: its graphs and manifest written beside its weights.

`python -m giffusion.export FOLDER` calls `export_model`. The graphs refer to the folder's own
safetensors files, so weights are stored once and diffusers still loads the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel

from giffusion.engine.contract import LATENT_CHANNELS, LATENT_SCALE
from giffusion.engine.errors import ModelError
from giffusion.engine.model import (
    FORMAT,
    GRAPH_DTYPES,
    GRAPHS,
    MANIFEST,
    Manifest,
    graph_path,
    graph_spec,
)
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.graphs import (
    DecodeGraph,
    DenoiseGraph,
    EncodeGraph,
    TextGraph,
    example_inputs,
)
from giffusion.export.onnx import export_graph

WEIGHTS = {
    "text": "text_encoder/model.safetensors",
    "denoise": "unet/diffusion_pytorch_model.safetensors",
    "decode": "vae/diffusion_pytorch_model.safetensors",
    "encode": "vae/diffusion_pytorch_model.safetensors",
}
"""The file that each stage's weights are in."""
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_VAES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def export_model(
    folder: Path,
    *,
    name: str | None = None,
    dtypes: Sequence[str] = GRAPH_DTYPES,
    progress: Callable[[str], None] = print,
) -> Manifest:
    """Writes the fused graphs and the manifest into a diffusers `StableDiffusionPipeline` folder.

    Args:
        folder: the checkpoint, with safetensors weights; graphs of an earlier export are replaced.
        name: what the model is called; the folder's name by default.
        dtypes: what the graphs are to compute in, each a file of its own; fp32 among them,
            which the CPU runtimes read.
        progress: called with a line before each graph.

    Returns:
        The manifest as written.

    Raises:
        ModelError: a part is missing, or is of a kind that the engine does not render.
    """
    if "fp32" not in dtypes:
        raise ModelError(f"types {', '.join(dtypes)} lack fp32, which every model has: add it")
    unet_config = _config(folder / "unet")
    _check_unet(unet_config)
    NoiseSchedule.from_config(_read_json(folder / "scheduler" / "scheduler_config.json"))
    _vae_kind(folder)
    for weights in dict.fromkeys(WEIGHTS.values()):
        if not (folder / weights).is_file():
            raise ModelError(f"{folder / weights} is missing: expected safetensors weights")
    manifest = _manifest(folder, name or folder.resolve().name, unet_config)
    for stage in GRAPHS:
        for dtype in dtypes:
            progress(f"{folder.name}: tracing {stage} in {dtype}")
            path = graph_path(folder, stage, dtype)
            _trace(load_stage(folder, stage, dtype), manifest, stage, path)
            manifest.graphs[path.stem] = _sha256(path)
    manifest.write(folder / MANIFEST)
    return manifest


def load_stage(folder: Path, stage: str, dtype: str = "fp32") -> nn.Module:
    """Loads one stage of a diffusers folder as its fused graph.

    Args:
        folder: a `StableDiffusionPipeline` folder.
        stage: one of `giffusion.engine.model.GRAPHS`.
        dtype: what its network computes in, one of `giffusion.engine.model.GRAPH_DTYPES`; SDXL's
            autoencoder, which overflows in fp16, computes in bf16 instead.

    Raises:
        ModelError: the part is missing or of a kind that the engine does not render.
    """
    if stage == "text":
        return TextGraph(_load(CLIPTextModel, folder / "text_encoder", dtype)).eval()
    if stage == "denoise":
        return DenoiseGraph(_load(UNet2DConditionModel, folder / "unet", dtype)).eval()
    if dtype == "fp16" and _overflows_in_fp16(folder):
        dtype = "bf16"
    graph = {"decode": DecodeGraph, "encode": EncodeGraph}[stage]
    return graph(_load(_vae_kind(folder), folder / "vae", dtype)).eval()


def _overflows_in_fp16(folder: Path) -> bool:
    """Whether an autoencoder's values leave fp16's range, as SDXL's do; bf16 has fp32's range.

    The config's `force_upcast` alone does not tell: it is true by default, for those too that are
    run in fp16 everywhere.
    """
    forced = bool(_config(folder / "vae").get("force_upcast", False))
    return forced and _config(folder / "unet").get("addition_embed_type") == "text_time"


def _trace(graph: nn.Module, manifest: Manifest, stage: str, path: Path) -> None:
    units = manifest.size_multiple // LATENT_SCALE
    inputs = example_inputs(
        graph,
        num_tokens=manifest.num_tokens,
        prompt_dim=manifest.prompt_dim,
        time_dim=manifest.time_dim,
        side=2 * units,
    )
    weights = [path.parent / WEIGHTS[stage]]
    spec = graph_spec(manifest, stage)
    export_graph(graph, spec, inputs, path=path, weights=weights, side_multiple=units)


def _load(kind: Any, folder: Path, dtype: str) -> nn.Module:
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True}
    if kind is CLIPTextModel:
        options["dtype"] = DTYPES[dtype]
    else:
        options |= {"torch_dtype": DTYPES[dtype], "low_cpu_mem_usage": False}
    module: nn.Module = kind.from_pretrained(folder, **options)
    return module


def _vae_kind(folder: Path) -> Any:
    kind = str(_config(folder / "vae").get("_class_name"))
    if kind not in _VAES:
        raise ModelError(f"{folder / 'vae'} is {kind}: expected {' or '.join(_VAES)}")
    return _VAES[kind]


def _check_unet(config: Mapping[str, Any]) -> None:
    channels = config.get("in_channels"), config.get("out_channels")
    if channels != (LATENT_CHANNELS, LATENT_CHANNELS):
        raise ModelError(
            f"the UNet has {channels[0]} input and {channels[1]} output channels: expected "
            f"{LATENT_CHANNELS} and {LATENT_CHANNELS}; inpainting and editing models are not "
            "rendered"
        )
    for key in ("addition_embed_type", "class_embed_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ModelError(
                f"the UNet has {key}={config[key]!r}: expected none; SDXL, LCM and class-"
                "conditioned models are not exported by this version"
            )


def _manifest(folder: Path, name: str, unet: Mapping[str, Any]) -> Manifest:
    text = _config(folder / "text_encoder")
    side = int(unet["sample_size"]) * LATENT_SCALE
    num_upsamplers = len(unet["block_out_channels"]) - 1
    return Manifest(
        format=FORMAT,
        name=name,
        size=(side, side),
        size_multiple=LATENT_SCALE * 2**num_upsamplers,
        num_tokens=int(text["max_position_embeddings"]),
        pad_token_id=_pad_token_id(folder),
        prompt_dim=int(text["hidden_size"]),
        time_dim=int(unet["block_out_channels"][0]),
        flip_sin_to_cos=bool(unet.get("flip_sin_to_cos", True)),
        freq_shift=float(unet.get("freq_shift", 0)),
        graphs={},
        sources={
            path: _sha256(folder / path)
            for path in (
                *dict.fromkeys(WEIGHTS.values()),
                "tokenizer/tokenizer.json",
                "scheduler/scheduler_config.json",
            )
        },
    )


def _pad_token_id(folder: Path) -> int:
    """The tokenizer's own pad token; a text encoder's config is often wrong about it."""
    config = _read_json(folder / "tokenizer" / "tokenizer_config.json")
    token = config.get("pad_token", config.get("eos_token"))
    token = token["content"] if isinstance(token, dict) else token
    vocabulary = _read_json(folder / "tokenizer" / "tokenizer.json")
    ids = {entry["content"]: entry["id"] for entry in vocabulary.get("added_tokens", [])}
    ids |= vocabulary["model"]["vocab"]
    if token not in ids:
        raise ModelError(f"{folder / 'tokenizer'} has no pad token {token!r} in its vocabulary")
    return int(ids[token])


def _config(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: expected a diffusers StableDiffusionPipeline folder"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object")
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
