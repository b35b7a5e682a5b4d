"""The torch runtime: the modules that the other runtimes' graphs are traced from, run by torch.

Registered as the entry point `torch`, so that the engine opens it without importing torch. On the
CPU it is what other runtimes are compared with; on CUDA it is the way to render on a GPU without
TensorRT. It reads the diffusers folder around a graph's file, never the file. The invariant:
float32 is float32 everywhere, no TF32, so that a sampler's state is exact on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError
from torch import nn

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError, SettingsError, one_line
from giffusion.engine.model import Model
from giffusion.engine.runtimes.base import Graph, OnPrepare, num_cores
from giffusion.engine.settings import GPU_BATCHES, GPU_DECODE_BATCHES
from giffusion.export.torch_runtime.device import CudaDevice, device_errors, is_cuda_there
from giffusion.export.torch_runtime.graph import CudaTorchGraph
from giffusion.export.torch_runtime.host import HostTorchGraph, check_stage

PRECISIONS = {"cpu": ("fp32", "bf16"), "cuda": ("fp16", "bf16", "fp32")}
"""What a kind of device computes in, its default first."""
EXACT_STAGES = ("text", "encode", "control")
"""Stages that compute in fp32 whatever the precision: they run seldom, and whole videos begin with
what they make."""

LoadStage = Callable[[Path, str, str], nn.Module]


class TorchRuntime:
    """Runs the fused modules with torch, on the first CUDA device if there is one; see `Runtime`.

    Args:
        precision: what the UNet and the decoder compute in, one of `PRECISIONS`; None for the
            device's default. Texts and pictures are encoded in fp32 always.
        cuda_graphs: capture the work of a run and replay it; False launches it kernel by kernel.
        load_stage: loads a stage of a model folder at a precision, as
            `giffusion.export.stages.load_stage` does, which is the default.

    Raises:
        SettingsError: the device does not compute in that precision.
        RuntimeUnavailableError: there is a GPU, and its driver does not work with torch.
    """

    name = "torch"
    version: str = torch.__version__
    num_lanes = 1
    graph_dtype = "fp32"

    def __init__(
        self,
        precision: str | None = None,
        *,
        cuda_graphs: bool = True,
        load_stage: LoadStage | None = None,
    ) -> None:
        self.device = torch.device("cuda" if is_cuda_there() else "cpu")
        allowed = PRECISIONS[self.device.type]
        if precision not in (None, *allowed):
            where = "a GPU" if self.device.type == "cuda" else "the CPU, and no GPU is found here"
            raise SettingsError(
                f"precision '{precision}' is not available on runtime 'torch' on {where}: "
                f"expected {' or '.join(allowed)}"
            )
        self.precision = precision or allowed[0]
        on_gpu = self.device.type == "cuda"
        self.decode_batch = max(GPU_DECODE_BATCHES) if on_gpu else 1
        self.on_device = on_gpu and _has_cuda_python()
        self._cuda_graphs = cuda_graphs
        self._load_stage = load_stage or _load_stage
        # While a graph uses a module, others share it; the weights go with the last of them.
        self._modules: WeakValueDictionary[tuple[object, ...], nn.Module] = WeakValueDictionary()
        _make_exact()
        if self.device.type == "cpu":
            torch.set_num_threads(num_cores())

    @property
    def numerics(self) -> dict[str, Any]:
        """What results depend on besides graphs and shapes."""
        return {
            "runtime": self.name,
            "runtime_version": self.version,
            "precision": self.precision,
            "device": self._device_name,
            "decode_batch": self.decode_batch,
        }

    def smaller(self, batch: int) -> tuple[int, ...]:
        """Returns the batches below one that denoise graphs can be resized to, ascending."""
        if self.device.type == "cpu":
            return ()
        return tuple(bucket for bucket in GPU_BATCHES if bucket < batch)

    def prepare(
        self, model: Model, *, size: tuple[int, int], batch: int, on_progress: OnPrepare
    ) -> None:
        """Does nothing: a module needs no build, and its graph is captured as it is loaded."""

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> Graph:
        """Loads a stage from the folder that holds `path`; see `Runtime.load`.

        Raises:
            ModelError: the folder does not hold the stage that the contract describes.
            DeviceMemoryError: it does not fit into the GPU's memory.
        """
        if self.device.type == "cpu":
            return HostTorchGraph(self._module(path, spec), spec, axes, feedback)
        with device_errors(f"loading the {spec.name} stage"):
            module = self._module(path, spec)
            return CudaTorchGraph(self._cuda, module, spec, axes, feedback)

    def _module(self, path: Path, spec: GraphSpec) -> nn.Module:
        dtype = "fp32" if spec.name in EXACT_STAGES else self.precision
        # A folder that was exported again since holds other weights.
        written = path.stat().st_mtime_ns if path.exists() else None
        key = (path.parent.resolve(), spec.name, dtype, written)
        module = self._modules.get(key)
        if module is None:
            module = self._load(path.parent, spec.name, dtype)
            check_stage(path.parent, module, spec)
            self._modules[key] = module
        return module

    def _load(self, folder: Path, stage: str, dtype: str) -> nn.Module:
        try:
            module = self._load_stage(folder, stage, dtype)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the {stage} stage of {folder} cannot be loaded by torch: {one_line(error)}; "
                "export the model again"
            ) from None
        module = module.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cuda" and stage != "text":
            # The tensor cores' own layout: without it every convolution is transposed twice.
            module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return module

    @cached_property
    def _cuda(self) -> CudaDevice:
        return CudaDevice(cuda_graphs=self._cuda_graphs)

    @cached_property
    def _device_name(self) -> str:
        if self.device.type == "cpu":
            return "cpu"
        with device_errors("its name is read"):
            return torch.cuda.get_device_name()


def _has_cuda_python() -> bool:
    """Whether encoders that read frames on the device can find its context."""
    # Torch brings other packages below the same name.
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None


def _make_exact() -> None:
    """Rules TF32 out and makes the choice of kernels repeatable, for the whole process."""
    # Not by `fp32_precision`: torch's compiler refuses to run in a process that has used both.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    # Tried kernels would be chosen by a timing: two runs, or a run that is resumed, could differ.
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _load_stage(folder: Path, stage: str, dtype: str) -> nn.Module:
    # Imported here because it takes seconds, and opening a runtime says only whether it works.
    from giffusion.export.stages import load_stage, stage_parts, weights_file

    try:
        for part in stage_parts(folder, stage).values():
            weights_file(folder, part)
    except ModelError as error:
        raise ModelError(
            f"{error}, of which runtime 'torch' makes the {stage} stage: choose runtime "
            "'onnxruntime' for a model of graphs alone, as Optimum's are"
        ) from None
    return load_stage(folder, stage, dtype)
