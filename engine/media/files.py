"""What a path that the user gave has to be before anything is read from it.

Called by the readers of films, sounds and pictures. The invariant: what has no end or is waited
for, such as a device or a pipe, is refused before it is opened.
"""

from __future__ import annotations

import stat
from pathlib import Path

from giffusion.engine.errors import InputError


def check_file(path: Path, expected: str) -> None:
    """Refuses a path that is no regular file.

    Args:
        path: what the user named.
        expected: what it should be, such as `a picture`.

    Raises:
        InputError: it is missing, may not be looked at, or is of another kind.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is no path: {error}") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path} is no file: expected {expected}")
