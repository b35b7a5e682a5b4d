"""The models that can be named: those that ship with the project, and those that are registered.

`mini` ships with it: a text-conditioned latent-diffusion model of 13 million parameters at 256x256,
whose folder is also a plain diffusers pipeline; `mini/README.md` tells how it was trained. So does
`mini-turbo`, which needs four steps and no guidance.
`giffusion models add` registers others; see `registry.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from giffusion.engine.errors import ModelError, SettingsError, nearest
from giffusion.models.registry import Registry

DEFAULT_MODEL = "mini"
_MANIFEST = "giffusion.json"


def bundled_models() -> dict[str, Path]:
    """Returns the folders of the models that ship with the project, by name."""
    home = Path(__file__).parent
    return {path.parent.name: path.parent for path in sorted(home.glob(f"*/{_MANIFEST}"))}


def installed_models() -> dict[str, Path]:
    """Returns the folders of all models that have a name: the bundled, then the registered.

    Raises:
        SettingsError: there is no place where models are registered.
        ModelError: the list of them is damaged.
    """
    bundled = bundled_models()
    others = Registry().models()
    return bundled | {name: folder for name, folder in others.items() if name not in bundled}


def find_model(name: str | Path) -> Path:
    """Returns the folder of a model.

    Args:
        name: a bundled or registered model's name, or the path of a model folder. A name stands
            before a folder of the same name; `./NAME` is the folder.

    Raises:
        SettingsError: there is no such model.
        ModelError: the folder of a registered model is gone, or the list of them is damaged.
    """
    bundled = bundled_models()
    if str(name) in bundled:
        return bundled[str(name)]
    # What is a path for certain can be found whatever became of the list.
    models = bundled if os.sep in str(name) else installed_models()
    if str(name) in models:
        return _there(str(name), models[str(name)])
    # Not `Path.expanduser` and `Path.is_dir`, which raise for a user that there is not, and for a
    # name that is too long or may not be looked at.
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return folder
    raise SettingsError(
        f"unknown model '{name}': {nearest(str(name), models)}, or the path of a model folder"
    )


def _there(name: str, folder: Path) -> Path:
    if os.path.isdir(folder):
        return folder
    raise ModelError(
        f"model '{name}' is registered at {folder}, which is no folder any more: put it there "
        f"again, or `giffusion models rm {name}`"
    )
