"""ONNX Runtime on the CPU, in float32: the runtime that works everywhere."""

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


def _import() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime 'onnxruntime' does not work here: {error}; pip install onnxruntime"
        ) from None
    return onnxruntime


class OnnxRuntime(HostRuntime):
    """Runs graphs with ONNX Runtime's CPU provider.

    Args:
        precision: `fp32`, or None for it.

    Raises:
        RuntimeUnavailableError: the package cannot be imported.
        SettingsError: another precision is asked for.
    """

    name = "onnxruntime"
    precisions = ("fp32",)

    def __init__(self, precision: str | None = None) -> None:
        self._onnxruntime = _import()
        self.version: str = self._onnxruntime.__version__
        if precision not in (None, *self.precisions):
            raise SettingsError(
                f"precision '{precision}' is not available on runtime 'onnxruntime': expected fp32"
            )
        self.precision = "fp32"

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> _OnnxGraph:
        """Loads a graph; see `Runtime.load`."""
        options = self._onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_cores()
        options.log_severity_level = 4
        for axis, size in axes.items():
            options.add_free_dimension_override_by_name(axis, size)
        try:
            session = self._onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise ModelError(
                f"{path} cannot be loaded by ONNX Runtime: {one_line(error)}; export the model "
                "again"
            ) from None
        tensors = (*session.get_inputs(), *session.get_outputs())
        check_tensors(path, spec, axes, {tensor.name: tensor.shape for tensor in tensors})
        return _OnnxGraph(session, spec, axes, feedback)


class _OnnxGraph(HostGraph):
    def __init__(
        self,
        session: Any,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None,
    ) -> None:
        super().__init__(spec, axes, feedback)
        self._session = session
        self._binding = session.io_binding()

    def _execute(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        for bind, buffers in (
            (self._binding.bind_input, inputs),
            (self._binding.bind_output, outputs),
        ):
            for name, array in buffers.items():
                bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(self._binding)
