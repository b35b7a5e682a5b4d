"""A folder that appears whole or not at all.

`giffusion export` writes a model into `staged_folder`. The invariant: the target has its name only
when everything in it is on the disk, and nothing of the user's is overwritten.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from giffusion.engine.encode.place import (
    check_writable,
    find_place,
    hidden_name,
    sync,
    sync_folder,
)
from giffusion.engine.errors import (
    DiskFullError,
    GiffusionError,
    OutputError,
    SettingsError,
    reason_of,
)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yields a hidden folder beside the target, which becomes the target when the block ends.

    If the block raises, whatever it is, the hidden folder is removed and the target is as before.

    Args:
        target: must not exist, or be an empty folder; the folder that holds it must exist.

    Raises:
        SettingsError: the target is taken.
        OutputError: it cannot be written there.
        DiskFullError: no space is left there.
    """
    check_target(target)
    place, _ = find_place(target, target)
    temp = place.parent / hidden_name(place.name)
    try:
        temp.mkdir()
        yield temp
        _sync_all(temp)
        _publish(temp, place, target)
    except OSError as error:
        raise _in_a_line(error, target) from error
    finally:
        # Nothing is there any more where it was published.
        shutil.rmtree(temp, ignore_errors=True)


def check_target(target: Path) -> None:
    """Checks that a folder can be put somewhere, before minutes go into making it.

    Raises:
        SettingsError: the target is taken.
        OutputError: the folder that holds it is missing or takes no files.
    """
    place, mode = find_place(target, target)
    try:
        taken = mode is not None and (not place.is_dir() or any(place.iterdir()))
    except OSError as error:
        raise OutputError(f"{target} cannot be an output: {error.strerror}") from None
    if taken:
        raise _taken(target)
    check_writable(target, place.parent)


def _publish(temp: Path, place: Path, target: Path) -> None:
    try:
        temp.rename(place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _taken(target) from None
        raise
    sync_folder(place.parent)


def _taken(target: Path) -> SettingsError:
    return SettingsError(
        f"{target} exists and is not an empty folder: choose another -o, nothing was overwritten"
    )


def _sync_all(folder: Path) -> None:
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(root, name))
        sync_folder(Path(root))


def _in_a_line(error: OSError, target: Path) -> GiffusionError:
    reason = reason_of(error)
    if error.errno in _FULL:
        return DiskFullError(
            f"no space left for {target}: {reason}; free some or choose another -o, nothing was "
            "left behind"
        )
    where = f" ({error.filename})" if error.filename else ""
    return OutputError(f"{target} cannot be written: {reason}{where}")
