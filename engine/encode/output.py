"""Where a render's file is put: checks the place, writes beside it, publishes it whole.

Called by the table of formats, for all of its kinds that are one file. The invariant: an output
path holds a complete file, or what was there before. A symbolic link is followed, as by an ordinary
open(): the file that it points to is written, the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import stat
from pathlib import Path

from giffusion.engine.encode.place import (
    Place,
    cannot_begin,
    check_writable,
    find_place,
    hidden_name,
    sync,
    sync_folder,
)
from giffusion.engine.errors import OutputError

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
        self.temp = self.folder / hidden_name(self.target.stem)
        self._force = force
        try:
            # Not mkstemp: its mode 0600 would outlive the rename.
            os.close(os.open(self.temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            raise cannot_begin(error, self.folder) from error

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
        sync(self.temp)
        os.replace(self.temp, self.target)
        sync_folder(self.folder)

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
        sync(self.temp)
        try:
            os.link(self.temp, path)
            self.temp.unlink()
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            _claim_and_replace(self.temp, path)
        sync_folder(self.folder)


def check_place(path: Path, *, force: bool) -> None:
    """Checks that a file can be put at a path.

    Args:
        path: where the output is to go.
        force: a file that is there may be replaced.

    Raises:
        OutputError: the folder is missing or not writable, or the path is taken.
    """
    target, mode = find_place(path, path)
    if mode is not None:
        _check_taken(path, mode, force=force)
    check_writable(path, target.parent)


FILE = Place(check_place, OutputFile)
"""How a single file is put where it goes."""


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
