"""From a model to the engines that render it: which are wanted, and the building of what lacks.

Called by `giffusion build` ahead of time and by the runtime before a render. The invariant: what is
returned is in the store, whole, and of this package's version.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from giffusion.engine.manifest import Manifest
from giffusion.engine.model import Model, graph_path, latent_size
from giffusion.engine.runtimes.base import OnPrepare
from giffusion.engine.runtimes.tensorrt.build import OPTIONS, build_engine
from giffusion.engine.runtimes.tensorrt.manifest import EngineRequest
from giffusion.engine.runtimes.tensorrt.monitor import TOTAL
from giffusion.engine.runtimes.tensorrt.package import CURRENT, TensorRtPackage
from giffusion.engine.runtimes.tensorrt.store import EngineStore, StoredEngine
from giffusion.engine.settings import GPU_BATCHES, GPU_DECODE_BATCHES

OnEngine = Callable[[StoredEngine, bool], None]
"""Told of each engine, and whether it was built now."""


@dataclass(frozen=True, slots=True)
class Target:
    """What engines are for, besides the model.

    Args:
        package: builds and runs them.
        precision: `fp32`, `fp16` or `bf16`.
        size: (width, height) in pixels.
        devices: architectures such as `sm89`.
        batches: rows of the denoise graph.
        decode_batches: pictures of the decode and the encode graph.
    """

    package: TensorRtPackage
    precision: str
    size: tuple[int, int]
    devices: tuple[str, ...]
    batches: tuple[int, ...] = GPU_BATCHES
    decode_batches: tuple[int, ...] = GPU_DECODE_BATCHES

    def request(self, manifest: Manifest, stage: str) -> EngineRequest:
        """Returns the engine that a stage of a model needs, by the model's manifest."""
        graph = graph_path(Path(), stage, self.precision).stem
        return EngineRequest(
            stage=stage,
            model=manifest.name,
            digest=manifest.graph_digest(graph),
            package=self.package.name,
            version=self.package.version,
            devices=tuple(sorted(self.devices, key=lambda device: (len(device), device))),
            precision=self.precision,
            size=None if stage == "text" else self.size,
            batches=tuple(sorted(self._batches(stage))),
            options=OPTIONS,
        )

    def shapes(self, stage: str) -> list[Mapping[str, int]]:
        """Returns the sizes of a stage's named axes, once for each profile."""
        if stage == "text":
            return [{"prompts": batch} for batch in self._batches(stage)]
        height, width = latent_size(self.size)
        names = ("slots", "rows") if stage == "denoise" else ("images",)
        return [
            {**dict.fromkeys(names, batch), "h": height, "w": width}
            for batch in sorted(self._batches(stage))
        ]

    def command(self, folder: Path) -> str:
        """Returns the command line that makes these engines for the model in a folder."""
        width, height = self.size
        # What cannot be named can be built for where it is.
        named = set(self.devices) <= set(self.package.devices)
        return (
            f"giffusion build {shlex.quote(str(folder))} --runtime {self.package.name} "
            f"--device {','.join(self.devices) if named else CURRENT} --size {width}x{height} "
            f"--batch {','.join(map(str, self.batches))} --precision {self.precision}"
        )

    def _batches(self, stage: str) -> tuple[int, ...]:
        pictures = dict.fromkeys(("decode", "encode"), self.decode_batches)
        return {"denoise": self.batches, **pictures}.get(stage, (1,))


def ensure_engines(
    target: Target,
    store: EngineStore,
    model: Model,
    *,
    stages: Collection[str] | None = None,
    on_progress: OnPrepare,
    on_engine: OnEngine | None = None,
) -> dict[str, StoredEngine]:
    """Builds the engines of a model that the store lacks, and returns all of them by stage.

    Args:
        target: what they are for.
        store: where they are kept.
        model: whose graphs they are built from.
        stages: those that are wanted; all of them if None.
        on_progress: told of each build.
        on_engine: told of each engine that is there.

    Raises:
        RuntimeUnavailableError: a device is one that the package does not run on.
        SettingsError: a device does not compute in the precision.
        ModelError: a graph cannot be built.
        EngineStoreError: the store cannot be written.
    """
    for device in target.devices:
        target.package.check_gpu(device)
    target.package.check_precision(target.precision, target.devices)
    stages = model.stages if stages is None else stages
    for stage in stages:
        model.graph_path(stage, target.precision)
    requests = {stage: target.request(model.manifest, stage) for stage in stages}
    engines = {}
    for stage, request in requests.items():
        engines[stage], built = store.make(
            request,
            _builder(target, store, model, stage, on_progress),
            partial(on_progress, f"waiting for another process that builds {stage}", 0, TOTAL),
        )
        if on_engine is not None:
            on_engine(engines[stage], built)
    return engines


def _builder(
    target: Target, store: EngineStore, model: Model, stage: str, on_progress: OnPrepare
) -> Callable[[], memoryview]:
    def build() -> memoryview:
        package = target.package
        return build_engine(
            package,
            model.graph_path(stage, target.precision),
            model.spec(stage),
            target.shapes(stage),
            target.devices,
            store.timing_cache(package.name, package.version, "-".join(target.devices)),
            on_progress,
        )

    return build
