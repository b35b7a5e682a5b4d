"""From a model to its engines: what is asked for, and what is built, with the builder replaced."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError, RuntimeUnavailableError, SettingsError
from giffusion.engine.model import GRAPHS, Model
from giffusion.engine.runtimes.tensorrt import prepare
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.engine.runtimes.tensorrt.prepare import Target, ensure_engines
from giffusion.engine.runtimes.tensorrt.store import EngineStore


@dataclass
class Builder:
    """Notes what it is asked to build, and makes plans that say what they are of."""

    built: list[tuple[str, tuple[dict[str, int], ...], tuple[str, ...]]] = field(
        default_factory=list
    )

    def __call__(
        self,
        package: TensorRtPackage,
        graph_path: Path,
        spec: GraphSpec,
        shapes: Sequence[Mapping[str, int]],
        devices: Sequence[str],
        timing_cache: Path | None,
        on_progress: Callable[[str, int, int], None],
    ) -> memoryview:
        self.built.append((graph_path.name, tuple(map(dict, shapes)), tuple(devices)))
        on_progress(spec.name, 100, 100)
        return memoryview(graph_path.name.encode())


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    made = Builder()
    monkeypatch.setattr(prepare, "build_engine", made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path)


@pytest.fixture(scope="module")
def target() -> Target:
    package = TensorRtPackage("tensorrt-rtx")
    return Target(package, "fp16", (128, 64), ("sm120", "sm89"), (2, 8), (1, 4))


def ignore(label: str, done: int, total: int) -> None:
    """Nobody watches."""


def test_every_stage_gets_its_graph_and_its_profiles(
    mini: Model, target: Target, store: EngineStore, builder: Builder
) -> None:
    told: list[tuple[str, bool]] = []
    engines = ensure_engines(
        target,
        store,
        mini,
        on_progress=ignore,
        on_engine=lambda engine, built: told.append((engine.manifest.made_for.stage, built)),
    )
    size = {"h": 8, "w": 16}
    devices = ("sm120", "sm89")
    assert builder.built == [
        ("text.fp16.onnx", ({"prompts": 1},), devices),
        (
            "denoise.fp16.onnx",
            ({"slots": 2, "rows": 2, **size}, {"slots": 8, "rows": 8, **size}),
            devices,
        ),
        ("decode.fp16.onnx", ({"images": 1, **size}, {"images": 4, **size}), devices),
        ("encode.fp16.onnx", ({"images": 1, **size}, {"images": 4, **size}), devices),
    ]
    assert told == [(stage, True) for stage in GRAPHS]
    made_for = engines["denoise"].manifest.made_for
    assert made_for.devices == ("sm89", "sm120")
    assert made_for.digest == mini.manifest.graph_digest("denoise.fp16")
    assert engines["text"].manifest.made_for.size is None


def test_only_what_lacks_is_built(
    mini: Model, target: Target, store: EngineStore, builder: Builder
) -> None:
    ensure_engines(target, store, mini, stages=("text", "decode"), on_progress=ignore)
    told: list[bool] = []
    ensure_engines(
        # Parts of what is there serve as well.
        replace(target, devices=("sm89",), decode_batches=(4,)),
        store,
        mini,
        on_progress=ignore,
        on_engine=lambda _, built: told.append(built),
    )
    assert told == [False, True, False, True]
    assert [name for name, _, _ in builder.built] == [
        "text.fp16.onnx",
        "decode.fp16.onnx",
        "denoise.fp16.onnx",
        "encode.fp16.onnx",
    ]


def test_another_export_of_the_model_gets_its_own_engines(
    mini: Model, target: Target, store: EngineStore, builder: Builder
) -> None:
    ensure_engines(target, store, mini, on_progress=ignore)
    sources = mini.manifest.sources | {"unet/diffusion_pytorch_model.safetensors": "0" * 64}
    trained = replace(mini, manifest=replace(mini.manifest, sources=sources))
    del builder.built[:]
    ensure_engines(target, store, trained, on_progress=ignore)
    assert [name for name, _, _ in builder.built] == ["denoise.fp16.onnx"]


def test_a_build_in_another_process_is_waited_for_aloud(
    mini: Model, target: Target, store: EngineStore, builder: Builder
) -> None:
    key = target.request(mini.manifest, "text").key
    (store.root / ".locks").mkdir()
    other = (store.root / ".locks" / key).open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    told: list[tuple[str, int, int]] = []

    def tell(*progress: Any) -> None:
        told.append(progress)
        other.close()  # which lets go of the lock

    ensure_engines(target, store, mini, stages=("text",), on_progress=tell)
    assert told == [("waiting for another process that builds text", 0, 100), ("text", 100, 100)]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"precision": "bf16", "devices": ("sm75",)}, SettingsError, "'bf16' is not available"),
        ({"precision": "int4"}, SettingsError, "unknown precision 'int4'"),
        ({"devices": ("sm90",)}, RuntimeUnavailableError, "does not work on this GPU, sm90: "),
    ],
)
def test_what_a_device_cannot_is_said_before_anything_is_built(
    mini: Model,
    target: Target,
    store: EngineStore,
    builder: Builder,
    changes: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        ensure_engines(replace(target, **changes), store, mini, on_progress=ignore)
    assert builder.built == []
    assert store.entries() == []


def test_a_model_without_graphs_of_the_type_is_refused_before_anything_is_built(
    mini: Model, target: Target, store: EngineStore, builder: Builder
) -> None:
    graphs = {n: sha for n, sha in mini.manifest.graphs.items() if n != "decode.fp16"}
    old = replace(mini, manifest=replace(mini.manifest, graphs=graphs))
    with pytest.raises(ModelError, match="has no fp16 decode graph: export the model again"):
        ensure_engines(target, store, old, on_progress=ignore)
    assert builder.built == []


def test_the_command_names_all_that_the_engines_are_for(mini: Model, target: Target) -> None:
    assert target.command(Path("my models/x")) == (
        "giffusion build 'my models/x' --runtime tensorrt-rtx --device sm120,sm89 --size 128x64 "
        "--batch 2,8 --precision fp16"
    )


def test_a_device_without_a_name_is_built_for_where_it_is(target: Target) -> None:
    package = TensorRtPackage("tensorrt-rtx")
    package.name = "tensorrt"
    hopper = replace(target, package=package, devices=("sm90",))
    assert " --device current " in hopper.command(Path("x"))
