"""The engine store: what is found and what is not, broken entries, races and kills."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from giffusion.engine.errors import GiffusionError, SettingsError
from giffusion.engine.places import CACHE
from giffusion.engine.runtimes.tensorrt.manifest import (
    MANIFEST,
    EngineManifest,
    EngineRequest,
    EngineStoreError,
)
from giffusion.engine.runtimes.tensorrt.store import (
    PLAN,
    BrokenEngine,
    EngineMissingError,
    EngineStore,
    StoredEngine,
    default_root,
)

REQUEST = EngineRequest(
    stage="denoise",
    model="mini",
    digest="d" * 64,
    package="tensorrt-rtx",
    version="1.7.1",
    devices=("sm86", "sm89"),
    precision="fp16",
    size=(512, 512),
    batches=(2, 8, 16),
    options=1,
)
CONTENT = bytes(range(256)) * 10
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def plan() -> memoryview:
    return memoryview(CONTENT)


def make(store: EngineStore, **changes: Any) -> StoredEngine:
    engine, _ = store.make(replace(REQUEST, **changes), plan)
    return engine


def test_an_engine_is_built_once_and_found_again(store: EngineStore) -> None:
    built, now = store.make(REQUEST, plan)
    assert now
    assert built.plan_path.read_bytes() == CONTENT
    assert built.manifest.plan_bytes == len(CONTENT)
    built.check()

    def again() -> memoryview:
        raise AssertionError("it is there already")

    assert EngineStore(store.root).make(REQUEST, again) == (built, False)
    assert store.engines() == store.entries() == [built]
    assert store.get(built.key) == built


@pytest.mark.parametrize(
    "wanted",
    [
        {"devices": ("sm89",)},
        {"batches": (8,)},
        {"batches": (2, 16), "devices": ("sm86",)},
        {"model": "another name for it"},
    ],
)
def test_an_engine_serves_parts_of_what_it_was_made_for(
    store: EngineStore, wanted: dict[str, Any]
) -> None:
    engine = make(store)
    assert store.find(replace(REQUEST, **wanted)) == engine


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batches": (4,)}, "batch 2, 8, 16"),
        ({"size": (768, 512)}, "512x512"),
        ({"devices": ("sm120",)}, "sm86, sm89"),
        ({"precision": "bf16"}, "fp16"),
        ({"version": "1.8.0"}, "version 1.7.1"),
        ({"package": "tensorrt"}, "tensorrt-rtx"),
        ({"stage": "decode"}, "the denoise graph"),
        ({"digest": "e" * 64}, "another export"),
        ({"digest": "e" * 64, "model": "other"}, "model 'mini'"),
        ({"options": 2}, "an earlier giffusion"),
        ({"size": (768, 512), "batches": (4,)}, "512x512 and batch 2, 8, 16"),
    ],
)
def test_one_that_is_missing_is_named_with_the_nearest_and_the_command(
    store: EngineStore, changes: dict[str, Any], words: str
) -> None:
    engine = make(store)
    wanted = replace(REQUEST, **changes)
    assert store.find(wanted) is None
    error = store.missing(wanted, "giffusion build mini")
    assert isinstance(error, EngineMissingError)
    assert str(error) == (
        f"no engine for {wanted}: the nearest, {engine.key}, is of {words}; make it with "
        "`giffusion build mini`"
    )


def test_the_nearest_is_the_one_with_the_fewest_differences(store: EngineStore) -> None:
    make(store, size=(768, 768), precision="bf16")
    near = make(store, size=(768, 768))
    assert f"the nearest, {near.key}, is of 768x768;" in str(store.missing(REQUEST, "x"))


def test_an_empty_store_says_so(store: EngineStore) -> None:
    assert f"the store {store.root} is empty; make it with `x`" in str(store.missing(REQUEST, "x"))


def test_what_differs_has_another_key() -> None:
    changes: list[dict[str, Any]] = [
        {"stage": "decode"},
        {"digest": "e" * 64},
        {"package": "tensorrt"},
        {"version": "2"},
        {"devices": ("sm89",)},
        {"precision": "bf16"},
        {"size": None},
        {"batches": (2,)},
        {"options": 2},
    ]
    keys = {replace(REQUEST, **change).key for change in changes}
    assert len(keys | {REQUEST.key}) == len(changes) + 1
    # The name is for people: a renamed model keeps its engines.
    assert replace(REQUEST, model="other").key == REQUEST.key


def damaged(store: EngineStore, damage: Callable[[StoredEngine], None]) -> BrokenEngine:
    engine = make(store)
    damage(engine)
    (entry,) = store.entries()
    assert isinstance(entry, BrokenEngine)
    assert entry.key == engine.key
    assert store.find(REQUEST) is None
    assert engine.folder.is_dir()
    with pytest.raises(EngineStoreError, match=re.escape(entry.reason)):
        store.get(engine.key)
    return entry


def change(engine: StoredEngine, **values: object) -> None:
    path = engine.folder / MANIFEST
    entries = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in entries.items() if v != "drop"}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 99}, "is not of format 1"),
        ({"stage": "drop"}, "has missing or unknown keys: stage"),
        ({"extra": 1}, "has missing or unknown keys: extra"),
        ({"batches": "2"}, "has batches '2': expected a list of whole numbers above 0"),
        ({"size": [512]}, "has size [512]: expected [width, height] or null"),
        ({"precision": "bf16"}, "is not what its folder says"),
    ],
)
def test_a_broken_record_is_reported_and_left(
    store: EngineStore, values: dict[str, object], words: str
) -> None:
    entry = damaged(store, lambda engine: change(engine, **values))
    assert words in entry.reason
    assert entry.reason.endswith(f"; remove it with `giffusion engines rm {entry.key}`")
    assert "\n" not in entry.reason
    # Nothing is built over it: what is broken is the user's to remove.
    with pytest.raises(EngineStoreError, match=re.escape(entry.reason)):
        make(store)
    store.remove([entry.key])
    assert make(store).manifest.made_for == REQUEST


def test_a_record_that_is_gone_or_no_json(store: EngineStore) -> None:
    engine = make(store)
    (engine.folder / MANIFEST).write_text("{")
    (entry,) = store.entries()
    assert isinstance(entry, BrokenEngine)
    assert "cannot be read" in entry.reason
    (engine.folder / MANIFEST).unlink()
    (entry,) = store.entries()
    assert isinstance(entry, BrokenEngine)
    assert "is missing" in entry.reason


def test_a_plan_that_is_not_the_one_that_was_built(store: EngineStore) -> None:
    engine = make(store)
    engine.plan_path.write_bytes(CONTENT[::-1])
    with pytest.raises(EngineStoreError, match=f"^engine {engine.key}: {PLAN} is not the one"):
        engine.check()
    engine.plan_path.unlink()
    with pytest.raises(EngineStoreError, match="cannot be read: No such file"):
        engine.check()


@pytest.mark.parametrize("content", [CONTENT[:-1], b"", None])
def test_a_plan_that_is_cut_off_is_never_found(store: EngineStore, content: bytes | None) -> None:
    def cut(engine: StoredEngine) -> None:
        engine.plan_path.unlink()
        if content is not None:
            engine.plan_path.write_bytes(content)

    assert "is missing or incomplete" in damaged(store, cut).reason


def test_what_is_not_the_stores_own_is_left_alone(store: EngineStore) -> None:
    engine = make(store)
    (store.root / "notes").mkdir()
    (store.root / "notes.txt").touch()
    assert store.entries() == [engine]
    make(store, batches=(32,))
    assert (store.root / "notes").is_dir()


def test_removing(store: EngineStore) -> None:
    kept, removed = make(store), make(store, batches=(32,))
    for engine in (kept, removed):
        store.kernel_cache(engine.key, "sm89").parent.mkdir(exist_ok=True)
        store.kernel_cache(engine.key, "sm89").touch()
    store.remove([removed.key])
    assert store.kernel_cache(kept.key, "sm89").exists()
    assert not store.kernel_cache(removed.key, "sm89").exists()
    assert store.entries() == [kept]
    assert not removed.folder.exists()
    with pytest.raises(SettingsError, match=f"^unknown engine '{removed.key}': "):
        store.remove([kept.key, removed.key])
    assert store.entries() == [kept]


def test_an_engine_that_is_being_built_is_not_removed(store: EngineStore) -> None:
    engine = make(store)
    with (store.root / ".locks" / engine.key).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(EngineStoreError, match=f"^engine {engine.key} is being built: wait"):
            store.remove([engine.key])
    store.remove([engine.key])


def test_a_manifest_is_read_as_it_was_written(store: EngineStore) -> None:
    engine = make(store, size=None)
    assert EngineManifest.read(engine.folder / MANIFEST) == engine.manifest


def test_a_build_that_fails_leaves_nothing(store: EngineStore) -> None:
    def fail() -> memoryview:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.make(REQUEST, fail)
    assert store.entries() == []
    assert store.make(REQUEST, plan)[1]


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = EngineStore(tmp_path / "file" / "engines")
    for use in (store.entries, lambda: store.make(REQUEST, plan)):
        with pytest.raises(EngineStoreError, match=r"cannot be used: Not a directory; set GIFF"):
            use()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_disk_that_is_full(store: EngineStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        target = Path("/dev/full") if path.name == PLAN and "w" in mode else path
        return opened(target, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(EngineStoreError, match="No space left on device; free some") as raised:
        store.make(REQUEST, plan)
    assert isinstance(raised.value, GiffusionError)
    monkeypatch.undo()
    assert store.entries() == []
    assert [p.name for p in store.root.iterdir()] == [".locks"]


def _race(root: Path, start: Any, built: Any) -> None:
    def slow() -> memoryview:
        time.sleep(0.2)
        return plan()

    start.wait()
    _, now = EngineStore(root).make(REQUEST, slow)
    built.put(now)


def test_of_several_processes_one_builds(store: EngineStore) -> None:
    start, built = SPAWN.Event(), SPAWN.Queue()
    racers = [SPAWN.Process(target=_race, args=(store.root, start, built)) for _ in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    assert sorted(built.get(timeout=60) for _ in racers) == [False, False, False, True]
    for racer in racers:
        racer.join()


def _wait(root: Path, waiting: Any, told: Any) -> None:
    _, now = EngineStore(root).make(REQUEST, plan, waiting.set)
    told.put(now)


def test_whoever_waits_for_another_build_is_told(store: EngineStore) -> None:
    waiting, told = SPAWN.Event(), SPAWN.Queue()
    waiter = SPAWN.Process(target=_wait, args=(store.root, waiting, told))

    def build() -> memoryview:
        waiter.start()
        assert waiting.wait(60)
        return plan()

    def nobody() -> None:
        raise AssertionError("nobody else builds")

    assert store.make(REQUEST, build, nobody)[1]
    assert told.get(timeout=60) is False
    waiter.join()


def _die_building(root: Path, when: str) -> None:
    import giffusion.engine.runtimes.tensorrt.store as module

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "publishing":
        setattr(module, "publish", die)  # noqa: B010 - in this process only
    store = EngineStore(root)
    store.make(REQUEST, die if when == "building" else plan)  # type: ignore[arg-type]


@pytest.mark.parametrize("when", ["building", "publishing"])
def test_a_killed_build_leaves_nothing_that_loads_and_blocks_nobody(
    store: EngineStore, when: str
) -> None:
    killed = SPAWN.Process(target=_die_building, args=(store.root, when))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert store.entries() == []
    leftovers = list(store.root.glob(".part-*"))
    assert len(leftovers) == (when == "publishing")
    # Whoever builds next sweeps, also when it builds something else.
    make(store, batches=(1,))
    assert list(store.root.glob(".part-*")) == []
    assert make(store).plan_path.read_bytes() == CONTENT


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path / "chosen"))
    assert default_root() == tmp_path / "chosen" / "engines"
    monkeypatch.delenv(CACHE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert default_root() == tmp_path / "cache" / "giffusion" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "giffusion" / "engines"
    monkeypatch.setenv(CACHE, "~nobody-of-this-name/cache")
    with pytest.raises(SettingsError, match=r"^there is no home folder here: set GIFFUSION_CACHE"):
        default_root()
