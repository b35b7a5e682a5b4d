"""Which types values have, wherever they come from: Python, a plan in a file, a manifest.

`settings.py`, `record.py` and `manifest.py` ask it. The invariant: a flag is no number, and every
refusal has words for what was expected instead of the name of a type.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

_NONE = type(None)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "Fraction": ((int, Fraction), "an exact number in quotes"),
    "Fraction | None": ((int, Fraction, _NONE), "an exact number in quotes, or null"),
    "bool": ((bool,), "true or false"),
    "dict[str, int]": ((dict,), "an object of whole numbers"),
    "dict[str, str]": ((dict,), "an object of texts"),
    "float": ((int, float), "a number"),
    "float | str": ((int, float, str), "a number or a schedule"),
    "float | str | None": ((int, float, str, _NONE), "a number, a schedule or null"),
    "int": ((int,), "a whole number"),
    "int | None": ((int, _NONE), "a whole number or null"),
    "int | str": ((int, str), "a whole number or a schedule"),
    "str": ((str,), "a text"),
    "str | None": ((str, _NONE), "a text or null"),
    "tuple[float, float] | None": ((tuple, _NONE), "two numbers or null"),
    "tuple[int, int] | None": ((tuple, _NONE), "two whole numbers or null"),
}

_VALUES: Mapping[str, type] = {"dict[str, int]": int, "dict[str, str]": str}


def expected_kind(value: object, annotation: str) -> str | None:
    """Says what a value should have been, or None where it is that.

    Args:
        value: of a setting, or of a manifest's field.
        annotation: the type, as the field has it.
    """
    types, words = _KINDS[annotation]
    if isinstance(value, bool) and bool not in types:
        return words
    if isinstance(value, tuple) and tuple in types:
        entries = (int, float) if "float" in annotation else (int,)
        if not (len(value) == 2 and all(type(v) in entries for v in value)):
            return words.removesuffix(" or null")
    if isinstance(value, dict) and {type(v) for v in value.values()} - {_VALUES.get(annotation)}:
        return words
    return None if isinstance(value, types) else words
