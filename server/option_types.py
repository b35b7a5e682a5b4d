"""What the modules of options share: typed values, flags and helps with their defaults."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from giffusion.engine.errors import SettingsError
from giffusion.engine.settings import RenderSettings

T = TypeVar("T")


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
