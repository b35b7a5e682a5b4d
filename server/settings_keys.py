"""The keys of a settings file, made of the options that `render` takes.

`settings_file.py` reads with them, `settings_text.py` writes with them and `settings_options.py`
fills in with them. The invariant: a key is an option; its section is the option's group and its
name the option's long name, so that a new option is in the file at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from pathlib import Path

from giffusion.engine.settings import RenderSettings
from giffusion.server.comet_options import add_comet_options
from giffusion.server.options import add_output_options, add_plan_options

SCHEMA = 1
"""The version of the keys; a file says which one it has."""
OF_THE_CALL = {"help", "json", "config", "save_config", "force"}
"""Options that say how a command is called, and not what it renders."""
_PLACES = {
    "file": ("prompts", "file"),
    "prompts": ("prompts", "text"),
    "comet": ("comet", "target"),
}
"""Keys that are not named after their option."""


class Kind(Enum):
    """What a key takes in the file; its value is the words for it."""

    FLAG = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a number"
    NUMBER_OR_TEXT = "a number, or a text in quotes"
    TEXT = "a text in quotes"


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a settings file.

    Args:
        section: the table that it stands in.
        name: what it is called there.
        kind: what it takes there.
        action: the option, which reads the value.
    """

    section: str
    name: str
    kind: Kind
    action: argparse.Action

    @property
    def dest(self) -> str:
        """The name of the value among a command's options."""
        return self.action.dest

    @property
    def default(self) -> object:
        """What the option is where it is not given: None, or False."""
        return self.action.default

    @property
    def is_path(self) -> bool:
        """Whether its value is always the name of a file."""
        return self.action.type is Path or self.action.metavar == "FILE"

    @property
    def is_renamed(self) -> bool:
        """Whether it is called otherwise than its option."""
        return self.dest in _PLACES

    def __str__(self) -> str:
        return f"[{self.section}] {self.name}"


@cache
def settings_keys() -> tuple[Key, ...]:
    """Returns all keys, in the order in which they are written."""
    parser = argparse.ArgumentParser()
    add_plan_options(parser)
    add_output_options(parser, required=False)
    add_comet_options(parser)
    # Comet's option belongs to no group, and comes before them.
    return tuple(sorted(_keys(parser), key=lambda key: key.dest == "comet"))


def actions_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Yields what a parser takes, each with the title of its group.

    argparse has no public way to ask.
    """
    for group in parser._action_groups:
        for action in group._group_actions:
            yield group.title or "", action


def long_name(action: argparse.Action) -> str:
    """Returns an option's long name, or an argument's."""
    names = [option for option in action.option_strings if option.startswith("--")]
    return names[0] if names else action.dest


def _keys(parser: argparse.ArgumentParser) -> Iterator[Key]:
    for title, action in actions_of(parser):
        if action.dest not in OF_THE_CALL:
            name = long_name(action).removeprefix("--").replace("-", "_")
            place = _PLACES.get(action.dest, (title.split()[0], name))
            yield Key(*place, _kind(action), action)


def _kind(action: argparse.Action) -> Kind:
    if action.nargs == 0:
        return Kind.FLAG
    if action.type in (int, float):
        return Kind.WHOLE if action.type is int else Kind.NUMBER
    field = next((f for f in fields(RenderSettings) if f.name == action.dest), None)
    words = str(field.type).split(" | ") if field is not None else []
    # Rates, times and schedules; the others are names, or more than one number.
    return Kind.NUMBER_OR_TEXT if {"int", "float", "Fraction"} & set(words) else Kind.TEXT
