"""The files of the user's own that a render reads, which nothing it writes may replace.

`settings_options.py` asks before a command begins, since `--force` is meant for earlier outputs.
The invariant: what is refused here has not been touched.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from giffusion.engine.encode.replacing import replaced_folder, would_replace
from giffusion.engine.errors import InputError, OutputError, SettingsError
from giffusion.engine.media_settings import DIGESTED
from giffusion.models import DEFAULT_MODEL, find_model
from giffusion.server.inputs import STANDARD_INPUT


def check_own_files(options: argparse.Namespace) -> None:
    """Checks that neither the output nor the saved settings replace what the render reads.

    Settings may be saved to the very file that they were read from.

    Args:
        options: of `render`; what was not given is None.

    Raises:
        OutputError: the output would replace it.
        SettingsError: the saved settings would, or would be the output or in its way.
    """
    output, saved = options.output, options.save_config
    own = list(_read_files(options))
    for path in own if options.config is None else [*own, options.config]:
        if output is not None and would_replace(output, path):
            raise OutputError(
                f"{output} would replace {path}, which the render reads: give the output another "
                "name"
            )
    if saved is not None:
        _check_saved(saved, own, options.model or DEFAULT_MODEL)
        if output is not None:
            _check_apart(saved, output)


def _check_saved(saved: Path, own: Iterable[Path], model: str) -> None:
    for path in own:
        if would_replace(saved, path):
            raise SettingsError(
                f"{saved} would replace {path}, which the render reads: give --save-config another "
                "name"
            )
    if os.path.exists(saved) and _is_of_model(saved, model):
        raise SettingsError(
            f"{saved} would replace a file of the model: give --save-config another name"
        )


def _check_apart(saved: Path, output: Path) -> None:
    if would_replace(output, saved):
        raise SettingsError(f"{saved} is the output as well: give --save-config another name")
    folder = replaced_folder(output)
    if folder is not None and os.path.realpath(saved.parent) == os.path.realpath(folder):
        raise SettingsError(
            f"{saved} would lie among the pictures of the output: give --save-config another folder"
        )


def _is_of_model(path: Path, model: str) -> bool:
    try:
        folder = find_model(model)
    except InputError:
        return False  # whoever opens the model says what is wrong with it
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _read_files(options: argparse.Namespace) -> Iterator[Path]:
    if options.file is not None and options.file != STANDARD_INPUT:
        yield options.file
    named = (getattr(options, name) for name in DIGESTED)
    yield from (Path(path) for path in named if path is not None)
