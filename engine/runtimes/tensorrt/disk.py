"""What the engine store does to the disk: whole folders or nothing, locks, and errors in one line.

Called by `store.py`. The invariant: a folder that is published is on the disk before it has its
name.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from giffusion.engine.runtimes.tensorrt.manifest import EngineStoreError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def store_errors(root: Path) -> Iterator[None]:
    """Says in one line what the file system refused.

    Raises:
        EngineStoreError: an `OSError` passed through.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "set GIFFUSION_CACHE to a folder that can be written"
        if error.errno in _FULL:
            advice = "free some, `giffusion engines rm` removes engines, or set GIFFUSION_CACHE"
        raise EngineStoreError(
            f"the engine store {root} cannot be used: {reason}; {advice}"
        ) from error


@contextmanager
def lock(stream: TextIO, *, wait: bool, on_wait: Callable[[], None] | None) -> Iterator[bool]:
    """Holds a file's lock against other processes, and closes it; yields whether it is held.

    Args:
        stream: the file. The system lets go of it when its process ends, however it ends.
        wait: wait for whoever holds it.
        on_wait: called before waiting.
    """
    with stream:
        held = False
        with suppress(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        if wait and not held:
            if on_wait is not None:
                on_wait()
            fcntl.flock(stream, fcntl.LOCK_EX)
            held = True
        yield held


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temp: Path, final: Path) -> None:
    """Gives a folder of files its name, which no other has."""
    for file in temp.iterdir():
        sync(file)
    sync(temp)
    temp.rename(final)
    sync(final.parent)


def remove(folder: Path) -> None:
    """Removes a folder so that a part of it is never taken for the whole."""
    doomed = folder.with_name(f".part-{folder.name}-removed-{os.getpid()}")
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed)
