"""Every error that the engine raises on purpose, as one tree.

    GiffusionError
    ├── InputError               something that the user wrote or chose
    │   ├── PromptError          key-frame text, with line and column
    │   ├── SettingsError        a render setting out of its range, or an unknown name
    │   ├── ModelError           a model folder that is missing, incomplete or of the wrong kind
    │   └── OutputError          an output path that cannot be used
    ├── RuntimeUnavailableError  a runtime that is not installed or does not work here
    └── RenderError              a render that began and could not be finished
        ├── DiskFullError        no space left where the output is written
        └── DeviceError          the device failed; the process that owns it must end
            └── DeviceMemoryError   the device's memory is used up; nothing else is wrong

A message is one line: what, where, what was expected, and what to do. The CLI prints it after
`giffusion: ` and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_NAME = 100
"""Characters of a name that are compared; what is longer is near to nothing."""


class GiffusionError(Exception):
    """Base of all errors that giffusion raises on purpose; its text is one line."""


class InputError(GiffusionError):
    """Something that the user wrote or chose cannot be rendered."""


class PromptError(InputError):
    """Key-frame text that does not parse.

    Args:
        message: what is wrong, what was expected, what to do.
        line: line number in the text, from 1.
        column: column in that line, from 1.
        source: name of the text, a path or `<prompts>`.
    """

    def __init__(self, message: str, *, line: int, column: int, source: str = "<prompts>") -> None:
        super().__init__(f"{source}:{line}:{column}: {message}")
        self.line = line
        self.column = column
        self.source = source


class SettingsError(InputError):
    """A render setting is out of its range, or names something unknown."""


class ModelError(InputError):
    """A model folder is missing, incomplete or of a kind that cannot be rendered."""


class OutputError(InputError):
    """An output path cannot be used."""


class RuntimeUnavailableError(GiffusionError):
    """A runtime is not installed, or does not work on this machine."""


class RenderError(GiffusionError):
    """A render began and could not be finished."""


class DiskFullError(RenderError):
    """No space is left where the output is written."""


class DeviceError(RenderError):
    """The device failed. After it only a new process is clean: whoever owns the device ends."""


class DeviceMemoryError(DeviceError):
    """The device's memory is used up; what was allocated can still be freed and used."""


def one_line(error: object) -> str:
    """Returns the text of somebody else's error, or of anything, as one line."""
    return " ".join(str(error).split())


def reason_of(error: BaseException) -> str:
    """Returns why something failed as one line: in the system's words, where it has some."""
    return one_line(getattr(error, "strerror", None) or error)


def nearest(name: str, known: Iterable[str]) -> str:
    """Says what the known names are, the nearest first, for the end of a message.

    Args:
        name: what the user wrote.
        known: the names that exist.

    Returns:
        `did you mean 'euler'? known: ddim, euler`, or only the known names.
    """
    names = sorted(known)
    lowered = {known_name.lower(): known_name for known_name in names}
    match = difflib.get_close_matches(name[:MAX_NAME].lower(), lowered, n=1, cutoff=0.5)
    listed = "known: " + (", ".join(names) or "none")
    return f"did you mean '{lowered[match[0]]}'? {listed}" if match else listed
