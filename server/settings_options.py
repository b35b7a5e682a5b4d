"""The options of a settings file, and what fills the others in from one: `take_settings`.

`cli.py` adds them after all others of a command, and asks before the command runs. The invariant:
what stands on the command line counts, and a command sees no difference between it and a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.settings import RenderSettings
from giffusion.server.settings_keys import OF_THE_CALL, actions_of, long_name, settings_keys

_PROMPTS = ("file", "prompts")


def add_settings_options(parser: argparse.ArgumentParser, *, saves: bool) -> None:
    """Adds `--config` and, for a command that renders, `--save-config`.

    Every flag that a file can have gets a `--no-…`, which is in no help, and is None unless given;
    what was required may stand in the file.

    Args:
        parser: of a command that has all of its other options.
        saves: whether `--save-config` is one.
    """
    for _, action in list(actions_of(parser)):
        if action.dest in OF_THE_CALL:
            continue
        action.required = False
        if action.nargs == 0:
            action.default = None
            name = long_name(action).removeprefix("--")
            parser.add_argument(
                f"--no-{name}",
                dest=action.dest,
                action="store_false",
                default=None,
                help=argparse.SUPPRESS,
            )
    group = parser.add_argument_group(
        "settings file", "Options count more than it does; --no-loop undoes its loop = true."
    )
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML file of options to read")
    if saves:
        text = "TOML file to write all options of this render to"
        group.add_argument("--save-config", type=Path, metavar="FILE", help=text)


def take_settings(options: argparse.Namespace) -> None:
    """Fills in what was not given: from the settings file, and else by what an option is then.

    Args:
        options: what was given; `config` and `save_config` are None, or files.

    Raises:
        InputError: the file cannot be read.
        SettingsError: a key or a value in it is wrong, or the other one would replace a file that
            is read.
        OutputError: the other one cannot be written, or the output would replace such a file.
    """
    found = _found(options)
    for key in settings_keys():
        if getattr(options, key.dest, options) is None:
            setattr(options, key.dest, found.get(key.dest, key.default))
    if found:
        _check(options, found)
    # Of the two commands, the one that writes.
    if hasattr(options, "save_config"):
        from giffusion.server.own_files import check_own_files

        check_own_files(options)
        if options.save_config is not None:
            from giffusion.server.settings_text import check_save

            check_save(options)


def _found(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what the file says, without its key frames where others were given."""
    if options.config is None:
        return {}
    from giffusion.server.settings_file import load_settings_file

    found = load_settings_file(options.config)
    if all(getattr(options, name) is None for name in _PROMPTS):
        return found
    return {name: value for name, value in found.items() if name not in _PROMPTS}


def _check(options: argparse.Namespace, found: Mapping[str, Any]) -> None:
    """Lets a refusal of the settings name the file and the key, if it is due to them.

    Not when the file is read: what is missing there may be given by an option.
    """
    if (refusal := _refusal(vars(options))) is None:
        return
    for key in settings_keys():
        if key.dest in found and _refusal({key.dest: found[key.dest]}) == refusal:
            raise SettingsError(f"{options.config}: {key}: {refusal}")
    if _refusal(found) == refusal:
        raise SettingsError(f"{options.config}: {refusal}")


def _refusal(values: Mapping[str, Any]) -> str | None:
    """Returns what `RenderSettings` has against the values that are fields of it."""
    names = {field.name for field in fields(RenderSettings)}
    try:
        RenderSettings(**{n: v for n, v in values.items() if n in names and v is not None})
    except InputError as error:
        return str(error)
    return None
