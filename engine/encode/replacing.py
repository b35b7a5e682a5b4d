"""Whether an output would take the place of a file that it is made from.

Whoever begins a render asks before anything is opened. The invariant: nothing that a render reads
is lost by what it writes, also where an output may replace what is there. Nothing is read or made.
"""

from __future__ import annotations

import os
from pathlib import Path

from giffusion.engine.encode.sequence import is_pattern, parse_pattern

_SEQUENCE = ".png"


def would_replace(output: Path, source: Path) -> bool:
    """Returns whether an output would replace a file, whatever the two are called.

    Args:
        output: a file, or a pattern such as `frames/%05d.png`, whose folder is replaced as a whole.
        source: a file, or a pattern of files.
    """
    try:
        return _is_same(output, source) or _is_within(output, source) or _is_one_of(output, source)
    except (OSError, ValueError):
        return False  # whoever opens them says what is wrong with them


def replaced_folder(output: Path) -> Path | None:
    """Returns the folder that an output replaces as a whole, or None where it is one file."""
    is_sequence = output.suffix.lower() == _SEQUENCE and is_pattern(output)
    return output.parent if is_sequence else None


def _is_same(output: Path, source: Path) -> bool:
    if os.path.realpath(output) == os.path.realpath(source):
        return True
    # By another name of one file, where the file system has several.
    there = os.path.exists(output) and os.path.exists(source)
    return there and os.path.samefile(output, source)


def _is_within(output: Path, source: Path) -> bool:
    """Returns whether a file, or the link to it, is a picture of the sequence that is replaced."""
    if (folder := replaced_folder(output)) is None:
        return False
    pattern = parse_pattern(output)
    return any(
        (is_pattern(path) or pattern.index(path.name) is not None) and _is_same(folder, path.parent)
        for path in (source, Path(os.path.realpath(source)))
    )


def _is_one_of(output: Path, source: Path) -> bool:
    """Returns whether an output has one of the names of a pattern."""
    if not is_pattern(source):
        return False
    target = Path(os.path.realpath(output))
    is_named = parse_pattern(source).index(target.name) is not None
    return is_named and _is_same(target.parent, source.parent)
