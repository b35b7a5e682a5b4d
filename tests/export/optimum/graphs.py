"""Optimum-like folders of small models, and graphs run with ONNX Runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from diffusers import DDIMScheduler, LCMScheduler
from numpy.typing import NDArray

from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.manifests import make_manifest
from giffusion.export.optimum.write import write_optimum
from tests.export import families

POOLED_DIM = 40
Arrays = Mapping[str, NDArray[Any]]


def model(kind: str) -> dict[str, Any]:
    """Returns a small model's parts by the folders that they are saved in.

    Args:
        kind: `sd`, or `xl`: SDXL with LCM's guidance input and the tiny autoencoder.
    """
    torch.manual_seed(0)
    narrow: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
    }
    if kind == "sd":
        return {
            "unet": families.unet(**narrow).eval(),
            "vae": families.vae().eval(),
            "text_encoder": families.text_encoder().eval(),
            "tokenizer": families.tokenizer(),
            "scheduler": DDIMScheduler(**families.BETAS, clip_sample=False),
        }
    unet = families.unet(
        **narrow,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32 + families.PROMPT_DIM,
        use_linear_projection=True,
        time_cond_proj_dim=24,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + POOLED_DIM,
    )
    second = families.text_encoder(projection_dim=POOLED_DIM, hidden_act="gelu")
    return {
        "unet": unet.eval(),
        "vae": families.tiny_vae().eval(),
        "text_encoder": families.text_encoder(32).eval(),
        "text_encoder_2": second.eval(),
        "tokenizer": families.tokenizer(),
        "tokenizer_2": families.tokenizer("!"),
        "scheduler": LCMScheduler(**families.BETAS, clip_sample=False),
    }


def exported(kind: str, folder: Path) -> Path:
    """A small model's weights as giffusion keeps them, and Optimum's files beside them."""
    for name, part in model(kind).items():
        part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text("{}")
    configs = {path.parent.name: read_json(path) for path in folder.glob("*/config.json")}
    manifest = make_manifest(folder, kind, configs, weights=[], origin={})
    write_optimum(folder, manifest, progress=lambda _: None)
    return folder


def as_optimum(folder: Path, target: Path) -> Path:
    """Copies what Optimum would have written, the weights inside the graphs."""
    for path in folder.glob("*/*.json"):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.relative_to(folder))
    shutil.copy(folder / "model_index.json", target)
    for path in folder.glob("*/model.onnx"):
        model = ir.load(path)
        ir.external_data.load_to_model(model)
        ir.save(model, target / path.relative_to(folder))
    return target


def run(path: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Returns a graph's outputs by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def edit_json(path: Path, **changes: object) -> None:
    """Changes a configuration; None removes a key."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
