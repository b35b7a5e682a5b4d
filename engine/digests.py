"""The sha256 of large files, remembered on this machine while a file stays as it is.

`load_model` asks, so that gigabytes of weights are hashed once and not at each render. The
invariant: a digest is recalled only for a file whose path, size, inode, time of modification and
time of change are those that it had when it was hashed; who restores a time of modification
changes the time of change. Each digest is a file of its own, put in place whole, so that processes
need no lock; a cache that is damaged or cannot be written costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from giffusion.engine.places import cache_folder

WORTH_BYTES = 1 << 20
"""What is smaller is hashed as fast as it is looked up."""
SETTLED_NS = 2_000_000_000
"""A file that changed later than this ago could change again and keep its times, since those of
some file systems are that coarse; compare https://git-scm.com/docs/racy-git."""
MAX_ENTRIES = 1024
ABANDONED_S = 3600
_PART = ".part-"
_ENTRY = re.compile(rb"([0-9a-f]{64}) ([0-9a-f]{64})\n((?:\d+ ){4})(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _State:
    """What tells a file from what it was before.

    Args:
        path: where it really lies.
        numbers: its size, time of modification, inode and time of change, each before a blank.
    """

    path: bytes
    numbers: bytes

    @classmethod
    def of(cls, path: Path, found: os.stat_result) -> _State:
        numbers = (found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)
        real = os.fsencode(os.path.realpath(path))
        return cls(real, b"".join(b"%d " % number for number in numbers))


def sha256(path: Path) -> str:
    """Returns the sha256 of a file in hexadecimal digits, computed or recalled.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        began_ns, found = time.time_ns(), os.fstat(stream.fileno())
        if found.st_size < WORTH_BYTES:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        state = _State.of(path, found)
        known = _recall(state)
        if known is not None:
            return known
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        settled = began_ns - max(found.st_mtime_ns, found.st_ctime_ns) >= SETTLED_NS
        if settled and _State.of(path, os.fstat(stream.fileno())) == state:
            _remember(state, digest)
        return digest


def digests_folder() -> Path:
    """Returns where digests are kept.

    Raises:
        RuntimeError: the user has no home folder, and the environment names no other.
    """
    return cache_folder() / "digests"


def _entry(state: _State) -> Path:
    return digests_folder() / hashlib.sha256(state.path).hexdigest()[:32]


def _recall(state: _State) -> str | None:
    with suppress(OSError, RuntimeError):
        digest, kept = _parse(_entry(state).read_bytes())
        return digest if kept == state else None
    return None


def _parse(content: bytes) -> tuple[str | None, _State | None]:
    """Returns a digest and whose it is, or None twice for what is damaged."""
    match = _ENTRY.fullmatch(content)
    if match is None or match[2] != _check(match[1], match[3], match[4]):
        return None, None
    return match[1].decode(), _State(path=match[4], numbers=match[3])


def _check(*parts: bytes) -> bytes:
    """Returns what an entry carries against its own damage."""
    return hashlib.sha256(b"".join(parts)).hexdigest().encode()


def _remember(state: _State, digest: str) -> None:
    found = digest.encode()
    check = _check(found, state.numbers, state.path)
    with suppress(OSError, RuntimeError):
        entry = _entry(state)
        entry.parent.mkdir(parents=True, exist_ok=True)
        temp = entry.with_name(f"{_PART}{secrets.token_hex(8)}")
        try:
            temp.write_bytes(found + b" " + check + b"\n" + state.numbers + state.path)
            temp.replace(entry)
        finally:
            temp.unlink(missing_ok=True)
        _sweep(entry.parent)


def _sweep(folder: Path) -> None:
    """Forgets files that are gone and, if too many stay, those that were hashed first."""
    entries = list(folder.iterdir())
    if len(entries) <= MAX_ENTRIES:
        return
    stale = {entry for entry in entries if _is_stale(entry)}
    rest = sorted(set(entries) - stale, key=_modified_s)
    surplus = rest[: -MAX_ENTRIES // 2] if len(rest) > MAX_ENTRIES else []
    for entry in (*stale, *surplus):
        entry.unlink(missing_ok=True)


def _is_stale(entry: Path) -> bool:
    if entry.name.startswith(_PART):
        return time.time() - _modified_s(entry) > ABANDONED_S
    with suppress(FileNotFoundError):
        _, state = _parse(entry.read_bytes())
        return state is None or not os.path.lexists(state.path)
    return False


def _modified_s(entry: Path) -> float:
    """Returns when an entry was written; now for one that another process has just removed."""
    with suppress(FileNotFoundError):
        return entry.stat().st_mtime
    return time.time()
