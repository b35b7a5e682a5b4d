"""Fused torch graphs to ONNX files that keep their weights in the checkpoint.

`giffusion.export.model` calls `export_graph` once a stage. The file holds the graph with the
contract's names and axes; it carries no path of the machine that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import opset18 as opset
from torch import nn

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.tensors import StoredTensor
from giffusion.export.graphs import example_inputs
from giffusion.export.quiet import quiet_tracer
from giffusion.export.stages import weight_key
from giffusion.export.weights import share_weights

MAX_LATENT_SIDE = 1024
_ONNX_TYPES = {"float32": "FLOAT", "int32": "INT32", "uint8": "UINT8"}


def export_graph(
    graph: nn.Module,
    spec: GraphSpec,
    *,
    path: Path,
    weights: Mapping[str, StoredTensor],
    side_multiple: int,
) -> None:
    """Traces a fused graph and writes it as ONNX, its weights left in the checkpoint's files.

    Args:
        graph: one of the modules of `giffusion.export.graphs`, with parameters that need no values
            (`giffusion.export.stages.shapes_of_stage`).
        spec: its contract; the file's inputs and outputs take these names and axes.
        path: file to write, in the folder that contains the weights.
        weights: where the parameters lie, by `giffusion.export.stages.weight_key` of their names.
        side_multiple: latent height and width are multiples of this.

    Raises:
        ModelError: a weight is missing or has another shape.
    """
    inputs = example_inputs(spec, side=2 * side_multiple)
    parameters = {name for name, _ in graph.named_parameters()}
    with torch.no_grad(), quiet_tracer():
        program = torch.onnx.export(
            graph,
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes=_dynamic_shapes(spec, side_multiple),
            input_names=[tensor.name for tensor in spec.inputs],
            output_names=[tensor.name for tensor in spec.outputs],
            optimize=False,
            verbose=False,
            custom_translation_table={torch.ops.aten.div.Tensor_mode: _whole_division},
        )
        assert program is not None
        # Weights without a value are not folded into others that no file has.
        for name in parameters & program.model.graph.initializers.keys():
            program.model.graph.initializers[name].const_value = None
        program.optimize()
    model = program.model
    share_weights(model, weights, path.parent, weight_key)
    _anonymise(model)
    _name_axes(model, spec)
    ir.save(model, path)


def _whole_division(dividend: Any, divisor: Any, rounding_mode: str) -> Any:
    """ONNX's Div, which truncates whole numbers itself; the exporter's own goes through floats."""
    assert rounding_mode == "trunc"
    return opset.Div(dividend, divisor)


def _dynamic_shapes(spec: GraphSpec, side_multiple: int) -> dict[str, dict[int, object]]:
    dims: dict[str, object] = {}
    for name in ("h", "w"):
        base = torch.export.Dim(f"{name}_units", min=1, max=MAX_LATENT_SIDE // side_multiple)
        dims[name] = side_multiple * base if side_multiple > 1 else base
    return {
        tensor.name: {
            position: _dim(axis, dims)
            for position, axis in enumerate(tensor.shape)
            if isinstance(axis, str)
        }
        for tensor in spec.inputs
    }


def _dim(axis: str, dims: dict[str, object]) -> object:
    factor, _, name = axis.rpartition("*")
    dim = dims.setdefault(name, torch.export.Dim(name))
    return int(factor) * dim if factor else dim  # type: ignore[operator]


def _anonymise(model: ir.Model) -> None:
    """Drops what the tracer notes of itself: source paths, stack traces, inferred shapes."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.doc_string = None
    model.graph.doc_string = None
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.shape = None
            value.type = None
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _name_axes(model: ir.Model, spec: GraphSpec) -> None:
    for values, tensors in (
        (model.graph.inputs, spec.inputs),
        (model.graph.outputs, spec.outputs),
    ):
        for value, tensor in zip(values, tensors, strict=True):
            if value.name != tensor.name:
                raise ModelError(
                    f"the {spec.name} graph has {value.name!r}, expected {tensor.name!r}"
                )
            value.shape = ir.Shape(tensor.shape)
            value.type = ir.TensorType(ir.DataType[_ONNX_TYPES[tensor.dtype]])
