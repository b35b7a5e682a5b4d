"""The grammar of schedules: text to keys and values, still as formulas.

`curves.py` reads schedules with it. The invariant: any text gives one entry or more, or an
`ExpressionError` with its place, in time proportional to the text.

    schedule = value | entry (separator entry)* [separator]
    entry    = key ":" value
    key      = SECONDS "s" | expression
    value    = expression
    separator: a comma, line breaks, or both
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from giffusion.engine.schedules.expressions import Expression, ExpressionError, ExpressionReader

VARIABLES = ("t", "s", "max_f", "fps")
"""The frame's number, the job's seed, the number of the last frame, frames a second."""
MAX_SCHEDULE_LENGTH = 500_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A key and its value.

    Args:
        key: a frame's number as a formula, a time in seconds, or None for a value on its own.
        offset: where the entry begins in the text.
        value: a formula.
    """

    key: Expression | Fraction | None
    offset: int
    value: Expression


def read_entries(text: str, series: Collection[str] = ()) -> tuple[Entry, ...]:
    """Reads the whole text of a schedule.

    Args:
        text: the schedule.
        series: variables besides `VARIABLES` that change along the frames.

    Returns:
        One entry or more, in the order of the text.

    Raises:
        ExpressionError: the text is no schedule.
    """
    reader = ExpressionReader(text, (*VARIABLES, *series), MAX_SCHEDULE_LENGTH)
    reader.skip_lines()
    if reader.token.kind == "end":
        reader.fail_here("expected a number, or keys and values such as 0:(1), 30:(2)")
    entries = [_first(reader, series)]
    while entries[-1].key is not None and _separator(reader):
        entries.append(_keyed(reader, series))
    return tuple(entries)


def place(text: str, offset: int) -> str:
    """Says where an offset is: `character 9`, or `line 2, column 3` if there are more lines."""
    if "\n" not in text:
        return f"character {offset + 1}"
    line, column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
    return f"line {line}, column {column}"


def _first(reader: ExpressionReader, series: Collection[str]) -> Entry:
    """Reads the first entry, which alone may lack a key."""
    offset, key = reader.token.offset, _key(reader)
    if isinstance(key, Expression):
        lines = reader.skip_lines()
        if reader.token.kind == "end":
            return Entry(None, offset, key)
        if lines:
            reader.fail_here("expected nothing after a value without a key; keys look like 30:(2)")
    return _valued(reader, offset, key, series)


def _keyed(reader: ExpressionReader, series: Collection[str]) -> Entry:
    return _valued(reader, reader.token.offset, _key(reader), series)


def _key(reader: ExpressionReader) -> Expression | Fraction:
    time = reader.time()
    return reader.expression() if time is None else time


def _valued(
    reader: ExpressionReader, offset: int, key: Expression | Fraction, series: Collection[str]
) -> Entry:
    if not reader.take(":"):
        reader.fail_here("expected an operator, or ':' and a value after a key, as in 30:(2)")
    moving = key.names.intersection(("t", *series)) if isinstance(key, Expression) else None
    if moving:
        message = f"a key cannot depend on '{min(moving)}': expected one frame's number"
        raise ExpressionError(message, offset)
    return Entry(key, offset, reader.expression())


def _separator(reader: ExpressionReader) -> bool:
    """Passes what stands between two entries; returns whether there is another one."""
    lines = reader.skip_lines()
    comma = reader.take(",")
    reader.skip_lines()
    if reader.token.kind == "end":
        return False
    if not (lines or comma):
        reader.fail_here("expected an operator, or ',' and the next key, such as 30:(2)")
    return True
