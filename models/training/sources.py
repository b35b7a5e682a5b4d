"""Where the pictures come from: two sets of emoji, published as npm packages.

`prepare` calls `find_package` and `read_pictures`. What the model learns is `FLUENT`, Microsoft's
Fluent Emoji (MIT): a 256×256 webp file with opacity for each. What the evaluation's judge sees as
well is `NOTO`, Google's Noto Emoji (Apache-2.0), 64×64 png. The invariant: a file of a package is
read as bytes and never changed.
"""

from __future__ import annotations

import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from giffusion.engine.errors import InputError
from giffusion.models.training.vocabulary import Word

FLUENT = "@lobehub/fluent-emoji-3d@1.1.0"
NOTO = "emoji-datasource-google@16.0.0"

_FOLDERS = ("assets", "img/google/64")


def find_package(name: str, folder: Path) -> Path:
    """The unpacked npm package, fetched by `npm pack` into the folder if it is not there.

    Raises:
        InputError: npm is not installed or cannot fetch the package.
    """
    flat = name.lstrip("@").replace("/", "-").replace("@", "-")
    target = folder / flat
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _pack(name, folder)
        with tarfile.open(folder / f"{flat}.tgz") as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def _pack(name: str, folder: Path) -> None:
    command = ["npm", "pack", "--silent", name]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(
            f"{name}: npm pack failed ({error}): expected Node's npm and a registry that has it"
        ) from None


def read_pictures(package: Path, words: Sequence[Word]) -> list[bytes]:
    """The picture file of each word, in order, from the folder where this package keeps them.

    Raises:
        InputError: the package has no picture for a word.
    """
    folders = [package / folder for folder in _FOLDERS if (package / folder).is_dir()]
    files = {_plain(path.stem): path for folder in folders for path in folder.iterdir()}
    missing = [f"{word.code} ({word.name})" for word in words if word.code not in files]
    if missing:
        raise InputError(f"{package}: no picture for {', '.join(missing)}: correct the vocabulary")
    return [files[word.code].read_bytes() for word in words]


def _plain(stem: str) -> str:
    """A file's code points without variation selectors, which packages put in or leave out."""
    return "-".join(part for part in stem.lower().split("-") if part != "fe0f")
