"""Where a render's file is put: checks the place, writes beside it, publishes it whole.

Called by the package. The invariant: an output path holds a complete file, or what was there
before. A symbolic link is followed, as by an ordinary open(): the file that it points to is
written, the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import stat
from pathlib import Path

from giffusion.engine.errors import DiskFullError, OutputError, RenderError, one_line

TEMP_SUFFIX = ".giffusion-part"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_HARD_LINKS = (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class OutputFile:
    """A file under way to its place: written under a hidden name there, then published.

    Args:
        path: where the finished file goes; its folder exists.
        force: replace what is there.

    Raises:
        OutputError: the hidden file cannot be made beside it.
        DiskFullError: not even an empty file fits.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self.target = Path(os.path.realpath(path))
        self.folder = self.target.parent
        # A long name would leave no room for the suffix.
        name = f".{self.target.stem[:40]}.{secrets.token_hex(8)}{TEMP_SUFFIX}"
        self.temp = self.folder / name
        self._force = force
        try:
            # Not mkstemp: its mode 0600 would outlive the rename.
            os.close(os.open(self.temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            if error.errno in _FULL:
                raise write_error(error, self.folder, 0) from error
            raise OutputError(f"cannot write in {self.folder}: {error.strerror}") from error

    def publish(self) -> None:
        """Moves the finished file to its place, on the disk before it has its name.

        Raises:
            OutputError: without `force`, another file appeared there meanwhile; that one is left
                alone and the finished one is put beside it.
            OSError: the file could not be written out or moved.
        """
        if not self._force:
            try:
                self._move_new(self.target)
            except FileExistsError:
                kept = self.publish_beside("")
                raise OutputError(
                    f"{self.path} appeared during the render: the finished file is {kept}"
                ) from None
            return
        with contextlib.suppress(FileNotFoundError):
            shutil.copymode(self.target, self.temp)
        _sync(self.temp)
        os.replace(self.temp, self.target)
        _sync_folder(self.folder)

    def publish_beside(self, label: str) -> Path:
        """Publishes as `NAME<label>.EXT`, numbered where that exists; replaces nothing.

        Returns:
            The path that the file has now.

        Raises:
            OSError: the file could not be written out or moved.
        """
        stem, extension = self.target.stem, self.target.suffix
        for number in itertools.count(1):
            tail = "" if number == 1 else f"-{number}"
            path = self.folder / f"{stem}{label}{tail}{extension}"
            with contextlib.suppress(FileExistsError):
                self._move_new(path)
                return path
        raise AssertionError("unreachable")

    def discard(self) -> None:
        """Removes the hidden file, if it is still there."""
        self.temp.unlink(missing_ok=True)

    def _move_new(self, path: Path) -> None:
        _sync(self.temp)
        try:
            os.link(self.temp, path)
            self.temp.unlink()
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            _claim_and_replace(self.temp, path)
        _sync_folder(self.folder)


def check_place(path: Path, *, force: bool) -> None:
    """Checks that a file can be put at a path.

    Args:
        path: where the output is to go.
        force: a file that is there may be replaced.

    Raises:
        OutputError: the folder is missing or not writable, or the path is taken.
    """
    try:
        target = Path(os.path.realpath(path))
        folder = target.parent.stat().st_mode
        taken = _mode(target) if stat.S_ISDIR(folder) else None
    except FileNotFoundError:
        raise OutputError(f"{path}: folder {target.parent} does not exist: create it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be an output: {reason}") from None
    if not stat.S_ISDIR(folder):
        raise OutputError(f"{path}: {target.parent} is not a folder")
    if taken is not None:
        _check_taken(path, taken, force=force)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: folder {target.parent} is not writable")


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


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _check_taken(path: Path, mode: int, *, force: bool) -> None:
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path} is a folder: give the name of a file")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path} is not a regular file: give another name")
    if not force:
        raise OutputError(f"{path} exists: give --force to replace it")


def _claim_and_replace(temp: Path, path: Path) -> None:
    """Moves without replacing where the file system has no hard links, such as FAT.

    The name is claimed with an empty file first, so that a file of someone else's is never lost.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(temp, path)
    except BaseException:
        path.unlink()
        raise


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    # Some network file systems cannot sync a folder, and the file itself is on the disk by now.
    with contextlib.suppress(OSError):
        _sync(folder)
