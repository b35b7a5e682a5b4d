r"""The body of an entry to fields: the text after each `|`, `::` and `--name`.

`body.py` gives fields their meaning. The invariant: a field's text is in the form of `Part.text`,
and knows where each of its characters came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from giffusion.engine.conditions.emphasis import EmphasisError, parse_emphasis
from giffusion.engine.prompts.keyframe import MAX_TEXT_LENGTH
from giffusion.engine.prompts.page import Passage

MAX_RAW_LENGTH = 20 * MAX_TEXT_LENGTH
"""Characters of a field as it is written, with escapes and blank lines."""
_ESCAPES = r"\\(?:[\\()\[\]|]|::|--)"
# The look-behind stands late, so that the search is for single characters.
_MARK = re.compile(rf"{_ESCAPES}|--(?<![^\s|]--)[^\W\d_][^\s|]*+|\||::(?!:)")
_REPLACED = re.compile(rf"{_ESCAPES}|\\|\n\s*+")
_TO_ESCAPE = re.compile(r"--(?<![^\s|]--)(?=[^\W\d_])|\||::")
_KEPT = "\\()[]"


@dataclass(frozen=True, slots=True)
class Field:
    """The text after a mark: `|` (also before the first part), `::`, or an option's `--name`.

    Args:
        mark: the mark.
        text: what follows it, in the form of `Part.text`; may be empty.
        body: the whole.
        at: offset of the mark in the body.
        start: offset of the text in the body.
        stop: offset of its end.
    """

    mark: str
    text: str
    body: Passage
    at: int
    start: int
    stop: int

    def fail(self, message: str) -> NoReturn:
        """Refuses the field.

        Raises:
            PromptError: always, at the mark.
        """
        self.body.fail(self.at, message)

    def check_length(self) -> None:
        """Refuses a text that is too long.

        Raises:
            PromptError: at the mark.
        """
        if self.stop - self.start > MAX_RAW_LENGTH or len(self.text) > MAX_TEXT_LENGTH:
            self.fail(f"the text is too long: expected at most {MAX_TEXT_LENGTH} characters")

    def check_emphasis(self) -> None:
        """Checks the weights in the text.

        Raises:
            PromptError: they have no meaning.
        """
        try:
            parse_emphasis(self.text)
        except EmphasisError as error:
            self.body.fail(self._locate(error.offset), str(error))

    def _locate(self, offset: int) -> int:
        """Returns where in the body a character of the text was written."""
        place = offset
        for match in _REPLACED.finditer(self.body.text, self.start, self.stop):
            if match.start() - self.start >= place:
                break
            place += len(match[0]) - len(_replacement(match))
        return self.start + place


def split_fields(body: Passage) -> Iterator[Field]:
    """Yields the fields of a body, the first of which has the mark `|`."""
    mark, at, begin = "|", 0, 0
    for token in _MARK.finditer(body.text):
        if token[0][0] != "\\":
            yield _field(body, mark, at, begin, token.start())
            mark, at, begin = token[0], token.start(), token.end()
        elif token.start() - begin > MAX_RAW_LENGTH:
            # Refused as it is, and what follows cannot change that.
            break
    yield _field(body, mark, at, begin, len(body.text))


def escape(text: str) -> str:
    r"""Returns a text, which is in the form of `Part.text`, as it is written in a body."""
    return _TO_ESCAPE.sub(r"\\\g<0>", text)


def _field(body: Passage, mark: str, at: int, begin: int, end: int) -> Field:
    text = body.text[begin:end]
    start = end - len(text.lstrip())
    raw = text.strip()
    short = raw[: MAX_RAW_LENGTH + 1]
    if "\\" in short or "\n" in short:
        short = _REPLACED.sub(_replacement, short)
    return Field(mark, short, body, at, start, start + len(raw))


def _replacement(match: re.Match[str]) -> str:
    written = match[0]
    if written[0] == "\n":
        return " "
    if written == "\\":
        return "\\\\"
    return written if written[1] in _KEPT else written[1:]
