"""TensorRT, in either package, as a runtime: engines from the store, run as CUDA graphs.

Opened by name through `giffusion.engine.runtimes`. The invariant: a graph runs on the engine that
was built from its file, for this device and by this version, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from giffusion.engine.contract import LATENT_SCALE, GraphSpec
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.manifest import MANIFEST, Manifest
from giffusion.engine.model import CONTROL, Model, graph_path
from giffusion.engine.runtimes.base import OnPrepare
from giffusion.engine.runtimes.cuda.bindings import open_cuda
from giffusion.engine.runtimes.cuda.graph import DeviceGraph
from giffusion.engine.runtimes.cuda.protocol import Cuda
from giffusion.engine.runtimes.cuda.resources import Stream
from giffusion.engine.runtimes.tensorrt.arena import Arena
from giffusion.engine.runtimes.tensorrt.cache import RuntimeCache
from giffusion.engine.runtimes.tensorrt.graph import LoadedEngine
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.engine.runtimes.tensorrt.prepare import Target, ensure_engines
from giffusion.engine.runtimes.tensorrt.store import EngineStore, StoredEngine
from giffusion.engine.settings import GPU_BATCHES, GPU_DECODE_BATCHES

PRECISIONS = ("fp16", "bf16", "fp32")
RENDER_STAGES = ("text", "denoise", "decode", CONTROL)
"""The stages that a render needs, of those that a model has; pictures are seldom encoded."""
_BATCH_AXES = {"text": "prompts", "denoise": "rows"}
"""The axis of a stage's batch, of the others `images`."""


class TensorRtRuntime:
    """Runs graphs as TensorRT engines on the first CUDA device; see `Runtime`.

    Args:
        name: `tensorrt` or `tensorrt-rtx`.
        precision: which of a model's graphs are run, one of `PRECISIONS`; None for fp16.
        cuda_graphs: capture the work of a run and replay it; False launches it kernel by kernel.
        store: where engines are kept; the user's if None.
        open_package: imports the package.
        open_device: opens the device.

    Raises:
        SettingsError: the precision is unknown, or the device does not compute in it.
        RuntimeUnavailableError: the package, the driver or a device is missing, or the package
            does not run on that device.
    """

    num_lanes = 1
    decode_batch = max(GPU_DECODE_BATCHES)
    on_device = True

    def __init__(
        self,
        name: str,
        precision: str | None = None,
        *,
        cuda_graphs: bool = True,
        store: EngineStore | None = None,
        open_package: Callable[[str], TensorRtPackage] = TensorRtPackage,
        open_device: Callable[[], Cuda] = open_cuda,
    ) -> None:
        if precision not in (None, *PRECISIONS):
            raise SettingsError(
                f"precision '{precision}' is not available on runtime '{name}': expected "
                f"{' or '.join(PRECISIONS)}"
            )
        self.name = name
        self.precision = self.graph_dtype = precision or PRECISIONS[0]
        self._package = open_package(name)
        self.version: str = self._package.version
        self._cuda = open_device()
        self.device = self._cuda.compute_capability
        self._package.check_gpu(self.device)
        self._package.check_precision(self.precision, [self.device])
        self._store = store or EngineStore()
        self._cuda_graphs = cuda_graphs
        self._lines: dict[bool, tuple[Stream, Arena]] = {}
        self._loaded: WeakValueDictionary[str, LoadedEngine] = WeakValueDictionary()
        self._used: dict[str, StoredEngine] = {}

    @property
    def numerics(self) -> dict[str, Any]:
        """What results depend on besides graphs and shapes, once the graphs are loaded."""
        return {
            "runtime": self.name,
            "runtime_version": self.version,
            "precision": self.precision,
            "device": self._cuda.device_name,
            "decode_batch": self.decode_batch,
            "engines": {
                stage: stored.manifest.plan_sha256[:16]
                for stage, stored in sorted(self._used.items())
            },
        }

    def smaller(self, batch: int) -> tuple[int, ...]:
        """Returns the batches below one that the loaded denoise engine has profiles for."""
        used = self._used.get("denoise")
        batches = GPU_BATCHES if used is None else used.manifest.made_for.batches
        return tuple(rows for rows in batches if rows < batch)

    def prepare(
        self, model: Model, *, size: tuple[int, int], batch: int, on_progress: OnPrepare
    ) -> None:
        """Builds the engines of a model that are missing for this device; takes minutes.

        Raises:
            EngineMissingError: the batch is none of `GPU_BATCHES`, and no engine has it.
            ModelError: a graph cannot be built.
            EngineStoreError: the store cannot be written.
        """
        target = self._target(size)
        stages = [stage for stage in RENDER_STAGES if stage in model.stages]
        request = self._target(size, (batch,)).request(model.manifest, "denoise")
        if self._store.find(request) is not None:
            stages.remove("denoise")
        elif batch not in target.batches:
            wider = self._target(size, tuple(sorted({*GPU_BATCHES, batch})))
            raise self._store.missing(request, wider.command(model.folder))
        ensure_engines(target, self._store, model, stages=stages, on_progress=on_progress)

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> DeviceGraph:
        """Loads the engine of a graph; see `Runtime.load`.

        Raises:
            EngineMissingError: the store has none; nothing else is taken instead.
            EngineStoreError: its plan is not the one that was built, or does not load.
            DeviceMemoryError: it does not fit into the device's memory.
            ModelError: the file is not the graph of this runtime's precision.
        """
        stored = self._stored(path, spec.name, axes)
        engine = self._loaded.get(stored.key)
        if engine is None:
            engine = LoadedEngine(self._package, stored, spec, self._cache(stored))
            self._loaded[stored.key] = engine
        self._used[spec.name] = stored
        # The engine's worker thread runs the text graph while its own runs the others.
        stream, arena = self._line(aside=spec.name == "text")
        return DeviceGraph(
            stream,
            spec,
            axes,
            feedback,
            partial(engine.open, stream=stream, arena=arena),
            cuda_graphs=self._cuda_graphs,
        )

    def _stored(self, path: Path, stage: str, axes: Mapping[str, int]) -> StoredEngine:
        # Engines are found by stage and precision: another file would be taken for this one.
        expected = graph_path(path.parent, stage, self.precision)
        if path != expected:
            raise ModelError(
                f"{path} is not what runtime '{self.name}' runs in {self.precision}: expected "
                f"{expected}"
            )
        manifest = Manifest.read(path.parent / MANIFEST)
        size = manifest.size
        if "h" in axes:
            size = (axes["w"] * LATENT_SCALE, axes["h"] * LATENT_SCALE)
        batch = axes[_BATCH_AXES.get(stage, "images")]
        request = self._target(size, (batch,), (batch,)).request(manifest, stage)
        found = self._store.find(request)
        if found is None:
            batches = (batch,) if stage == "denoise" else GPU_BATCHES
            raise self._store.missing(request, self._target(size, batches).command(path.parent))
        return found

    def _target(
        self,
        size: tuple[int, int],
        batches: tuple[int, ...] = GPU_BATCHES,
        decode_batches: tuple[int, ...] = GPU_DECODE_BATCHES,
    ) -> Target:
        return Target(self._package, self.precision, size, (self.device,), batches, decode_batches)

    def _cache(self, stored: StoredEngine) -> RuntimeCache:
        return RuntimeCache(self._package, self._store.kernel_cache(stored.key, self.device))

    def _line(self, *, aside: bool) -> tuple[Stream, Arena]:
        if aside not in self._lines:
            self._lines[aside] = Stream(self._cuda), Arena(self._cuda)
        return self._lines[aside]


def tensorrt(precision: str | None = None) -> TensorRtRuntime:
    """Opens NVIDIA's `tensorrt`."""
    return TensorRtRuntime("tensorrt", precision)


def tensorrt_rtx(precision: str | None = None) -> TensorRtRuntime:
    """Opens NVIDIA's `tensorrt_rtx`."""
    return TensorRtRuntime("tensorrt-rtx", precision)
