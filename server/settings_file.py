"""A settings file, `giffusion.toml`, to the values of options: `load_settings_file`.

`settings_options.py` calls it for `--config`. The invariant: every value has been through the
reader of its option, so that a file and flags that say the same are the same; what is not
understood is refused in a line that names the file and the key.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from reprlib import repr as quote
from typing import Any

from giffusion.engine.errors import InputError, SettingsError, nearest, one_line, reason_of
from giffusion.server.settings_keys import OF_THE_CALL, SCHEMA, Key, Kind, settings_keys
from giffusion.server.settings_paths import path_from_file
from giffusion.server.texts import decoded

MAX_BYTES = 16 << 20
_VERSION = "schema"
# What a message does not repeat; Python even refuses to write thousands of digits.
_MANY = 10**40


class _Literal(str):
    """A number with a point, as it stands in the file, since a float would not be exact."""


def load_settings_file(path: Path) -> dict[str, Any]:
    """Reads a settings file.

    Args:
        path: the file; relative paths in it are relative to its folder.

    Returns:
        What it says, by the names that the values have among a command's options.

    Raises:
        InputError: the file cannot be read, or is no TOML.
        SettingsError: it has another schema, or a key or a value that no option takes.
    """
    tables = _parse(path, _read(path))
    _check_schema(path, tables)
    values = {key.dest: _value(path, key, value) for key, value in _entries(path, tables)}
    if {"file", "prompts"} <= values.keys():
        raise SettingsError(f"{path}: [prompts] has both file and text: give one of them")
    return values


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from None
    if len(content) > MAX_BYTES:
        raise InputError(
            f"{path} is longer than {MAX_BYTES >> 20} MiB of settings: keep key frames in a file "
            "of their own, [prompts] file"
        )
    return decoded(content, path)


def _parse(path: Path, text: str) -> Mapping[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text, parse_float=_Literal)
    except tomllib.TOMLDecodeError as error:
        hint = "; texts stand in quotes" if "Invalid value" in str(error) else ""
        raise InputError(f"{path} is no TOML: {one_line(error)}{hint}") from None
    except (ValueError, RecursionError):
        raise InputError(
            f"{path} is no settings file: it has a number of thousands of digits, or lists in lists"
        ) from None


def _check_schema(path: Path, tables: Mapping[str, Any]) -> None:
    if _VERSION not in tables:
        raise SettingsError(
            f"{path} has no schema: expected the line {_VERSION} = {SCHEMA} at its top"
        )
    found = tables[_VERSION]
    if type(found) is not int or found != SCHEMA:
        raise SettingsError(
            f"{path} has schema {_shown(found)}: expected {SCHEMA}; a later one needs a later "
            "giffusion"
        )


def _entries(path: Path, tables: Mapping[str, Any]) -> Iterator[tuple[Key, Any]]:
    """Yields what stands in the sections, each with its key."""
    known = {(key.section, key.name): key for key in settings_keys()}
    sections = {section for section, _ in known}
    for section, table in tables.items():
        if section == _VERSION:
            continue
        if section not in sections:
            raise _unknown(path, "", section, sections)
        if not isinstance(table, Mapping):
            raise SettingsError(
                f"{path}: {section} is {_shown(table)}: expected a section, [{section}], and its "
                "keys below"
            )
        for name, value in table.items():
            if (section, name) not in known:
                names = {key.name for key in known.values() if key.section == section}
                raise _unknown(path, f"[{section}] ", name, names)
            yield known[section, name], value


def _unknown(path: Path, where: str, name: str, known: set[str]) -> SettingsError:
    """Says where a key belongs, or what is nearest to it."""
    home = next((k for k in settings_keys() if k.name == name and not k.is_renamed), None)
    if home is not None:
        return SettingsError(
            f"{path}: {where}{name} stands elsewhere: put it below [{home.section}]"
        )
    if name in OF_THE_CALL:
        option = f"--{name.replace('_', '-')}"
        return SettingsError(
            f"{path}: {where}{name} is no setting of a render: leave it out, and give {option} "
            "with the command"
        )
    what = "key" if where else "section"
    return SettingsError(f"{path}: {where}unknown {what} {quote(name)}: {nearest(name, known)}")


def _value(path: Path, key: Key, value: Any) -> Any:
    if (text := _text(key.kind, value)) is None:
        raise SettingsError(f"{path}: {key} is {_shown(value)}: expected {key.kind.value}")
    if key.kind is Kind.FLAG:
        return value
    if "\0" in text and key.dest != "prompts":
        raise SettingsError(
            f"{path}: {key} {quote(text)} has a character of no text: leave out \\u0000"
        )
    read = key.action.type
    text = path_from_file(key, text, os.path.dirname(path))
    try:
        return read(text) if callable(read) else text
    except argparse.ArgumentTypeError as error:
        raise SettingsError(f"{path}: {key}: {error}") from None


def _text(kind: Kind, value: object) -> str | None:
    """Returns a value as it would be written after its option; None where it is of another kind."""
    if isinstance(value, bool):
        return "" if kind is Kind.FLAG else None
    if isinstance(value, int):
        takes = kind in (Kind.WHOLE, Kind.NUMBER, Kind.NUMBER_OR_TEXT) and abs(value) < _MANY
        return str(value) if takes else None
    if isinstance(value, _Literal):
        takes = kind in (Kind.NUMBER, Kind.NUMBER_OR_TEXT)
        # As TOML has them, and formulas have not.
        return value.replace("_", "").removeprefix("+") if takes else None
    takes = isinstance(value, str) and kind in (Kind.TEXT, Kind.NUMBER_OR_TEXT)
    return str(value) if takes else None


def _shown(value: object) -> str:
    if isinstance(value, _Literal):
        return str(value)[:40]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= _MANY:
        return "a number of many digits"
    if isinstance(value, Mapping):
        return "a section"
    return "a list" if isinstance(value, list) else quote(value)
