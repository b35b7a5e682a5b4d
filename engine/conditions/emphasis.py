r"""Weights of words inside a prompt: `a (red:1.3) house, [fog]`, with AUTOMATIC1111's meaning.

`prompts/` checks every text with it before anything is loaded, and `tokenizer.py` weighs tokens
by it. The invariant: a text gives fragments or an `EmphasisError` that says where, in time
proportional to its length.

    (word)      times 1.1            [word]      divided by 1.1
    (word:1.3)  times 1.3            ((word))    those inside one another multiply
    \(  \)  \[  \]  \\               the characters themselves; any other `\` is text
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from reprlib import repr as quote

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.schedules.limits import plain_number

ROUND_FACTOR = 1.1
SQUARE_FACTOR = 1 / 1.1
MAX_EMPHASIS = 10.0
_FACTORS = {"(": ROUND_FACTOR, "[": SQUARE_FACTOR}
_CLOSING = {"(": ")", "[": "]"}
# Wider than a weight, so that `(word:1,3)` is refused rather than taken for words.
_MARK = re.compile(
    r"\\[\\()\[\]]|[()\[\]]"
    r"|:\s*+(?P<weight>[-+]?(?=[.,]*+[0-9])[0-9.,]++(?:[eE][-+]?[0-9]++)?)\s*+(?P<close>[)\]])"
)


class EmphasisError(InputError):
    """Brackets or weights in a prompt that have no meaning.

    Args:
        message: what is wrong and what to do.
        offset: where in the text, in characters from 0.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of characters of one weight.

    Args:
        text: the characters without marks; not empty.
        weight: factor of their tokens' embeddings, 0 … `MAX_EMPHASIS`.
    """

    text: str
    weight: float


def parse_emphasis(text: str) -> tuple[Fragment, ...]:
    """Reads the weights of a prompt.

    Args:
        text: a prompt with marks, such as `Part.text`.

    Returns:
        Fragments, neighbours of unequal weight; their texts joined are the prompt without marks.

    Raises:
        EmphasisError: brackets that do not pair, weights out of range, or prompt editing.
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return (Fragment(text, 1.0),) if text else ()
    pieces = _pieces(text, marks, _factors(marks))
    return tuple(
        Fragment("".join(piece.text for piece in run), weight)
        for weight, run in groupby(pieces, attrgetter("weight"))
    )


def plain_text(text: str) -> str:
    """Returns a prompt without its marks.

    Raises:
        EmphasisError: see `parse_emphasis`.
    """
    return "".join(fragment.text for fragment in parse_emphasis(text))


def check_emphasis(text: str, name: str) -> None:
    """Checks the weights of a setting.

    Args:
        text: a prompt with marks.
        name: of the setting, for the message.

    Raises:
        SettingsError: they have no meaning.
    """
    try:
        parse_emphasis(text)
    except EmphasisError as error:
        raise SettingsError(f"{name}, character {error.offset + 1}: {error}") from error


def _factors(marks: list[re.Match[str]]) -> dict[int, float]:
    """Pairs the brackets; returns the factor of each by the offset of its opening."""
    factors: dict[int, float] = {}
    opened: list[re.Match[str]] = []
    for mark in marks:
        if mark[0] in _FACTORS:
            opened.append(mark)
        elif mark[0][0] != "\\":
            opening = _opening(opened, mark)
            factors[opening.start()] = _factor(opening[0], mark)
    if opened:
        bracket = opened[-1][0]
        message = f"'{bracket}' is never closed: close it, or write '\\{bracket}' for text"
        raise EmphasisError(message, opened[-1].start())
    return factors


def _opening(opened: list[re.Match[str]], mark: re.Match[str]) -> re.Match[str]:
    closing, at = mark[0][-1], mark.end() - 1
    if not opened:
        raise EmphasisError(f"'{closing}' closes nothing: write '\\{closing}' for text", at)
    opening = opened.pop()
    if (expected := _CLOSING[opening[0]]) != closing:
        message = f"'{closing}' stands inside of '{opening[0]}': expected '{expected}' before it"
        raise EmphasisError(f"{message}, or '\\{closing}' for text", at)
    return opening


def _factor(bracket: str, mark: re.Match[str]) -> float:
    written = mark["weight"]
    if written is None:
        return _FACTORS[bracket]
    if bracket == "[":
        message = "prompt editing such as '[from:to:0.5]' is not offered: use key frames"
        raise EmphasisError(f"{message}, or write '\\[' and '\\]' for text", mark.start())
    weight = plain_number(written)
    if not 0 <= weight <= MAX_EMPHASIS:
        expected = f"expected 0 to {MAX_EMPHASIS:g}; write '\\(' and '\\)' for text"
        message = f"weight {quote(written)} is not usable: {expected}"
        raise EmphasisError(message, mark.start("weight"))
    return weight


def _pieces(text: str, marks: list[re.Match[str]], factors: dict[int, float]) -> Iterator[Fragment]:
    """Yields the text between the marks, each piece with the product of the brackets around it."""
    weights, end = [1.0], 0
    for mark in marks:
        if mark.start() > end:
            yield _piece(text[end : mark.start()], weights[-1], end)
        end = mark.end()
        if mark[0] in _FACTORS:
            weights.append(weights[-1] * factors[mark.start()])
        elif mark[0][0] == "\\":
            yield _piece(mark[0][1], weights[-1], mark.start())
        else:
            weights.pop()
    if end < len(text):
        yield Fragment(text[end:], 1.0)


def _piece(text: str, weight: float, offset: int) -> Fragment:
    if not weight <= MAX_EMPHASIS:
        message = f"brackets around {quote(text)} multiply to the weight {weight:.4g}"
        raise EmphasisError(f"{message}: expected at most {MAX_EMPHASIS:g}; remove some", offset)
    return Fragment(text, weight)
