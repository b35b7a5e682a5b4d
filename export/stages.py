"""The networks of a model folder as fused graphs: with their weights, or as shapes to trace.

The torch runtime loads stages with weights; `model.py` traces them without, so that exporting
takes no memory for them. The invariant: a parameter of a graph has the name of the tensor in the
folder that it is, behind the part's, but for `text_model.`, which transformers leaves out or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.networks import make_network, network_class
from giffusion.export.checkpoint.tensors import StoredTensor, stored_tensors
from giffusion.export.control_graphs import ControlGraph
from giffusion.export.graphs import DecodeGraph, DenoiseGraph, EncodeGraph, TextGraph

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_GRAPHS = {
    "text": TextGraph,
    "denoise": DenoiseGraph,
    "decode": DecodeGraph,
    "encode": EncodeGraph,
    "control": ControlGraph,
}
_UNUSED: Mapping[str, tuple[str, ...]] = {
    "denoise": ("controlnet.controlnet_cond_embedding",),
    "decode": ("vae.encoder", "vae.quant_conv"),
    "encode": ("vae.decoder", "vae.post_quant_conv"),
}
"""The modules of its networks that a stage does not run."""


def stage_parts(folder: Path, stage: str) -> dict[str, str]:
    """Returns the folders of a stage's networks, by what their parameters' names begin with.

    Args:
        folder: a model folder.
        stage: one of `giffusion.engine.model.GRAPHS`, or `CONTROL`.
    """
    match stage:
        case "text":
            second = "text_encoder_2"
            names = ("text_encoder", second) if (folder / second).is_dir() else ("text_encoder",)
            return {name: name for name in names}
        case "denoise":
            return {"unet": "unet"} | stage_parts(folder, "control")
        case "control":
            return {"controlnet": "controlnet"} if (folder / "controlnet").is_dir() else {}
        case "decode" if (folder / "decoder").is_dir():
            return {"vae": "decoder"}
        case "decode" | "encode":
            return {"vae": "vae"}
    raise ValueError(f"unknown stage {stage!r}")


def stage_weights(folder: Path, stage: str) -> dict[str, StoredTensor]:
    """Returns where a stage's weights lie, by `weight_key` of its graph's parameters.

    Raises:
        ModelError: a file of weights is missing or is no safetensors file.
    """
    return {
        weight_key(f"{prefix}.{tensor.name}"): tensor
        for prefix, part in stage_parts(folder, stage).items()
        for tensor in stored_tensors(weights_file(folder, part))
    }


def weight_key(name: str) -> str:
    """Returns a weight's name in the one spelling that files and networks share."""
    return name.replace(".text_model.", ".")


def weights_file(folder: Path, part: str) -> Path:
    """Returns the file of a part's weights.

    Raises:
        ModelError: it is missing.
    """
    path = folder / part / WEIGHTS_FILES[part]
    if not path.is_file():
        raise ModelError(f"{path} is missing: expected safetensors weights")
    return path


def load_stage(folder: Path, stage: str, dtype: str = "fp32") -> nn.Module:
    """Loads one stage of a model folder as its fused graph.

    Args:
        folder: a folder as `giffusion export` writes it.
        stage: one of those that the model has.
        dtype: what its network computes in, one of `giffusion.engine.manifest.GRAPH_DTYPES`; SDXL's
            autoencoder, which overflows in fp16, computes in bf16 instead.

    Raises:
        ModelError: a part is missing, of a kind that the engine does not render, or not what its
            config describes.
    """
    networks = _networks(folder, stage)
    dtype = stage_dtype(folder, stage, dtype)
    for prefix, part in stage_parts(folder, stage).items():
        _load_weights(networks[prefix], weights_file(folder, part), DTYPES[dtype])
    return _fused(stage, networks)


def shapes_of_stage(folder: Path, stage: str, dtype: str = "fp32") -> nn.Module:
    """Returns one stage as `load_stage` does, with parameters that have no values, for tracing.

    Raises:
        ModelError: a part is missing or of a kind that the engine does not render.
    """
    networks = _networks(folder, stage)
    torch_dtype = DTYPES[stage_dtype(folder, stage, dtype)]
    graph = _fused(stage, networks)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for module in graph.modules():
            for name, parameter in module.named_parameters(recurse=False):
                empty = torch.empty(parameter.shape, dtype=torch_dtype, device="cpu")
                module.register_parameter(name, nn.Parameter(empty, requires_grad=False))
    return graph


def stage_dtype(folder: Path, stage: str, dtype: str) -> str:
    """Returns what a stage computes in where a precision is asked for.

    That is bf16, which has fp32's range, for autoencoders whose values leave fp16's, as SDXL's do.
    The config's `force_upcast` alone does not tell: it is true by default, for those too that are
    run in fp16 everywhere.
    """
    if dtype != "fp16" or stage not in ("decode", "encode"):
        return dtype
    (part,) = stage_parts(folder, stage).values()
    forced = read_json(folder / part / "config.json").get("force_upcast", False)
    is_sdxl = read_json(folder / "unet" / "config.json").get("addition_embed_type") == "text_time"
    return "bf16" if forced and is_sdxl else dtype


def _networks(folder: Path, stage: str) -> dict[str, Any]:
    """Makes a stage's networks without memory for their weights."""
    networks = {
        prefix: _network(folder / part, part) for prefix, part in stage_parts(folder, stage).items()
    }
    for path in _UNUSED.get(stage, ()):
        prefix, _, name = path.partition(".")
        if hasattr(networks.get(prefix), name):
            setattr(networks[prefix], name, nn.Identity())
    if stage == "control":
        # All that it runs; the rest is the denoise graph's.
        embedding = networks["controlnet"].controlnet_cond_embedding
        networks["controlnet"] = nn.ModuleDict({"controlnet_cond_embedding": embedding})
    return networks


def _network(folder: Path, part: str) -> Any:
    config = read_json(folder / "config.json")
    kind = network_class(part, config, str(folder))
    network = make_network(kind, config, str(folder))
    for name, buffer in list(network.named_buffers()):
        # Text encoders alone have one: the places of tokens.
        owner = network.get_submodule(name.rpartition(".")[0])
        owner.position_ids = torch.arange(buffer.shape[-1])[None]
    return network


def _fused(stage: str, networks: Mapping[str, nn.Module]) -> nn.Module:
    graph: nn.Module = _GRAPHS[stage](**networks)
    return graph.eval().requires_grad_(False)


def _load_weights(network: nn.Module, file: Path, dtype: torch.dtype) -> None:
    stored_tensors(file)
    with safe_open(file, "pt") as stored:
        names = {weight_key(f".{name}"): name for name in stored.keys()}  # noqa: SIM118 - no dict
        for name, parameter in list(network.named_parameters()):
            own = names.get(weight_key(f".{name}"))
            if own is None:
                raise ModelError(f"{file} lacks {name}: expected the weights that its config has")
            tensor: Tensor = stored.get_tensor(own)
            if tensor.shape != parameter.shape:
                raise ModelError(
                    f"{file} has {own} of shape {tuple(tensor.shape)}: expected "
                    f"{tuple(parameter.shape)} by its config"
                )
            module, _, last = name.rpartition(".")
            value = nn.Parameter(tensor.to(dtype), requires_grad=False)
            network.get_submodule(module).register_parameter(last, value)
