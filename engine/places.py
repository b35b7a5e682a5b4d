"""Where giffusion keeps things between runs: a cache that may be emptied, and the user's own data.

Asked by `digests.py` and by `giffusion.models`. The invariant: nothing is made here; whoever writes
makes the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

CACHE = "GIFFUSION_CACHE"
HOME = "GIFFUSION_HOME"


def cache_folder() -> Path:
    """Returns the folder of what can be made again: `GIFFUSION_CACHE`, else the user's cache.

    Raises:
        RuntimeError: neither that nor the user's home folder is known.
    """
    return _chosen(CACHE) or _below("XDG_CACHE_HOME", "~/.cache")


def data_folder() -> Path:
    """Returns the folder of what the user registered: `GIFFUSION_HOME`, else the user's data.

    Raises:
        RuntimeError: neither that nor the user's home folder is known.
    """
    return _chosen(HOME) or _below("XDG_DATA_HOME", "~/.local/share")


def _chosen(variable: str) -> Path | None:
    folder = os.environ.get(variable)
    return Path(folder).expanduser() if folder else None


def _below(variable: str, default: str) -> Path:
    """See https://specifications.freedesktop.org/basedir-spec/latest/."""
    return Path(os.environ.get(variable) or default).expanduser() / "giffusion"
