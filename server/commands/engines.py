"""`giffusion engines ls | rm | verify`: the engines on this machine's disk."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from giffusion.engine.errors import (
    DeviceError,
    DeviceMemoryError,
    GiffusionError,
    InputError,
    ModelError,
    RuntimeUnavailableError,
    SettingsError,
)
from giffusion.engine.model import Model, load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.tensorrt.runtime import TensorRtRuntime
from giffusion.engine.runtimes.tensorrt.store import (
    BrokenEngine,
    EngineStore,
    StoredEngine,
)
from giffusion.engine.verification import compare_slots
from giffusion.models import find_model, installed_models
from giffusion.server.reports import describe_engine


def run(options: argparse.Namespace) -> None:
    """Lists, removes or checks engines."""
    store = EngineStore()
    {"ls": _list, "rm": _remove, "verify": _verify}[options.action](store, options)


def _list(store: EngineStore, options: argparse.Namespace) -> None:
    entries = store.entries()
    if options.json:
        print(json.dumps([_facts(entry) for entry in entries]))
        return
    for entry in entries:
        print(entry.reason if isinstance(entry, BrokenEngine) else describe_engine(_facts(entry)))
    total = sum(e.manifest.plan_bytes for e in entries if isinstance(e, StoredEngine))
    print(f"{len(entries)} engines, {total / 2**20:.0f} MiB, in {store.root}")


def _facts(entry: StoredEngine | BrokenEngine) -> dict[str, object]:
    if isinstance(entry, BrokenEngine):
        return {"key": entry.key, "broken": entry.reason}
    return {"key": entry.key, **entry.manifest.to_dict()}


def _remove(store: EngineStore, options: argparse.Namespace) -> None:
    if bool(options.keys) == options.all:
        raise InputError("expected the keys of engines, or --all: give one of both")
    keys = [entry.key for entry in store.entries()] if options.all else options.keys
    store.remove(keys)
    for key in keys:
        print(f"removed {key}")


def _verify(store: EngineStore, options: argparse.Namespace) -> None:
    entries = store.entries()
    if options.keys:
        entries = [store.get(key) for key in options.keys]
    models = [*_opened(installed_models()), *map(load_model, map(find_model, options.model))]
    broken = 0
    for entry in entries:
        try:
            print(f"{entry.key}: {_checked(entry, models)}")
        except DeviceError:
            raise
        except GiffusionError as error:
            broken += 1
            print(error)
    if broken:
        raise InputError(f"{broken} of {len(entries)} engines are broken: see above")


def _opened(folders: Mapping[str, Path]) -> Iterator[Model]:
    """Opens models; what is wrong with others than an engine's own is none of its business."""
    for folder in folders.values():
        with suppress(ModelError):
            yield load_model(folder)


def _checked(entry: StoredEngine | BrokenEngine, models: Sequence[Model]) -> str:
    if isinstance(entry, BrokenEngine):
        raise InputError(entry.reason)
    entry.check()
    made_for = entry.manifest.made_for
    whole = "the plan is the one that was built"
    if made_for.stage != "denoise":
        return whole
    owners = (m for m in models if made_for.digest in _digests(m))
    model = next(owners, None)
    if model is None:
        return f"{whole}; not rendered: give its model, '{made_for.model}', by --model"
    try:
        only = _OneEngine(entry)
        runtime = TensorRtRuntime(made_for.package, made_for.precision, store=only)
        return f"{whole}; {_rendered(entry, model, runtime)}"
    # A GPU of another generation, or one that lacks the precision, says nothing about the engine.
    except (DeviceMemoryError, RuntimeUnavailableError, SettingsError) as error:
        return f"{whole}; not rendered: {error}"


def _digests(model: Model) -> set[str]:
    manifest = model.manifest
    return {manifest.graph_digest(name) for name in manifest.graphs}


def _rendered(entry: StoredEngine, model: Model, runtime: Runtime) -> str:
    made_for = entry.manifest.made_for
    assert made_for.size is not None
    for batch in made_for.batches:
        wrong = compare_slots(model, runtime, size=made_for.size, batch=batch)
        if wrong:
            raise InputError(
                f"engine {entry.key} at batch {batch}: slots {', '.join(map(str, wrong))} render "
                f"another frame than slot 0 alone; build it again"
            )
    return "every slot renders the same frame"


class _OneEngine(EngineStore):
    """A store in which an engine is the only one of its stage, so that no other is verified.

    Args:
        engine: the one.
    """

    def __init__(self, engine: StoredEngine) -> None:
        super().__init__(engine.folder.parent)
        self._engine = engine

    def engines(self) -> list[StoredEngine]:
        stage = self._engine.manifest.made_for.stage
        others = [e for e in super().engines() if e.manifest.made_for.stage != stage]
        return [*others, self._engine]
