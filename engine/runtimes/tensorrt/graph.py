"""A stored engine on the device: its weights once, and an execution context for each profile.

`runtime.py` opens engines and gives their contexts to `DeviceGraph`. The invariant: contexts that
share a stream share their scratch memory, and no context is captured before it has run once.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from typing import Any

from giffusion.engine.contract import GraphSpec, TensorSpec
from giffusion.engine.errors import DeviceMemoryError, ModelError
from giffusion.engine.runtimes.cuda import Cuda, device_error
from giffusion.engine.runtimes.resources import DeviceMemory, Resource, Stream
from giffusion.engine.runtimes.tensorrt.cache import RuntimeCache
from giffusion.engine.runtimes.tensorrt.manifest import EngineStoreError
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.engine.runtimes.tensorrt.store import StoredEngine


class Arena(Resource):
    """Scratch memory of the contexts that run on one stream, one after the other.

    Contexts keep the block that they were given, since captured graphs hold its address. So the
    context that needs most is best opened first.
    """

    def __init__(self, cuda: Cuda) -> None:
        super().__init__(cuda)
        self._blocks: list[DeviceMemory] = []

    def block(self, num_bytes: int) -> DeviceMemory:
        """Returns a block of at least a size.

        Raises:
            DeviceMemoryError: there is no room for another.
        """
        fitting = (block for block in self._blocks if block.num_bytes >= num_bytes)
        if (found := next(fitting, None)) is not None:
            return found
        self._blocks.append(DeviceMemory(self.cuda, num_bytes))
        return self._blocks[-1]

    def _free(self) -> None:
        for block in self._blocks:
            block.close()


class LoadedEngine:
    """A plan on the device.

    Args:
        package: what runs it.
        stored: the engine; its plan's hash is checked.
        spec: the contract of its graph.
        cache: what the package keeps of kernels that it compiled on this device.

    Raises:
        EngineStoreError: the plan is not the one that was built, or does not load here.
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
            raise EngineStoreError(
                f"engine {stored.key} cannot be loaded by {package.name} {package.version}: "
                f"{package.first_error()}"
            )
        self._check()
        self._kernels = cache
        self._config = cache.configure(self._engine)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the plan."""
        return self.stored.manifest.plan_sha256[:16]

    def open(self, axes: Mapping[str, int], stream: Stream, arena: Arena) -> TensorRtExecutor:
        """Returns a context for sizes of the named axes.

        Raises:
            EngineStoreError: the engine has no profile for them.
            DeviceMemoryError: the device has no room for its scratch memory.
        """
        profile = self._profile(axes)
        self._package.clear_errors()
        context = self._engine.create_execution_context(self._config)
        if context is None:
            raise DeviceMemoryError(
                f"no context for engine {self.stored.key}: {self._package.first_error()}; lower "
                "--batch or --size"
            )
        num_bytes = self._engine.get_device_memory_size_for_profile_v2(profile)
        if num_bytes:
            context.set_device_memory(arena.block(num_bytes).address, num_bytes)
        return TensorRtExecutor(self, context, profile, stream)

    def keep_kernels(self) -> None:
        """Keeps what was compiled on this device for the next process."""
        self._kernels.save()

    def failure(self, action: str) -> Exception:
        """Returns the error of something that TensorRT refused while it ran."""
        return device_error(action, self._package.first_error())

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

    def __init__(self, engine: LoadedEngine, context: Any, profile: int, stream: Stream) -> None:
        self._engine = engine
        self._context = context
        self._profile = profile
        self._stream = stream

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> None:
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
        self._check(self._context.execute_async_v3(stream), "running the engine")

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            self._engine.keep_kernels()

    def _check(self, done: bool, action: str) -> None:
        if not done:
            raise self._engine.failure(action)
