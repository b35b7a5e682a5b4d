"""What the modules of options share: typed values, flags, parts of files, what is listened to."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

from giffusion.engine.audio.options import COMPONENTS, REDUCTIONS, AudioOptions
from giffusion.engine.errors import SettingsError
from giffusion.engine.settings import RenderSettings
from giffusion.engine.values import parse_band, parse_seconds

T = TypeVar("T")
_TIME = "as 12.5 or 1:02.5"


def help_text(text: str, field: str) -> str:
    """Returns a help with the default of a field of `RenderSettings`."""
    return f"{text} (default: {RenderSettings.default(field)})"


def add_flag(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    """Adds an option without a value, which is None unless given."""
    group.add_argument(name, action="store_true", default=None, help=text)


def typed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Returns a reader of values whose refusals are the parser's own."""

    def convert(text: str) -> T:
        try:
            return parse(text)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def add_part(group: argparse._ActionsContainer, prefix: str, begin: str, end: str) -> None:
    """Adds where a part of a file begins and ends.

    Args:
        group: what they are added to.
        prefix: before their names, such as `--video-`; where it is not `--` alone the values are
            stored as the settings of that name, in seconds.
        begin: the help of the one, such as `where it begins`.
        end: of the other.
    """
    for name, text in (("start", begin), ("end", end)):
        option = f"{prefix}{name}"
        stored = name if prefix == "--" else f"{option[2:].replace('-', '_')}_s"
        group.add_argument(
            option, dest=stored, type=typed(parse_seconds), metavar="TIME", help=f"{text}, {_TIME}"
        )


def add_heard(group: argparse._ActionsContainer, prefix: str) -> None:
    """Adds what of a sound is listened to, as `AudioOptions` has it.

    Args:
        group: what they are added to.
        prefix: before their names, `--` or `--audio-`.
    """

    def add(name: str, text: str, **options: Any) -> None:
        default = AudioOptions.default(name)
        text += f" (default: {'all' if default is None else default})"
        group.add_argument(f"{prefix}{name}", help=text, **options)

    add("component", ", ".join(COMPONENTS), metavar="NAME")
    add("margin", "how far the other is kept out", type=float, metavar="M")
    add("reduction", f"over frequencies, {', '.join(REDUCTIONS)}", metavar="NAME")
    band = "frequencies in Hz that are listened to, as 20-200"
    add("band", band, type=typed(parse_band), metavar="LOW-HIGH")
    add("smooth", "share of a steady motion in it, 0 to 1", type=float, metavar="S")
