"""One of Optimum's graphs, read and checked, in the form that it is fused in.

`fuse.py` calls `load_network` once a part. The invariant: what it returns is float32 ONNX of no
extra domain, without local functions, whose weights lie inside its own folder.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass
from onnxscript import version_converter

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.quiet import quiet_tracer

_AGAIN = "export it again with optimum-cli export onnx"
_IDS = (ir.DataType.INT64, ir.DataType.INT32)
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def load_network(path: Path, inputs: list[str], outputs: list[str]) -> ir.Model:
    """Reads a graph; weights that are files of their own stay there.

    Args:
        path: the `model.onnx`.
        inputs: the inputs that it is to have, in any order.
        outputs: outputs that it is to have, among others.

    Raises:
        ModelError: the graph is malformed, has other inputs or outputs, fixed axes, another type
            than float32, or operators outside ONNX.
    """
    try:
        model = ir.load(path)
        if model.functions:
            InlinePass()(model)
        LiftConstantsToInitializersPass()(model)
    except Exception as error:  # protobuf and onnx_ir raise many kinds for malformed files
        raise ModelError(
            f"{path} cannot be read as ONNX: {one_line(error)[:200]}; {_AGAIN}"
        ) from None
    _check_names(path, model, inputs, outputs)
    _check_types(path, model)
    _check_nodes(path, model)
    _check_weights(path, model)
    return model


def convert_opset(model: ir.Model, opset: int, path: Path) -> None:
    """Converts a graph to a version of ONNX's operators, in place.

    Raises:
        ModelError: an operator has no counterpart in that version.
    """
    if model.opset_imports.get("") == opset:
        return
    try:
        with quiet_tracer():
            version_converter.convert_version(model, opset, fallback=True)
    except Exception as error:  # the converter raises what its adapters stumble on
        raise ModelError(
            f"{path} cannot be converted to operators of version {opset}: "
            f"{one_line(error)[:200]}; {_AGAIN} --opset {opset}"
        ) from None
    if model.opset_imports.get("") != opset:
        raise ModelError(
            f"{path} has operators of version {model.opset_imports.get('')}, which cannot be "
            f"converted to {opset}: {_AGAIN} --opset {opset}"
        )


def _check_names(path: Path, model: ir.Model, inputs: list[str], outputs: list[str]) -> None:
    found = [value.name or "" for value in model.graph.inputs]
    if sorted(found) != sorted(inputs):
        raise ModelError(
            f"{path} takes {_listed(found)}: expected {_listed(inputs)}, as Optimum exports this "
            "kind of model"
        )
    made = {value.name for value in model.graph.outputs}
    missing = [name for name in outputs if name not in made]
    if missing:
        raise ModelError(f"{path} has no output {_listed(missing)}: {_AGAIN}")


def _check_types(path: Path, model: ir.Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        is_ids = value.name in ("input_ids", "timestep")
        if value.dtype != ir.DataType.FLOAT and not (is_ids and value.dtype in _IDS):
            kind = value.dtype.name.lower() if value.dtype else "no type"
            raise ModelError(
                f"{path} has {_listed([value.name or ''])} of {kind}: expected float; {_AGAIN} and "
                "no --dtype, for graphs in fp32"
            )
    for value in model.graph.inputs:
        axes = list(value.shape or ())
        sizes = (axes[0], *axes[2:]) if len(axes) == 4 else axes[:1]
        fixed = [axis for axis in sizes if isinstance(axis, int)]
        if value.name != "timestep" and fixed:
            raise ModelError(
                f"{path} has {_listed([value.name or ''])} with an axis that is always {fixed[0]}: "
                f"expected axes of any size; {_AGAIN} without --no-dynamic-axes"
            )


def _check_nodes(path: Path, model: ir.Model) -> None:
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{path} has operator {one_line(f'{node.domain}.{node.op_type}')[:80]}: expected "
                f"those of ONNX alone; {_AGAIN} without --optimize or quantisation"
            )
        if node.op_type in _RANDOM:
            raise ModelError(
                f"{path} draws random numbers ({node.op_type}), as exports of long ago do: "
                f"expected latent_parameters; {_AGAIN}"
            )


def _check_weights(path: Path, model: ir.Model) -> None:
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                raise ModelError(f"{path} has no values for {one_line(name)[:80]}: {_AGAIN}")
            if isinstance(tensor, ir.ExternalTensor):
                _check_external(path, tensor)


def _check_external(path: Path, tensor: ir.ExternalTensor) -> None:
    """Refuses data outside the graph's folder, and data that its file does not hold."""
    location = Path(tensor.location)
    if location.is_absolute() or len(location.parts) != 1 or location.name in ("", ".."):
        raise ModelError(
            f"{path} has weights in {one_line(str(location))[:120]}: expected a file beside it"
        )
    data = path.parent / location
    if not data.is_file():
        raise ModelError(f"{data} is missing: {path} has its weights there; copy it too")
    begin, length = tensor.offset or 0, tensor.length
    needed = tensor.nbytes
    if begin < 0 or (length is not None and length != needed):
        raise ModelError(f"{path} has {tensor.name} of a wrong length: {_AGAIN}")
    if begin + needed > data.stat().st_size:
        raise ModelError(f"{data} is too short for {tensor.name}: it is incomplete, copy it again")


def _listed(names: list[str]) -> str:
    return ", ".join(one_line(name)[:60] for name in names) or "nothing"
