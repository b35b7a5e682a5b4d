"""The engines on this machine's disk, each in a folder named by what went into it.

`prepare.py` makes what is missing, the runtime loads, `giffusion engines` lists and removes. The
invariant: an entry is whole or is not there, and only a plan whose hash is the recorded one is
ever loaded. What is broken is reported and left for the user to remove.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from giffusion.engine.errors import RuntimeUnavailableError, SettingsError, nearest
from giffusion.engine.places import CACHE, cache_folder
from giffusion.engine.runtimes.tensorrt.disk import lock, publish, remove, store_errors
from giffusion.engine.runtimes.tensorrt.manifest import (
    FORMAT,
    KEY_DIGITS,
    MANIFEST,
    EngineManifest,
    EngineRequest,
    EngineStoreError,
)

PLAN = "engine.plan"
_LOCKS = ".locks"
_PART = ".part-"
_KEY = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
_CHUNK_BYTES = 64 << 20


class EngineMissingError(RuntimeUnavailableError):
    """No engine in the store serves what is asked for; the text names the nearest that exists."""


@dataclass(frozen=True, slots=True)
class StoredEngine:
    """An engine in the store.

    Args:
        key: the name of its folder.
        folder: where it lies.
        manifest: its record.
    """

    key: str
    folder: Path
    manifest: EngineManifest

    @property
    def plan_path(self) -> Path:
        """The plan's file."""
        return self.folder / PLAN

    def check(self) -> None:
        """Reads the plan and compares it with the record.

        Raises:
            EngineStoreError: it is missing, or is not the one that was built.
        """
        recorded = self.manifest.plan_sha256
        try:
            with self.plan_path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise EngineStoreError(
                f"engine {self.key}: {PLAN} cannot be read: {error.strerror}; {_mend(self.key)}"
            ) from None
        if found != recorded:
            raise EngineStoreError(
                f"engine {self.key}: {PLAN} is not the one that was built; {_mend(self.key)}"
            )


@dataclass(frozen=True, slots=True)
class BrokenEngine:
    """An entry that cannot be used.

    Args:
        key: the name of its folder.
        reason: what is wrong, in one line.
    """

    key: str
    reason: str


def default_root() -> Path:
    """Returns where engines are kept: in the cache, wherever that is.

    Raises:
        SettingsError: the user has no home folder, and the environment names no other.
    """
    try:
        return cache_folder() / "engines"
    except RuntimeError:
        raise SettingsError(f"there is no home folder here: set {CACHE} to a folder") from None


class EngineStore:
    """Engines in one folder, shared by all processes of this machine.

    Args:
        root: the folder; made when the first engine is kept. None for `default_root()`.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root

    def entries(self) -> list[StoredEngine | BrokenEngine]:
        """Returns everything that is kept, the broken too, by key.

        Raises:
            EngineStoreError: the folder cannot be read.
        """
        with store_errors(self.root):
            try:
                names = os.listdir(self.root)
            except FileNotFoundError:
                names = []
        return [self._read(name) for name in sorted(names) if _KEY.fullmatch(name)]

    def engines(self) -> list[StoredEngine]:
        """Returns the engines whose record can be read."""
        return [entry for entry in self.entries() if isinstance(entry, StoredEngine)]

    def get(self, key: str) -> StoredEngine:
        """Returns an engine by its key.

        Raises:
            SettingsError: there is none.
            EngineStoreError: its record cannot be read.
        """
        known = [entry.key for entry in self.entries()]
        if key not in known:
            raise SettingsError(f"unknown engine '{key}': {nearest(key, known)}")
        entry = self._read(key)
        if isinstance(entry, BrokenEngine):
            raise EngineStoreError(entry.reason)
        return entry

    def find(self, wanted: EngineRequest) -> StoredEngine | None:
        """Returns the engine that serves a request with the most profiles, or None."""
        fitting = [e for e in self.engines() if not wanted.differences(e.manifest.made_for)]
        return max(fitting, key=lambda e: len(e.manifest.made_for.batches), default=None)

    def missing(self, wanted: EngineRequest, command: str) -> EngineMissingError:
        """Returns the error of a request that no engine serves.

        Args:
            wanted: what was asked for.
            command: the command line that makes it.
        """
        ranked = sorted(
            (wanted.differences(engine.manifest.made_for), engine.key) for engine in self.engines()
        )
        nearest_one = min(ranked, key=lambda pair: len(pair[0]), default=None)
        if nearest_one is None:
            there = f"the store {self.root} is empty"
        else:
            words, key = nearest_one
            there = f"the nearest, {key}, is of {' and '.join(words)}"
        return EngineMissingError(f"no engine for {wanted}: {there}; make it with `{command}`")

    def make(
        self,
        wanted: EngineRequest,
        build: Callable[[], memoryview],
        on_wait: Callable[[], None] | None = None,
    ) -> tuple[StoredEngine, bool]:
        """Returns the engine of a request, built and kept if there is none.

        Of several processes that want the same, one builds and the others wait for it.

        Args:
            wanted: what it must serve.
            build: makes its plan.
            on_wait: called before this process waits for another that builds it.

        Returns:
            The engine, and whether it was built now.

        Raises:
            EngineStoreError: the store cannot be written.
        """
        with store_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        with self._lock(wanted.key, wait=True, on_wait=on_wait):
            found = self.find(wanted)
            if found is not None:
                return found, False
            if (self.root / wanted.key).exists():
                entry = self._read(wanted.key)
                assert isinstance(entry, BrokenEngine)
                raise EngineStoreError(entry.reason)
            began = time.perf_counter()
            plan = build()
            build_s = round(time.perf_counter() - began, 3)
            with store_errors(self.root):
                return self._keep(wanted, plan, build_s), True

    def remove(self, keys: Sequence[str]) -> None:
        """Removes entries, broken or not; all of them or, where one is unknown, none.

        Raises:
            SettingsError: there is none of a key.
            EngineStoreError: one is being built, or the store cannot be written.
        """
        known = [entry.key for entry in self.entries()]
        for key in keys:
            if key not in known:
                raise SettingsError(f"unknown engine '{key}': {nearest(key, known)}")
        for key in keys:
            with store_errors(self.root), self._lock(key, wait=False) as held:
                if not held:
                    raise EngineStoreError(f"engine {key} is being built: wait for it, or stop it")
                remove(self.root / key)
                pattern = self.kernel_cache(key, "*")
                for kernels in pattern.parent.glob(pattern.name):
                    kernels.unlink(missing_ok=True)

    def timing_cache(self, package: str, version: str, device: str) -> Path:
        """Returns the file that keeps kernel timings of a package on a device."""
        return self.root / ".timings" / f"{package}-{version}-{device}.cache"

    def kernel_cache(self, key: str, device: str) -> Path:
        """Returns the file that keeps what was compiled of an engine on a device."""
        return self.root / ".kernels" / f"{key}-{device}.cache"

    def _read(self, key: str) -> StoredEngine | BrokenEngine:
        folder = self.root / key
        try:
            manifest = EngineManifest.read(folder / MANIFEST)
        except EngineStoreError as error:
            return BrokenEngine(key, f"engine {key}: {error}; {_mend(key)}")
        if manifest.made_for.key != key:
            return BrokenEngine(key, f"engine {key} is not what its folder says; {_mend(key)}")
        try:
            num_bytes = (folder / PLAN).stat().st_size
        except OSError:
            num_bytes = None
        if num_bytes != manifest.plan_bytes:
            reason = f"engine {key}: {PLAN} is missing or incomplete; {_mend(key)}"
            return BrokenEngine(key, reason)
        return StoredEngine(key, folder, manifest)

    def _keep(self, wanted: EngineRequest, plan: memoryview, build_s: float) -> StoredEngine:
        temp = self.root / f"{_PART}{wanted.key}-{secrets.token_hex(4)}"
        temp.mkdir()
        try:
            digest = hashlib.sha256()
            with (temp / PLAN).open("wb") as stream:
                for start in range(0, len(plan), _CHUNK_BYTES):
                    chunk = plan[start : start + _CHUNK_BYTES]
                    digest.update(chunk)
                    stream.write(chunk)
            created = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = EngineManifest(
                FORMAT, wanted, digest.hexdigest(), len(plan), build_s, created
            )
            manifest.write(temp / MANIFEST)
            publish(temp, self.root / wanted.key)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        return StoredEngine(wanted.key, self.root / wanted.key, manifest)

    def _sweep(self) -> None:
        """Removes what killed builds left: the parts of keys whose lock nobody holds."""
        for leftover in self.root.glob(f"{_PART}*"):
            key = leftover.name.removeprefix(_PART).partition("-")[0]
            with self._lock(key, wait=False) as held:
                if held:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _lock(
        self, key: str, *, wait: bool, on_wait: Callable[[], None] | None = None
    ) -> AbstractContextManager[bool]:
        with store_errors(self.root):
            locks = self.root / _LOCKS
            locks.mkdir(exist_ok=True)
            return lock((locks / key).open("w"), wait=wait, on_wait=on_wait)


def _mend(key: str) -> str:
    return f"remove it with `giffusion engines rm {key}`"
