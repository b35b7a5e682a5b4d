"""Kernels that TensorRT for RTX compiles on the device, kept for the next process.

`graph.py` asks for a context's configuration. The invariant: nothing is compiled while a context
runs under capture: shapes are fixed by profiles, and kernels for them are made at once.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage


class RuntimeCache:
    """What the packages want of an execution context besides the engine.

    Args:
        package: what runs the engine.
        path: file of the compiled kernels; used by TensorRT for RTX alone.
    """

    def __init__(self, package: TensorRtPackage, path: Path) -> None:
        self._package = package
        self._path = path
        self._cache: Any = None
        self._saved = b""

    def configure(self, engine: Any) -> Any:
        """Returns what `create_execution_context` takes so that scratch memory is given to it."""
        trt = self._package.trt
        allocation = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._package.compiles_on_device:
            return allocation
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(allocation)
        # One graph is captured over the whole tick instead.
        config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        # Lazily, kernels would change while ticks run, and with them the last bits of frames.
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._cache = config.create_runtime_cache()
        with suppress(OSError):
            self._saved = self._path.read_bytes()
            # Kernels of another driver or version are refused, and compiled again.
            self._cache.deserialize(self._saved)
        config.set_runtime_cache(self._cache)
        return config

    def save(self) -> None:
        """Keeps what was compiled since the file was read, unless the disk is full."""
        if self._cache is None:
            return
        serialized = self._cache.serialize()
        content = self._saved if serialized is None else bytes(memoryview(serialized))
        if content == self._saved:
            return
        temp = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temp.write_bytes(content)
            os.replace(temp, self._path)
            self._saved = content
