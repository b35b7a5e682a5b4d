"""The values of options to a settings file: `settings_text`, and `save_settings` on the disk.

`giffusion render --save-config` calls it. The invariant: `load_settings_file` reads the very values
back; a file is there whole or not at all.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from reprlib import repr as quote

from giffusion.engine.encode.output import OutputFile, check_place
from giffusion.engine.encode.place import write_error
from giffusion.engine.errors import InputError, SettingsError
from giffusion.server.settings_file import MAX_BYTES
from giffusion.server.settings_keys import SCHEMA, Key, Kind, settings_keys
from giffusion.server.settings_paths import path_to_file

_HEADER = (
    "# Settings for `giffusion render --config`; relative paths begin at the folder of this file.\n"
)
# What a reader gets the same letters back of.
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,12})?")
_MAX_PLACES = 12


def settings_text(values: Mapping[str, object], path: Path) -> str:
    """Returns values of options as the text of a settings file.

    Args:
        values: by the names that they have among a command's options, as `load_settings_file`
            returns them; those that are None, or are no settings, are left out.
        path: where the text will be, for the paths in it.

    Raises:
        SettingsError: a text is not UTF-8.
        InputError: the text is longer than what is read back.
    """
    import tomli_w

    sections: dict[str, dict[str, object]] = {}
    for key in settings_keys():
        value = values.get(key.dest)
        if value is not None and value is not key.default:
            sections.setdefault(key.section, {})[key.name] = _to_file(key, value, path)
    texts = [text for table in sections.values() for text in table.values()]
    # A text of several lines would have other ends of lines than it had.
    multiline = not any(isinstance(text, str) and "\r" in text for text in texts)
    body = tomli_w.dumps({"schema": SCHEMA, **sections}, multiline_strings=multiline)
    if len(body.encode()) + len(_HEADER) > MAX_BYTES:
        raise InputError(
            f"{path} would be longer than {MAX_BYTES >> 20} MiB of settings: give the key frames "
            "in a file"
        )
    return _HEADER + body


def check_save(options: argparse.Namespace) -> None:
    """Checks, before anything is rendered, that `--save-config` can write where it is to.

    Raises:
        OutputError: the file exists and is not to be replaced, or cannot be there.
    """
    check_place(options.save_config, force=options.force)


def save_settings(options: argparse.Namespace) -> None:
    """Writes what a command was given, by flags or a file, to `options.save_config`.

    Raises:
        OutputError: another file has appeared there, or none can be made.
        DiskFullError: there is no room for it.
        RenderError: it cannot be written.
        SettingsError: as `settings_text`, whose InputError comes through as well.
    """
    path: Path = options.save_config
    text = settings_text(vars(options), path)
    file = OutputFile(path, force=options.force)
    try:
        file.temp.write_text(text, encoding="utf-8", newline="")
        file.publish()
    except OSError as error:
        raise write_error(error, file.folder, 0) from error
    finally:
        file.discard()


def _to_file(key: Key, value: object, path: Path) -> object:
    """Returns what stands behind a key; `_text` of `settings_file.py` takes it back."""
    if key.kind in (Kind.FLAG, Kind.WHOLE, Kind.NUMBER):
        return value
    folder = "" if path.parent == Path() else str(path.parent)
    text = path_to_file(key, _written(value), folder)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SettingsError(
            f"{path} cannot have {key} {quote(text)}: it is not UTF-8; give it another name"
        ) from None
    if key.kind is Kind.TEXT or _PLAIN.fullmatch(text) is None:
        return text
    number = Decimal(text) if "." in text else int(text)
    return number if str(number) == text else text


def _written(value: object) -> str:
    """Returns a value as it would be written after its option."""
    if isinstance(value, tuple):
        sizes = all(isinstance(side, int) for side in value)
        return ("x" if sizes else "-").join(map(_written, value))
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f")
    return _decimal(value) if isinstance(value, Fraction) else str(value)


def _decimal(value: Fraction) -> str:
    """Returns a fraction with a point, if that is exact and short, else with a slash."""
    scaled = value * 10**_MAX_PLACES
    if scaled.denominator > 1 or abs(scaled) >= 10**28:
        return str(value)
    text = format(Decimal(scaled.numerator).scaleb(-_MAX_PLACES), "f")
    return text.rstrip("0").removesuffix(".") if "." in text else text
