r"""The body of an entry to its meaning: parts, weights and options.

    a::1.5 | b::-0.4           parts that are composed, with their weights
    --neg text --seed N --hold SHARE --ease KIND --cut      options, after all parts
    \|  \::  \--               the characters themselves

`parse.py` calls `read_body` for key frames and `read_affix` for head and tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile
from reprlib import repr as quote
from typing import TypeVar

from giffusion.engine.errors import nearest
from giffusion.engine.prompts.fields import Field, split_fields
from giffusion.engine.prompts.keyframe import (
    MAX_PARTS,
    MAX_TEXT_LENGTH,
    MAX_WEIGHT,
    MIN_WEIGHT_SUM,
    KeyFrame,
    Part,
)
from giffusion.engine.prompts.keys import whole
from giffusion.engine.prompts.page import Passage
from giffusion.engine.schedules.easing import EASES
from giffusion.engine.schedules.limits import plain_number
from giffusion.engine.settings import MAX_SEED

OPTIONS = ("neg", "seed", "hold", "ease", "cut")
_FLAGS = ("cut",)
_Value = TypeVar("_Value")
_PART_MARKS = ("|", "::")
# One more than a body without an error can have.
_ENOUGH_FIELDS = 2 * MAX_PARTS + len(OPTIONS) + 1


@dataclass(frozen=True, slots=True)
class Affixes:
    """What stands before and after the text of every part.

    Args:
        before: texts in the form of `Part.text`.
        after: the same.
    """

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def around(self, text: str) -> str:
        """Returns a text with the others around it."""
        return " ".join((*self.before, text, *self.after)) if self.before or self.after else text


def read_body(frame: int, body: Passage, affixes: Affixes) -> KeyFrame:
    """Reads what a key frame shows.

    Args:
        frame: its number.
        body: not empty.
        affixes: put around the text of each part.

    Raises:
        PromptError: the body does not follow the grammar.
    """
    fields = _fields(body, _ENOUGH_FIELDS)
    num_parts = sum(1 for _ in takewhile(lambda field: field.mark in _PART_MARKS, fields))
    parts = _parts(fields[:num_parts], affixes)
    options = _options(fields[num_parts:])
    return KeyFrame(
        frame,
        parts,
        negative=_read(options, "neg", _negative),
        seed=_read(options, "seed", _seed),
        hold=_read(options, "hold", _hold),
        ease=_read(options, "ease", _ease),
        is_cut="cut" in options,
    )


def read_affix(name: str, body: Passage) -> str:
    """Reads the text of `head` or `tail`, which has the grammar of one part without a weight.

    Raises:
        PromptError: it does not follow the grammar.
    """
    first, *others = _fields(body, 2)
    for field in others:
        field.fail(
            f"'{field.mark}' in '{name}': expected one text; write '\\{field.mark}' for text"
        )
    first.check_emphasis()
    return first.text


def _fields(body: Passage, max_fields: int) -> list[Field]:
    fields = list(islice(split_fields(body), max_fields))
    for field in fields:
        field.check_length()
    return fields


def _parts(fields: list[Field], affixes: Affixes) -> tuple[Part, ...]:
    parts: list[Part] = []
    for before, field in pairwise((fields[0], *fields)):
        if field.mark == "::":
            parts[-1] = Part(parts[-1].text, _weight(before, field))
        elif not field.text:
            field.fail("no prompt here: expected text around '|', before '::', '--'")
        else:
            parts.append(Part(_text(field, affixes)))
        if len(parts) > MAX_PARTS:
            field.fail(f"too many parts: expected at most {MAX_PARTS} in a key frame")
    if abs(math.fsum(part.weight for part in parts)) < MIN_WEIGHT_SUM:
        fields[0].fail("weights sum to zero: they cannot be normalised, change one")
    return tuple(parts)


def _text(field: Field, affixes: Affixes) -> str:
    field.check_emphasis()
    text = affixes.around(field.text)
    if len(text) > MAX_TEXT_LENGTH:
        limit = f"expected at most {MAX_TEXT_LENGTH} characters"
        field.fail(f"the prompt is too long with head and tail: {limit}")
    return text


def _weight(before: Field, field: Field) -> float:
    weight = plain_number(field.text)
    if before.mark == "::" or not abs(weight) <= MAX_WEIGHT:
        advice = f"expected one from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}; write '\\::' for text"
        field.fail(f"weight {quote(field.text)} is not usable: {advice}")
    return weight


def _options(fields: list[Field]) -> dict[str, Field]:
    options: dict[str, Field] = {}
    for field in fields:
        mark, name = field.mark, field.mark.removeprefix("--")
        if mark in _PART_MARKS:
            advice = f"expected options after all parts; write '\\{mark}' for text"
            field.fail(f"'{mark}' after an option: {advice}")
        if name not in OPTIONS:
            advice = f"{nearest(name, OPTIONS)}; or write '\\--' for text"
            field.fail(f"unknown option {quote(mark)}: {advice}")
        if name in _FLAGS and field.text:
            field.fail(f"option '{mark}' takes no value: expected '{mark}' alone")
        if name not in _FLAGS and not field.text:
            field.fail(f"option '{mark}' has no value: expected '{mark} VALUE'")
        if options.setdefault(name, field) is not field:
            field.fail(f"option '{mark}' is given twice: remove one")
    return options


def _read(options: dict[str, Field], name: str, reader: Callable[[Field], _Value]) -> _Value | None:
    return reader(options[name]) if name in options else None


def _negative(field: Field) -> str:
    field.check_emphasis()
    return field.text


def _seed(field: Field) -> int:
    seed = whole(field.text, MAX_SEED)
    if seed is None:
        advice = f"expected one number from 0 to {MAX_SEED}"
        field.fail(f"seed {quote(field.text)} is not usable: {advice}")
    return seed


def _hold(field: Field) -> float:
    share = plain_number(field.text)
    if not 0 <= share <= 1:
        advice = "expected the share of the time to the next key frame, 0 to 1"
        field.fail(f"hold {quote(field.text)} is not usable: {advice}")
    return share


def _ease(field: Field) -> str:
    if field.text not in EASES:
        field.fail(f"unknown ease {quote(field.text)}: {nearest(field.text[:100], EASES)}")
    return field.text
