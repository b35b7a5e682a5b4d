"""Paths in a settings file, which are relative to the folder that the file is in.

`settings_file.py` reads with it and `settings_text.py` writes with it. The invariant: a path that
is written to a file and read back from it names the same file, from wherever it is read; and in
the folder it was written from it has the same letters.
"""

from __future__ import annotations

import os

from giffusion.models import installed_models
from giffusion.server.comet_target import OFFLINE
from giffusion.server.settings_keys import Key

_STANDARD_INPUT = "-"


def path_from_file(key: Key, text: str, folder: str) -> str:
    """Returns a value as a command takes it.

    Args:
        key: the value's key.
        text: what the file has.
        folder: the folder of the file, as the user wrote it; "" is the working folder.
    """
    before, path = _split(key, text)
    if path is None:
        return text
    # What the shell does for options.
    home = os.path.expanduser(path) if path.startswith("~/") else path
    return before + os.path.join(folder, home)


def path_to_file(key: Key, text: str, folder: str) -> str:
    """Returns a value as it is written to a file.

    Args:
        key: the value's key.
        text: what a command took.
        folder: the folder of the file, as the user wrote it; "" is the working folder.
    """
    if key.dest == "model" and _is_unnamed(text):
        text = os.path.join(os.curdir, text)
    before, path = _split(key, text)
    if path is None:
        return text
    seen = _seen_from(folder, path)
    # These would be taken for something else.
    if (
        seen == _STANDARD_INPUT
        or seen.startswith("~/")
        or (key.dest == "model" and os.sep not in seen)
    ):
        seen = os.path.join(os.curdir, seen)
    return before + seen


def _split(key: Key, text: str) -> tuple[str, str | None]:
    """Returns what stands before a path, and the path, or None where the value has none."""
    match key.dest:
        case "comet":
            path = text.removeprefix(OFFLINE)
            return (OFFLINE, path) if path not in ("", text) else ("", None)
        case "model":
            return "", text if os.sep in text else None
        case "file" if text == _STANDARD_INPUT:
            return "", None
        case _:
            return "", text if key.is_path else None


def _is_unnamed(model: str) -> bool:
    """Returns whether a model without a slash is a folder, since there is none of the name."""
    return os.sep not in model and os.path.isdir(model) and model not in installed_models()


def _seen_from(folder: str, path: str) -> str:
    """Returns a path from a folder on if it is below it, and absolute if not.

    Nothing is done about `..` and `.`: behind a link they lead elsewhere than their letters say.
    """
    if not folder or os.path.isabs(path):
        return path
    whole = os.path.join(os.getcwd(), path)
    for spelling in (path, whole):
        below = spelling.removeprefix(folder + os.sep)
        if below not in ("", spelling) and not os.path.isabs(below):
            return below
    return whole
