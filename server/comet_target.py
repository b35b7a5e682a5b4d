"""Where a render is logged to: `[WORKSPACE/]PROJECT` at Comet, or `offline:FOLDER`.

`comet.py` reads what the user gave, and `comet_worker.py` opens it. The invariant: a target was
checked as far as that goes without a network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as quote

from giffusion.engine.errors import OutputError, SettingsError, reason_of

OFFLINE = "offline:"
"""What stands before the folder of an archive."""
_MAX_NAME = 100
_EXPECTED = "expected [WORKSPACE/]PROJECT, or offline:FOLDER for an archive in a folder"


@dataclass(frozen=True, slots=True)
class CometTarget:
    """A place for an experiment.

    Args:
        project: its project at Comet, or None for an archive.
        workspace: the project's workspace, or None for the user's own.
        folder: where the archive is written, or None.
    """

    project: str | None = None
    workspace: str | None = None
    folder: str | None = None


def parse_target(text: str) -> CometTarget:
    """Reads a target, and makes its folder if it is an archive's.

    Raises:
        SettingsError: the text names no target.
        OutputError: the folder cannot be made.
    """
    if text.startswith(OFFLINE):
        folder = text.removeprefix(OFFLINE)
        if not folder:
            raise SettingsError(f"comet {quote(text)} names no folder: {_EXPECTED}")
        return CometTarget(folder=str(_made(Path(folder))))
    names = text.split("/")
    if len(names) > 2 or not all(map(_is_name, names)):
        raise SettingsError(f"comet {quote(text)} is no project: {_EXPECTED}")
    return CometTarget(project=names[-1], workspace=names[0] if len(names) == 2 else None)


def _is_name(name: str) -> bool:
    return name.strip() == name and 0 < len(name) <= _MAX_NAME and name.isprintable()


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"comet's folder {folder} cannot be made: {reason_of(error)}") from None
    return folder.absolute()
