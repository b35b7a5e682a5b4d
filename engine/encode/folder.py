"""Where a sequence of pictures is put: a folder of its own, made whole or not at all.

Called by the table of formats, as `output.py` is for single files. The invariant: a folder has its
name only with all of its pictures in it, and no file that is not one of a sequence's is ever
removed. A symbolic link to a folder is followed and stays.
"""

from __future__ import annotations

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
from giffusion.engine.encode.sequence import EXAMPLE, Pattern, parse_pattern
from giffusion.engine.errors import OutputError

# What renaming a folder to a name gives that a file has, or a folder that is not empty.
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)


class OutputFolder:
    """A folder of pictures under way to its place; an `Output`.

    Args:
        path: the pattern of the pictures' names, in the folder that they are to have.
        force: replace the sequence that is there.

    Raises:
        OutputError: the hidden folder cannot be made beside it.
        DiskFullError: not even an empty folder fits.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.path = path
        self.target = Path(os.path.realpath(path.parent))
        self.folder = self.target.parent
        self._hidden = self.folder / hidden_name(self.target.name)
        self.temp = self._hidden / path.name
        self._pattern = parse_pattern(path)
        self._force = force
        try:
            self._hidden.mkdir()
        except OSError as error:
            raise cannot_begin(error, self.folder) from error

    def publish(self) -> None:
        """Moves the folder to its place, its pictures on the disk before it has its name.

        An empty folder there is replaced, and with `force` a sequence of the same names is.

        Raises:
            OutputError: another folder or file appeared there meanwhile; it is left alone and the
                finished folder is put beside it.
            OSError: the pictures could not be written out, or the folder moved.
        """
        self._sync()
        if self._force and self.target.is_dir():
            self._replace()
        else:
            self._move_new()
        sync_folder(self.folder)

    def publish_beside(self, label: str) -> Path:
        """Publishes as `NAME<label>`, numbered where that exists; replaces nothing.

        Returns:
            The folder's path now.

        Raises:
            OSError: the pictures could not be written out, or the folder moved.
        """
        self._sync()
        for number in itertools.count(1):
            tail = "" if number == 1 else f"-{number}"
            folder = self.folder / f"{self.target.name}{label}{tail}"
            try:
                # Claimed first: renaming would replace an empty folder of someone else's.
                folder.mkdir()
            except FileExistsError:
                continue
            self._hidden.rename(folder)
            sync_folder(self.folder)
            return folder
        raise AssertionError("unreachable")

    def discard(self) -> None:
        """Removes the hidden folder, if it is still there."""
        if self._hidden.exists():
            shutil.rmtree(self._hidden)

    def _move_new(self) -> None:
        try:
            # An empty folder gives way to this one; nothing else does.
            self._hidden.rename(self.target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            self._give_way("appeared during the render")

    def _replace(self) -> None:
        """Moves the sequence that is there aside, and removes it once the new one is in place."""
        aside = self.folder / hidden_name(self.target.name)
        self.target.rename(aside)
        try:
            other = _other_than(aside, self._pattern)
            if other is None:
                shutil.copymode(aside, self._hidden)
                self._hidden.rename(self.target)
        except BaseException:
            aside.rename(self.target)
            raise
        if other is not None:
            aside.rename(self.target)
            self._give_way(f"has {other} in it, which appeared during the render")
        _remove(aside, self._pattern)

    def _give_way(self, reason: str) -> None:
        kept = self.publish_beside("")
        raise OutputError(f"{self.path.parent} {reason}: the finished folder is {kept}")

    def _sync(self) -> None:
        with os.scandir(self._hidden) as entries:
            for entry in entries:
                sync(Path(entry.path))
        sync_folder(self._hidden)


def check_place(path: Path, *, force: bool) -> None:
    """Checks that a folder of pictures can be put where a pattern says.

    Args:
        path: the pattern of the pictures' names, in the folder that they are to have.
        force: a sequence that is there may be replaced.

    Raises:
        OutputError: the name is no pattern, what holds the folder is missing or not writable, or
            the folder is in use or holds anything else.
    """
    pattern = parse_pattern(path)
    target, mode = find_place(path, path.parent)
    if Path.cwd().is_relative_to(target) or os.path.ismount(target):
        example = Path("frames", f"{EXAMPLE}{path.suffix}")
        raise OutputError(
            f"{path}: a sequence is made as a folder of its own, and {target} is in use: "
            f"give a new one, such as {example}"
        )
    if mode is not None:
        _check_taken(path, target, mode, pattern, force=force)
    check_writable(path, target.parent)


FOLDER = Place(check_place, OutputFolder)
"""How a sequence of pictures is put where it goes."""


def _check_taken(path: Path, target: Path, mode: int, pattern: Pattern, *, force: bool) -> None:
    folder = path.parent
    if not stat.S_ISDIR(mode):
        raise OutputError(f"{path}: {folder} is not a folder: give the name of another")
    try:
        other, empty = _other_than(target, pattern), not os.listdir(target)
    except OSError as error:
        raise OutputError(f"{path}: folder {folder} cannot be read: {error.strerror}") from None
    if other is not None:
        raise OutputError(
            f"{path}: folder {folder} holds {other}, which is no picture of this sequence: "
            "give another folder"
        )
    if not empty and not force:
        raise OutputError(f"{path}: folder {folder} holds pictures: give --force to replace them")


def _other_than(folder: Path, pattern: Pattern) -> str | None:
    """Returns the name of something in a folder that is no picture of a sequence, or None."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if pattern.index(entry.name) is None or not entry.is_file(follow_symlinks=False):
                return repr(entry.name)
    return None


def _remove(folder: Path, pattern: Pattern) -> None:
    """Removes a sequence and its folder, and nothing that came into it since it was looked at."""
    for name in os.listdir(folder):
        if pattern.index(name) is not None:
            (folder / name).unlink()
    folder.rmdir()
