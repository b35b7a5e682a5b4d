"""Which types the values of settings have, wherever they come from: Python, or a plan in a file.

`settings.py` and `record.py` ask it. The invariant: a flag is no number, and every refusal has
words for what was expected instead of the name of a type.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

_NONE = type(None)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "Fraction": ((int, Fraction), "a rate in quotes"),
    "bool": ((bool,), "true or false"),
    "float": ((int, float), "a number"),
    "float | str": ((int, float, str), "a number or a schedule"),
    "float | str | None": ((int, float, str, _NONE), "a number, a schedule or null"),
    "int | None": ((int, _NONE), "a whole number or null"),
    "int | str": ((int, str), "a whole number or a schedule"),
    "str": ((str,), "a text"),
    "str | None": ((str, _NONE), "a text or null"),
    "tuple[int, int] | None": ((tuple, _NONE), "two whole numbers or null"),
}


def expected_kind(value: object, annotation: str) -> str | None:
    """Says what a value should have been, or None where it is that.

    Args:
        value: of a setting.
        annotation: the setting's type, as its field has it.
    """
    types, words = _KINDS[annotation]
    if isinstance(value, bool) and bool not in types:
        return words
    if isinstance(value, tuple) and not (len(value) == 2 and all(type(v) is int for v in value)):
        return "two whole numbers"
    return None if isinstance(value, types) else words
