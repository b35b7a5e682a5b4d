"""Where a UNet's graph turns the timestep into sines and cosines, and how to feed them instead.

`fuse.py` cuts there: the engine computes the sinusoid itself, row by row, so that rows of one batch
are at different timesteps and half precision does not lose them.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from giffusion.engine.errors import ModelError

SINUSOID = "time_proj"
_WAVES = ("Sin", "Cos")
_MOVES = ("Cast", "Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze")
"""What only arranges the waves: halves are put together, swapped, and cast."""


def cut_at_sinusoid(model: ir.Model, path: Path) -> None:
    """Replaces a graph's scalar `timestep` by its sinusoid, `time_proj` (rows, C), in place.

    The waves of SDXL's size ids, which do not come from the timestep, stay.

    Args:
        model: a UNet's graph, with an input `timestep`.
        path: its file, for messages.

    Raises:
        ModelError: the timestep does not become one sinusoid, and nothing else.
    """
    (timestep,) = (value for value in model.graph.inputs if value.name == "timestep")
    ends = _ends(_waves(timestep))
    if len(ends) != 1:
        raise ModelError(
            f"{path} uses its timestep in {len(ends)} places: expected one sinusoid, as in Stable "
            "Diffusion's UNets"
        )
    sinusoid = ir.Value(name=SINUSOID, type=ir.TensorType(ir.DataType.FLOAT))
    for node, index in list(ends[0].uses()):
        if node.op_type not in _MOVES:
            node.replace_input_with(index, sinusoid)
    model.graph.inputs.remove(timestep)
    model.graph.inputs.append(sinusoid)
    RemoveUnusedNodesPass()(model)
    if timestep.uses():
        raise ModelError(f"{path} uses its timestep besides the sinusoid: expected only that")


def _waves(timestep: ir.Value) -> list[ir.Value]:
    """Returns the sines and cosines of what is made of the timestep."""
    found: list[ir.Value] = []
    seen: set[ir.Value] = {timestep}
    waiting = [timestep]
    while waiting:
        for node in waiting.pop().consumers():
            outputs = [value for value in node.outputs if value not in seen]
            seen.update(outputs)
            (found if node.op_type in _WAVES else waiting).extend(outputs)
    return found


def _ends(waves: list[ir.Value]) -> list[ir.Value]:
    """Returns what the waves are arranged into: the values that something else is computed of."""
    seen: set[ir.Value] = set(waves)
    waiting, ends = list(waves), []
    while waiting:
        value = waiting.pop()
        moves = [node for node in value.consumers() if node.op_type in _MOVES]
        if len(moves) < len(value.consumers()):
            ends.append(value)
        for output in (output for node in moves for output in node.outputs):
            if output not in seen:
                seen.add(output)
                waiting.append(output)
    return ends
