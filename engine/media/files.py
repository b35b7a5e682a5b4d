"""What a path that the user gave has to be before anything is read from it.

Called by the readers of films, sounds and pictures. The invariant: what has no end or is waited
for, such as a device or a pipe, is refused before it is opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from giffusion.engine.digests import sha256
from giffusion.engine.errors import InputError


def check_file(path: Path, expected: str) -> os.stat_result:
    """Refuses a path that is no regular file.

    Args:
        path: what the user named.
        expected: what it should be, such as `a picture`.

    Returns:
        What the system says of it.

    Raises:
        InputError: it is missing, may not be looked at, or is of another kind.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no path: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path} is no file: expected {expected}")
    return found


def file_digest(path: Path, expected: str) -> str:
    """Returns a file's sha256, by which a render's plan says which file it was made from.

    Args:
        path: what the user named.
        expected: what it should be, such as `a picture`.

    Raises:
        InputError: it is no file, or cannot be read.
    """
    check_file(path, expected)
    try:
        return sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
