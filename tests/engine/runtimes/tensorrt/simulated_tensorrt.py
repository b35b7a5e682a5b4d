"""TensorRT's runtime half on simulated CUDA: engines and contexts that refuse what TensorRT does.

A plan is JSON that names a stage and its profiles; what it computes is the fake runtime's. Types
and enumerations are those of the real package, and a test compares the methods' names with it.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.runtimes.fake import compute
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda

WEIGHTS_BYTES = 10_000
# The decoder needs the most, as a real one does.
SCRATCH_BYTES = {"text": 500, "denoise": 1000, "decode": 3000, "encode": 3000}
KERNELS = b"kernels compiled for "


def fake_build(
    package: TensorRtPackage,
    graph_path: Path,
    spec: GraphSpec,
    shapes: Sequence[Mapping[str, int]],
    devices: Sequence[str],
    timing_cache: Path | None,
    on_progress: Callable[[str, int, int], None],
) -> memoryview:
    """Stands in for `build_engine`."""
    on_progress(f"building {graph_path.stem}", 100, 100)
    return memoryview(plan_of(spec, shapes))


def plan_of(spec: GraphSpec, shapes: Sequence[Mapping[str, int]]) -> bytes:
    """Returns the plan of a stage with a static profile for each of some sizes."""
    plan = {
        "stage": spec.name,
        "inputs": [[t.name, t.dtype, t.shape] for t in spec.inputs],
        "outputs": [[t.name, t.dtype, t.shape] for t in spec.outputs],
        "profiles": [dict(axes) for axes in shapes],
    }
    return json.dumps(plan).encode()


class SimulatedTensorRt:
    """Makes what `trt` makes, on a simulated device.

    Args:
        cuda: the device.
        name: the runtime whose package it stands in for.
    """

    def __init__(self, cuda: SimulatedCuda, name: str = "tensorrt-rtx") -> None:
        self.cuda = cuda
        self.package = TensorRtPackage("tensorrt-rtx")
        self._real = self.package.trt
        self.package.name = name
        self.package.trt = self
        self.package.logger = SimpleNamespace(errors=[])
        self.is_rtx = name == "tensorrt-rtx"
        self.engines: list[Any] = []
        self.contexts: list[Any] = []
        self.refusals: dict[str, str] = {}
        """By the call that is to fail, what TensorRT says."""
        self.kernels = KERNELS
        """What the device would compile now."""

    def __getattr__(self, name: str) -> Any:
        """The real package's types and enumerations."""
        if not self.is_rtx and name in (
            "CudaGraphStrategy",
            "DynamicShapesKernelSpecializationStrategy",
        ):
            raise AttributeError(name)
        return getattr(self._real, name)

    def refuses(self, call: str) -> bool:
        """Whether a call is to fail; says why, as TensorRT does."""
        if call in self.refusals:
            self.say(self.refusals[call])
            return True
        return False

    def say(self, text: str) -> None:
        """Logs an error."""
        self.package.logger.errors.append(text)

    def Runtime(self, logger: object) -> Runtime:
        """Returns a runtime."""
        assert logger is self.package.logger
        return Runtime(self)


class Runtime:
    """`trt.Runtime`."""

    def __init__(self, trt: SimulatedTensorRt) -> None:
        self._trt = trt

    def deserialize_cuda_engine(self, plan: Any) -> Engine | None:
        if self._trt.refuses("deserialize_cuda_engine"):
            return None
        engine = Engine(self._trt, json.loads(bytes(plan)))
        self._trt.engines.append(weakref.ref(engine))
        return engine


class Engine:
    """`trt.ICudaEngine`: weights on the device for as long as it lives."""

    def __init__(self, trt: SimulatedTensorRt, plan: dict[str, Any]) -> None:
        self._trt = trt
        self.stage: str = plan["stage"]
        self.inputs, self.outputs = (
            tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in plan[side])
            for side in ("inputs", "outputs")
        )
        self._profiles: list[dict[str, int]] = plan["profiles"]
        self._tensors = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}
        weakref.finalize(self, trt.cuda.free, trt.cuda.allocate(WEIGHTS_BYTES))

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        # TensorRT's order is not the file's.
        return sorted(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._trt, self._tensors[name].dtype)

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        is_input = self._tensors[name] in self.inputs
        return modes.INPUT if is_input else modes.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return 3 * [list(self._tensors[name].resolve(self._profiles[profile]))]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        batch = next(iter(self._profiles[profile].values()))
        return SCRATCH_BYTES[self.stage] * batch

    def create_runtime_config(self) -> RuntimeConfig:
        assert self._trt.is_rtx
        return RuntimeConfig(self._trt)

    def create_execution_context(self, config: Any) -> Context | None:
        if self._trt.refuses("create_execution_context"):
            return None
        self._trt.contexts.append(Context(self._trt, self, config))
        context: Context = self._trt.contexts[-1]
        return context


class RuntimeConfig:
    """`trt.IRuntimeConfig`, of TensorRT for RTX alone."""

    def __init__(self, trt: SimulatedTensorRt) -> None:
        self._trt = trt
        self.allocation: Any = None
        self.cuda_graph_strategy: Any = None
        self.dynamic_shapes_kernel_specialization_strategy: Any = None
        self.cache: Any = None

    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache(self._trt)

    def set_runtime_cache(self, cache: Any) -> bool:
        self.cache = cache
        return True


class RuntimeCache:
    """`trt.IRuntimeCache`."""

    def __init__(self, trt: SimulatedTensorRt) -> None:
        self._trt = trt
        self.content = b""

    def deserialize(self, blob: bytes) -> bool:
        if not blob.startswith(KERNELS):
            self._trt.say("the runtime cache is of another environment")
            return False
        self.content = blob
        return True

    def serialize(self) -> memoryview | None:
        return memoryview(self.content) if self.content else None


class Context:
    """`trt.IExecutionContext`, with scratch memory that is given to it."""

    def __init__(self, trt: SimulatedTensorRt, engine: Engine, config: Any) -> None:
        self._trt = trt
        self._cuda = trt.cuda
        self.engine = engine
        self.config = config
        self.profile = 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.num_runs = 0

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        if self._trt.refuses("set_optimization_profile_async"):
            return False
        self._cuda.submit(stream, "profile", lambda: None)
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if list(shape) != self.engine.get_tensor_profile_shape(name, self.profile)[1]:
            self._trt.say(f"{name} of shape {shape} is not in profile {self.profile}")
            return False
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % 256 == 0
        self.addresses[name] = memory
        return True

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        if size < self.engine.get_device_memory_size_for_profile_v2(self.profile):
            self._trt.say(f"{size} bytes of scratch memory do not suffice")
            return
        self.memory = memory, size

    def execute_async_v3(self, stream: int) -> bool:
        missing = {t.name for t in self.engine.inputs} - self.shapes.keys()
        missing |= {t.name for t in (*self.engine.inputs, *self.engine.outputs)}
        if self._trt.refuses("execute_async_v3") or missing - self.addresses.keys():
            return False
        if self.memory is None:
            self._trt.say("no scratch memory was given")
            return False
        if self._cuda.captures(stream) and not self.num_runs:
            self._trt.say("operation not permitted when stream is capturing")
            return False
        if self.config is not None and self._trt.is_rtx and not self.num_runs:
            self.config.cache.content = self._trt.kernels
        self.num_runs += 1
        tensors = [self._place(tensor) for tensor in (*self.engine.inputs, *self.engine.outputs)]
        self._cuda.submit(stream, f"execute {self.engine.stage}", self._run, *tensors, self.memory)
        return True

    def _place(self, tensor: TensorSpec) -> tuple[int, int]:
        num_bytes = prod(self._shape(tensor)) * np.dtype(tensor.dtype).itemsize
        return self.addresses[tensor.name], num_bytes

    def _shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        return tuple(self.engine.get_tensor_profile_shape(tensor.name, self.profile)[1])

    def _run(self) -> None:
        assert self.memory is not None
        # Scratch memory is another context's as well: nothing in it is of any use afterwards.
        self._cuda.view(*self.memory)[:] ^= 0xFF
        inputs, outputs = (
            {tensor.name: self._array(tensor) for tensor in side}
            for side in (self.engine.inputs, self.engine.outputs)
        )
        compute(self.engine.stage, inputs, outputs)

    def _array(self, tensor: TensorSpec) -> Any:
        memory = self._cuda.view(*self._place(tensor))
        return memory.view(tensor.dtype).reshape(self._shape(tensor))
