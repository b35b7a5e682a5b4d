"""What files and folders of pictures have in common on their way to a place on the disk.

Called by `output.py`, `folder.py` and the writer. The invariant: what is under way lies beside its
place, hidden, and has its name only when it is whole and on the disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from giffusion.engine.errors import (
    DiskFullError,
    GiffusionError,
    OutputError,
    RenderError,
    one_line,
    reason_of,
)

TEMP_SUFFIX = ".giffusion-part"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Output(Protocol):
    """Something under way to its place: written under a hidden name there, then published."""

    @property
    def path(self) -> Path:
        """Where it goes, as the user wrote it."""

    @property
    def folder(self) -> Path:
        """Where it lies, both hidden and finished."""

    @property
    def temp(self) -> Path:
        """What the encoder writes to."""

    def publish(self) -> None:
        """Moves it to its place, whole and on the disk.

        Raises:
            OutputError: the place was taken meanwhile; the finished one is put beside it.
            OSError: it could not be written out or moved.
        """

    def publish_beside(self, label: str) -> Path:
        """Publishes under the first free name that a label makes; replaces nothing."""

    def discard(self) -> None:
        """Removes what is still hidden; may be called twice."""


class CheckPlace(Protocol):
    """Raises `OutputError` where an output cannot be put at a path."""

    def __call__(self, path: Path, *, force: bool) -> None: ...


class OpenOutput(Protocol):
    """Starts an output on its way to a path."""

    def __call__(self, path: Path, *, force: bool) -> Output: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A way of putting an output where it goes.

    Args:
        check: checks that it can be put there.
        open: starts it.
    """

    check: CheckPlace
    open: OpenOutput


def find_place(path: Path, place: Path) -> tuple[Path, int | None]:
    """Follows the links of a place and looks at what is there.

    Args:
        path: the output, as the user wrote it.
        place: the path itself, or the folder that it names.

    Returns:
        Where the place really is, and the mode of what is there, or None.

    Raises:
        OutputError: the folder that holds the place is missing or is none.
    """
    try:
        target = Path(os.path.realpath(place))
        folder = target.parent.stat().st_mode
        mode = _mode(target) if stat.S_ISDIR(folder) else None
    except FileNotFoundError:
        raise OutputError(f"{path}: folder {target.parent} does not exist: create it") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be an output: {reason_of(error)}") from None
    if not stat.S_ISDIR(folder):
        raise OutputError(f"{path}: {target.parent} is not a folder")
    return target, mode


def check_writable(path: Path, folder: Path) -> None:
    """Checks that a folder takes new files.

    Raises:
        OutputError: it does not; the message begins with the path.
    """
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: folder {folder} is not writable")


def hidden_name(stem: str) -> str:
    """Returns a new hidden name that says whose it is."""
    # A long name would leave no room for the suffix; 40 characters have at most 160 bytes.
    return f".{stem[:40]}.{secrets.token_hex(8)}{TEMP_SUFFIX}"


def cannot_begin(error: OSError, folder: Path) -> GiffusionError:
    """Says in one line why not even an empty file or folder could be made."""
    if error.errno in _FULL:
        return write_error(error, folder, 0)
    return OutputError(f"cannot write in {folder}: {error.strerror}")


def write_error(error: Exception, folder: Path, num_frames: int) -> RenderError:
    """Says in one line why a file could not be written.

    Args:
        error: what the encoder or the file system raised.
        folder: where the file was being written.
        num_frames: frames that had been encoded by then.

    Returns:
        The error to raise.
    """
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    reason = one_line(reason)
    if isinstance(error, OSError) and error.errno in _FULL:
        return DiskFullError(f"no space left in {folder} after {num_frames} frames: {reason}")
    return RenderError(f"cannot write the output in {folder} after {num_frames} frames: {reason}")


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: Path) -> None:
    """Waits until a folder's names are on the disk, where its file system can."""
    # Some network file systems cannot sync a folder, and the file itself is on the disk by now.
    with contextlib.suppress(OSError):
        sync(folder)


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
