"""The models that the user registered: names of folders that lie anywhere.

`giffusion models add | rm` write them and `find_model` reads them, in `models.json` below the
user's data folder; `engine/places.py` says where that is. The invariant: the file is whole at every
moment, one process writes at a time, and a file that is not understood is never written over.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from reprlib import repr as quote

from giffusion.engine.errors import ModelError, SettingsError, nearest
from giffusion.engine.places import HOME, data_folder

FORMAT = 1
MAX_NAME = 100
_NAME = re.compile(rf"[^\W_][\w.+-]{{0,{MAX_NAME - 1}}}")
_Change = Callable[[dict[str, Path]], None]


class Registry:
    """Names of model folders, shared by all processes of a user.

    Args:
        path: its file; made when the first model is registered. None for the user's own.

    Raises:
        SettingsError: the user has no home folder, and the environment names no other.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = _default_path() if path is None else path

    def models(self) -> dict[str, Path]:
        """Returns the registered folders by name, in the order of names.

        Raises:
            ModelError: the file cannot be read, or is damaged.
        """
        with self._errors("read"):
            try:
                text = self.path.read_text(encoding="utf-8")
            except FileNotFoundError:
                return {}
            except ValueError as error:
                raise self._damaged(str(error)) from None
        return dict(sorted(self._parse(text).items()))

    def add(self, name: str, folder: Path, taken: Mapping[str, Path]) -> None:
        """Registers a folder; the same folder by the same name once more is no error.

        Args:
            name: what it is called from now on.
            folder: the model folder, kept as an absolute path.
            taken: the bundled models.

        Raises:
            SettingsError: the name cannot be one, or is another model's.
            ModelError: the file cannot be read or written.
        """
        _check_name(name, taken)
        real = Path(os.path.realpath(folder))

        def change(models: dict[str, Path]) -> None:
            if models.get(name, real) != real:
                raise SettingsError(
                    f"model '{name}' is registered already, at {models[name]}: give another "
                    f"--name, or `giffusion models rm {name}` first"
                )
            models[name] = real

        self._change(change)

    def remove(self, names: Sequence[str]) -> dict[str, Path]:
        """Forgets models; all of them or, where one is unknown, none.

        Args:
            names: what they are registered by.

        Returns:
            Their folders, which stay where they are.

        Raises:
            SettingsError: there is none of a name.
            ModelError: the file cannot be read or written.
        """
        removed: dict[str, Path] = {}

        def change(models: dict[str, Path]) -> None:
            for name in names:
                if name not in models:
                    raise SettingsError(f"unknown model '{name}': {nearest(name, models)}")
            removed.update({name: models.pop(name) for name in dict.fromkeys(names)})

        self._change(change)
        return removed

    def _change(self, change: _Change) -> None:
        with self._errors("written"), _locked(self.path):
            before = self.models()
            after = dict(before)
            change(after)
            if after != before:
                _replace(self.path, _text(after))

    def _parse(self, text: str) -> dict[str, Path]:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from None
        match content:
            case {"format": int(version), **rest} if version == FORMAT:
                pass
            case {"format": version}:
                raise self._damaged(f"it has the format {quote(version)}, not {FORMAT}")
            case _:
                raise self._damaged(f"expected an object of format {FORMAT}")
        if rest.keys() != {"models"} or not isinstance(rest["models"], dict):
            raise self._damaged("expected the key models, with an object, and no other")
        for name, folder in rest["models"].items():
            if not (_NAME.fullmatch(name) and isinstance(folder, str) and os.path.isabs(folder)):
                pair = f"{quote(name)}: {quote(folder)}"
                raise self._damaged(f"{pair} is no name with an absolute path")
        return {name: Path(folder) for name, folder in rest["models"].items()}

    def _damaged(self, reason: str) -> ModelError:
        return ModelError(
            f"the list of models {self.path} is damaged: {reason}; mend it, or move it away and "
            "add the models again"
        )

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ModelError(
                f"the list of models {self.path} cannot be {what}: "
                f"{error.strerror or error}; set {HOME} to a folder of yours"
            ) from error


def _default_path() -> Path:
    try:
        return data_folder() / "models.json"
    except RuntimeError:
        raise SettingsError(f"there is no home folder here: set {HOME} to a folder") from None


def _check_name(name: str, taken: Mapping[str, Path]) -> None:
    if name in taken:
        raise SettingsError(f"model '{name}' ships with giffusion: give another name by --name")
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{quote(name)} cannot be a model's name: expected up to {MAX_NAME} letters, digits "
            "and . _ + -, beginning with a letter or digit; give one by --name"
        )


def _text(models: Mapping[str, Path]) -> str:
    folders = {name: str(folder) for name, folder in sorted(models.items())}
    return json.dumps({"format": FORMAT, "models": folders}, indent=2) + "\n"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock against other processes; the system lets go of it when this one ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _replace(path: Path, text: str) -> None:
    """Puts a text in a file's place: it is on the disk before it has the name."""
    # A link stays one, as those who keep such files in a folder of their own want it.
    final = Path(os.path.realpath(path))
    # One name will do under the lock, and what a killed process left is written over.
    temp = final.with_name(f".{final.name}.part")
    with temp.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temp.replace(final)
