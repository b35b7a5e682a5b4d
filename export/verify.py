"""Whether a model's graphs compute what its networks do, on random inputs.

`giffusion models verify` calls it. Each graph is run by ONNX Runtime, or in bfloat16, which that
one does not run, by OpenVINO; its network by torch in float32, with the same weights. The
invariant: a graph that passes reads its weights from the right places, and computes what diffusers
computes up to the rounding of its type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giffusion.engine.contract import LATENT_SCALE, GraphSpec
from giffusion.engine.errors import ModelError
from giffusion.engine.model import Model, load_model
from giffusion.engine.runtimes import open_runtime
from giffusion.export.graphs import example_axes, example_inputs
from giffusion.export.stages import load_stage

_RUNTIMES = {"fp32": "onnxruntime", "fp16": "onnxruntime", "bf16": "openvino"}
BOUNDS = {"fp32": 1e-3, "fp16": 2e-2, "bf16": 1e-1}
"""The largest error that rounding explains, as a share of the output's largest value."""


@dataclass(frozen=True, slots=True)
class Check:
    """How far one output of a graph is from its network's.

    Args:
        graph: the graph file's name without `.onnx`.
        max_error: the largest difference, as a share of the output's largest value; of pictures, in
            levels of 255.
        mean_error: the mean difference, likewise.
        ok: whether rounding explains it.
        detail: the output, the unit, and what is wrong if something is.
    """

    graph: str
    max_error: float
    mean_error: float
    ok: bool
    detail: str


def verify_model(folder: Path, report: Callable[[Check], None]) -> None:
    """Compares every graph of a model with the torch module that it was traced from.

    Args:
        folder: the model's.
        report: called for each output of each graph.

    Raises:
        ModelError: a part of the model is missing, or is not what its config describes.
    """
    model = load_model(folder)
    for stage in model.stages:
        spec = model.spec(stage)
        inputs = example_inputs(spec, side=2 * model.manifest.size_multiple // LATENT_SCALE)
        expected = _by_torch(folder, stage, spec, inputs)
        for dtype in _dtypes(model, stage):
            for check in _compare(model, stage, dtype, inputs, expected):
                report(check)


def _dtypes(model: Model, stage: str) -> list[str]:
    names = (name.partition(".") for name in model.manifest.graphs)
    return [dtype or "fp32" for of, _, dtype in names if of == stage]


def _by_torch(
    folder: Path, stage: str, spec: GraphSpec, inputs: Mapping[str, torch.Tensor]
) -> dict[str, NDArray[Any]]:
    module = load_stage(folder, stage)
    with torch.no_grad():
        results = module(**inputs)
    results = results if isinstance(results, tuple) else (results,)
    return {t.name: r.numpy() for t, r in zip(spec.outputs, results, strict=True)}


def _compare(
    model: Model,
    stage: str,
    dtype: str,
    inputs: Mapping[str, torch.Tensor],
    expected: Mapping[str, NDArray[Any]],
) -> Iterator[Check]:
    path, spec = model.graph_path(stage, dtype), model.spec(stage)
    side = 2 * model.manifest.size_multiple // LATENT_SCALE
    try:
        graph = open_runtime(_RUNTIMES[dtype], "fp32").load(path, spec, example_axes(side))
    except ModelError as error:
        yield Check(path.stem, np.inf, np.inf, False, str(error))
        return
    for name, value in inputs.items():
        graph.write(name, value.numpy())
    graph.run()
    for name, right in expected.items():
        yield _check(path.stem, name, dtype, graph.read(name), right)
    graph.close()


def _check(graph: str, name: str, dtype: str, got: NDArray[Any], right: NDArray[Any]) -> Check:
    difference = np.abs(got.astype(np.float64) - right.astype(np.float64))
    if right.dtype == np.uint8:
        # A value that lies between two levels may be rounded to either.
        largest, mean = float(difference.max()), float(difference.mean())
        bound = max(1.0, 255 * BOUNDS[dtype])
        ok = largest <= bound and mean <= bound / 10
        return Check(graph, largest, mean, bool(ok), f"{name}, in levels of 255")
    peak = float(np.abs(right).max()) or 1.0
    largest, mean = float(difference.max()) / peak, float(difference.mean()) / peak
    return Check(graph, largest, mean, bool(largest <= BOUNDS[dtype]), f"{name}, relative")
