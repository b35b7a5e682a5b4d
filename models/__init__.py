"""The models that ship with the project, as package data.

`mini` is a text-conditioned latent-diffusion model of 11 million parameters at 128x128; its
folder is also a plain diffusers pipeline. See `mini/README.md` for how it was trained.
"""

from __future__ import annotations

import os
from pathlib import Path

from giffusion.engine.errors import SettingsError, nearest

DEFAULT_MODEL = "mini"
_MANIFEST = "giffusion.json"


def bundled_models() -> dict[str, Path]:
    """Returns the folders of the models that ship with the project, by name."""
    home = Path(__file__).parent
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{_MANIFEST}"))}


def find_model(name: str | Path) -> Path:
    """Returns the folder of a model.

    Args:
        name: a bundled model's name, or the path of a model folder.

    Raises:
        SettingsError: there is no such model.
    """
    models = bundled_models()
    if str(name) in models:
        return models[str(name)]
    folder = Path(name).expanduser()
    # Not `Path.is_dir`, which raises for a name that is too long or may not be looked at.
    if os.path.isdir(folder):
        return folder
    raise SettingsError(
        f"unknown model '{name}': {nearest(str(name), models)}, or the path of a model folder"
    )
