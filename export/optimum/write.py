"""Optimum's graphs written into a model folder, so that its pipelines open it too.

`giffusion export --optimum` calls `write_optimum`. The UNet's and the text encoders' graphs refer
to the safetensors files beside them; the autoencoder, which Optimum keeps in two folders, is there
a second time, since ONNX Runtime refuses weights outside a graph's own folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.manifest import Manifest
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.onnx import MAX_LATENT_SIDE
from giffusion.export.optimum.data_file import DATA_FILE, move_weights
from giffusion.export.optimum.folder import GRAPH_FILE
from giffusion.export.optimum.plain_graphs import PlainGraph, plain_graphs
from giffusion.export.quiet import quiet_tracer
from giffusion.export.stages import stage_parts, stage_weights, weight_key
from giffusion.export.weights import share_weights


def write_optimum(
    folder: Path, manifest: Manifest, *, progress: Callable[[str], None] = print
) -> list[str]:
    """Adds the files that Optimum's ONNX pipelines read to a model folder.

    Args:
        folder: as `giffusion export` writes it, with safetensors weights.
        manifest: its manifest.
        progress: called with a line before each graph.

    Returns:
        The files written, by their paths in the folder.

    Raises:
        ModelError: a part is missing or of a kind that the engine does not render.
    """
    written = []
    for plain in plain_graphs(folder, manifest):
        progress(f"{manifest.name}: tracing {plain.part} for Optimum")
        model = _trace(plain, manifest.size_multiple)
        weights = stage_weights(folder, plain.stage)
        home = folder / plain.part
        if plain.part in WEIGHTS_FILES:
            share_weights(model, weights, home, weight_key)
        else:
            home.mkdir(exist_ok=True)
            share_weights(model, weights, folder, weight_key)
            move_weights(model.graph.initializers.values(), home, DATA_FILE)
            _write_config(folder, plain)
            written += [f"{plain.part}/{name}" for name in (DATA_FILE, "config.json")]
        ir.save(model, home / GRAPH_FILE)
        written.append(f"{plain.part}/{GRAPH_FILE}")
    return written


def _trace(plain: PlainGraph, size_multiple: int) -> ir.Model:
    """Returns a network's graph, its weights without values."""
    parameters = {name for name, _ in plain.module.named_parameters()}
    with torch.no_grad(), quiet_tracer():
        program = torch.onnx.export(
            plain.module,
            kwargs=dict(plain.inputs),
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(plain, size_multiple),
            input_names=list(plain.inputs),
            output_names=list(plain.output_axes),
            optimize=False,
            verbose=False,
        )
        assert program is not None
        for name in parameters & program.model.graph.initializers.keys():
            program.model.graph.initializers[name].const_value = None
        program.optimize()
    ClearMetadataAndDocStringPass()(program.model)
    _name_axes(program.model, plain)
    return program.model


def _dynamic_shapes(plain: PlainGraph, size_multiple: int) -> dict[str, dict[int, object]]:
    dims: dict[str, object] = {}
    return {
        name: {
            position: dims.setdefault(axis, _dim(axis, plain, size_multiple))
            for position, axis in enumerate(axes)
            if isinstance(axis, str)
        }
        for name, axes in plain.input_axes.items()
    }


def _dim(axis: str, plain: PlainGraph, size_multiple: int) -> object:
    if axis == "batch_size":
        return torch.export.Dim(axis)
    if axis == "sequence_length":
        longest = plain.inputs.get("input_ids")
        return torch.export.Dim(axis, max=longest.shape[1] if longest is not None else None)
    # The UNet's latents are whole halves as often as it halves them.
    multiple = {"sample": LATENT_SCALE, "latent": 1}.get(
        axis.partition("_")[0], size_multiple // LATENT_SCALE
    )
    units = torch.export.Dim(f"{axis}_units", min=1, max=MAX_LATENT_SIDE)
    return multiple * units if multiple > 1 else units


def _name_axes(model: ir.Model, plain: PlainGraph) -> None:
    for values, axes in (
        (model.graph.inputs, plain.input_axes),
        (model.graph.outputs, plain.output_axes),
    ):
        for value, (name, shape) in zip(values, axes.items(), strict=True):
            assert value.name == name
            value.shape = ir.Shape(shape)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                # Inferred, with the tracer's names of axes.
                value.shape = value.type = None


def _write_config(folder: Path, plain: PlainGraph) -> None:
    (part,) = stage_parts(folder, plain.stage).values()
    config = read_json(folder / part / "config.json")
    # Pipelines count the halvings by it, also of the tiny autoencoder.
    config.setdefault("block_out_channels", config.get("decoder_block_out_channels"))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / plain.part / "config.json").write_text(text, encoding="utf-8")
