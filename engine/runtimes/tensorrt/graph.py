"""A stored engine on the device: its weights once, and an execution context for each profile.

`runtime.py` opens engines and gives their contexts to `DeviceGraph`. The invariant: only tensors of
the contract's names, types and directions are bound, and whatever TensorRT refuses raises what it
said.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from typing import Any

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import DeviceError, DeviceMemoryError, ModelError
from giffusion.engine.runtimes.cuda.protocol import device_error
from giffusion.engine.runtimes.cuda.resources import Stream
from giffusion.engine.runtimes.tensorrt.arena import Arena, Scratch
from giffusion.engine.runtimes.tensorrt.cache import RuntimeCache
from giffusion.engine.runtimes.tensorrt.manifest import EngineStoreError
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.engine.runtimes.tensorrt.store import StoredEngine

# TensorRT's words where memory does not suffice; its calls return nothing else.
_OUT_OF_MEMORY = re.compile(r"out ?of ?memory|could not be allocated", re.IGNORECASE)


class LoadedEngine:
    """A plan on the device.

    Args:
        package: what runs it.
        stored: the engine; its plan's hash is checked.
        spec: the contract of its graph.
        cache: what the package keeps of kernels that it compiled on this device.

    Raises:
        EngineStoreError: the plan is not the one that was built, or does not load here.
        DeviceMemoryError: the device has no room for its weights.
        ModelError: its tensors are not the contract's.
    """

    def __init__(
        self, package: TensorRtPackage, stored: StoredEngine, spec: GraphSpec, cache: RuntimeCache
    ) -> None:
        stored.check()
        self.stored = stored
        self._package = package
        self._spec = spec
        package.clear_errors()
        self._runtime = package.trt.Runtime(package.logger)
        with (
            stored.plan_path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan,
        ):
            self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            failure = self.failure("loading the engine")
            if isinstance(failure, DeviceMemoryError):
                raise failure
            raise EngineStoreError(
                f"engine {stored.key} cannot be loaded by {package.name} {package.version}: "
                f"{package.first_error()}"
            )
        self._check()
        self._kernels = cache
        self._config = cache.configure(self._engine)

    def open(self, axes: Mapping[str, int], stream: Stream, arena: Arena) -> TensorRtExecutor:
        """Returns a context for sizes of the named axes.

        Raises:
            EngineStoreError: the engine has no profile for them.
            DeviceMemoryError: the device has no room for its scratch memory.
        """
        profile = self._profile(axes)
        num_bytes = self._engine.get_device_memory_size_for_profile_v2(profile)
        scratch = arena.share(num_bytes) if num_bytes else None
        self._package.clear_errors()
        context = self._engine.create_execution_context(self._config)
        if context is None:
            error = self.failure("opening a context")
            if scratch is not None:
                scratch.close()
            raise error
        return TensorRtExecutor(self, context, profile, stream, scratch, num_bytes)

    def expect(self) -> None:
        """Forgets what TensorRT said so far: called before what `failure` may explain."""
        self._package.clear_errors()

    def keep_kernels(self) -> None:
        """Keeps what was compiled on this device for the next process."""
        self._kernels.save()

    def failure(self, action: str) -> DeviceError:
        """Returns the error of something that TensorRT refused, in its own words."""
        name, reason = self._package.name, self._package.first_error()
        if any(_OUT_OF_MEMORY.search(text) for text in self._package.logger.errors):
            return DeviceMemoryError(
                f"the device's memory is used up while {action} with {name}: {reason}; lower "
                "--batch or --size"
            )
        return device_error(f"{action} with {name}", reason)

    def is_input(self, name: str) -> bool:
        """Whether a tensor is one of the graph's inputs."""
        return any(tensor.name == name for tensor in self._spec.inputs)

    def _profile(self, axes: Mapping[str, int]) -> int:
        first = self._spec.inputs[0]
        wanted = first.resolve(axes)
        for index in range(self._engine.num_optimization_profiles):
            _, best, _ = self._engine.get_tensor_profile_shape(first.name, index)
            if tuple(best) == wanted:
                return index
        raise EngineStoreError(
            f"engine {self.stored.key} has no profile for {first.name} of shape {wanted}: "
            "build it again"
        )

    def _check(self) -> None:
        engine, trt = self._engine, self._package.trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        tensors = (*self._spec.inputs, *self._spec.outputs)
        if sorted(names) != sorted(tensor.name for tensor in tensors):
            expected = ", ".join(tensor.name for tensor in tensors)
            raise ModelError(
                f"engine {self.stored.key} has the tensors {', '.join(names)}: expected {expected}"
            )
        for tensor in tensors:
            mode = trt.TensorIOMode.INPUT if self.is_input(tensor.name) else trt.TensorIOMode.OUTPUT
            self._check_tensor(tensor, mode)

    def _check_tensor(self, tensor: TensorSpec, mode: Any) -> None:
        engine = self._engine
        found = engine.get_tensor_dtype(tensor.name), engine.get_tensor_mode(tensor.name)
        expected = getattr(self._package.trt, tensor.dtype), mode
        if found != expected:
            raise ModelError(
                f"engine {self.stored.key} has {tensor.name!r} as {found[1].name} {found[0].name}: "
                f"expected {expected[1].name} {expected[0].name}"
            )


class TensorRtExecutor:
    """A context of an engine at one profile; an `Executor` of `DeviceGraph`."""

    def __init__(
        self,
        engine: LoadedEngine,
        context: Any,
        profile: int,
        stream: Stream,
        scratch: Scratch | None,
        scratch_bytes: int,
    ) -> None:
        self._engine = engine
        self._context = context
        self._profile = profile
        self._stream = stream
        self._scratch = scratch
        self._scratch_bytes = scratch_bytes
        self._has_scratch = False

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._engine.expect()
        # Queued on the stream that the context runs on, so nothing overtakes the switch.
        self._check(
            self._context.set_optimization_profile_async(self._profile, self._stream.handle),
            f"choosing profile {self._profile}",
        )
        for name, address in addresses.items():
            if self._engine.is_input(name):
                self._check(self._context.set_input_shape(name, shapes[name]), f"shaping {name}")
            self._check(self._context.set_tensor_address(name, address), f"placing {name}")

    def enqueue(self, stream: int) -> None:
        self._engine.expect()
        if self._scratch is not None and not self._has_scratch:
            # Not before the first run: until then, contexts that need more may move the memory.
            self._context.set_device_memory(self._scratch.address, self._scratch_bytes)
            self._has_scratch = True
        self._check(self._context.execute_async_v3(stream), "running the engine")

    def close(self) -> None:
        if self._context is None:
            return
        self._context = None
        if self._scratch is not None:
            self._scratch.close()
        self._engine.keep_kernels()

    def _check(self, done: bool, action: str) -> None:
        if not done:
            raise self._engine.failure(action)
