"""OpenVINO on the CPU: float32, or bfloat16 where the CPU computes in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import (
    ModelError,
    RuntimeUnavailableError,
    SettingsError,
    one_line,
)
from giffusion.engine.runtimes.base import Array, HostGraph, HostRuntime, check_tensors, num_cores

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"FP32": "fp32", "BF16": "bf16", "FP16": "fp16"}


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime 'openvino' does not work here: {error}; pip install openvino"
        ) from None
    return openvino


class OpenVinoRuntime(HostRuntime):
    """Runs graphs with OpenVINO's CPU plugin.

    Args:
        precision: `fp32`, `bf16` or `fp16`, or None for bf16 where the CPU has it, else fp32.

    Raises:
        RuntimeUnavailableError: the package cannot be imported, or finds no CPU plugin.
        SettingsError: the CPU does not compute in the precision that is asked for.
    """

    name = "openvino"

    def __init__(self, precision: str | None = None) -> None:
        self._openvino = _import()
        self.version: str = self._openvino.__version__.split("-")[0]
        try:
            self._core = self._openvino.Core()
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        except RuntimeError as error:
            reason = one_line(str(error).partition("\n")[0])
            raise RuntimeUnavailableError(
                f"runtime 'openvino' does not work here: {reason}"
            ) from None
        self.precisions = tuple(p for name, p in _CAPABILITIES.items() if name in capabilities)
        if precision is None:
            precision = "bf16" if "bf16" in self.precisions else "fp32"
        if precision not in self.precisions:
            raise SettingsError(
                f"precision '{precision}' is not available on runtime 'openvino' on this CPU: "
                f"expected {' or '.join(self.precisions)}"
            )
        self.precision = precision
        # Two streams of half the cores each do more than one of all: their threads wait less.
        self.num_lanes = min(2, num_cores())
        self._compiled: dict[tuple[object, ...], tuple[Any, dict[str, tuple[int, ...]]]] = {}

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> _OpenVinoGraph:
        """Loads a graph; see `Runtime.load`. Graphs of one file and shape share its weights."""
        key = (path, path.stat().st_mtime_ns if path.exists() else None, *sorted(axes.items()))
        try:
            if key not in self._compiled:
                self._compiled[key] = self._compile(path, spec, axes)
            compiled, ports = self._compiled[key]
        except RuntimeError as error:
            raise ModelError(
                f"{path} cannot be loaded by OpenVINO: {one_line(error)}; export the model again"
            ) from None
        check_tensors(path, spec, axes, ports)
        return _OpenVinoGraph(self._openvino, compiled, spec, axes, feedback)

    def _compile(
        self, path: Path, spec: GraphSpec, axes: Mapping[str, int]
    ) -> tuple[Any, dict[str, tuple[int, ...]]]:
        """Returns a compiled model and the shapes of its inputs and outputs, by name."""
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "INFERENCE_NUM_THREADS": num_cores(),
            "NUM_STREAMS": self.num_lanes,
        }
        model = self._core.read_model(os.fspath(path))
        model.reshape({t.name: list(t.resolve(axes)) for t in spec.inputs})
        # Compiled, a port may have taken the name of a tensor that was folded into it.
        ports = {port.any_name: tuple(port.shape) for port in (*model.inputs, *model.outputs)}
        return self._core.compile_model(model, "CPU", settings), ports


class _OpenVinoGraph(HostGraph):
    def __init__(
        self,
        openvino: Any,
        compiled: Any,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
    ) -> None:
        super().__init__(spec, axes, feedback)
        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()

    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        for buffers in (inputs, outputs):
            for name, array in buffers.items():
                self._request.set_tensor(name, self._tensor(array, shared_memory=True))
        self._request.infer()
