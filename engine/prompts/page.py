"""The text that is parsed, and the way from any piece of it back to a line and a column.

Both forms of the grammar cut a `Page` into `Entry`s, whose `Passage`s the other modules read. The
invariant: whatever is done to a piece of text, such as resolving JSON's escapes, its passage knows
the place on the page of every character.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import NoReturn

from giffusion.engine.errors import PromptError

AFFIXES = ("head", "tail")
"""The keys that name no frame."""
# Form feeds and U+2028 stay text: editors, whose line numbers an error has to match, keep them.
_BREAK = re.compile(r"\r\n?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Page:
    """A whole text, with line feeds as its only line breaks.

    Args:
        text: the characters.
        source: name of the text for error messages.
    """

    text: str
    source: str

    def line(self, offset: int) -> int:
        """Returns the number of the line in which a character stands, from 1."""
        return self.text.count("\n", 0, offset) + 1

    def fail(self, offset: int, message: str) -> NoReturn:
        """Refuses what stands at an offset.

        Raises:
            PromptError: always.
        """
        column = offset - self.text.rfind("\n", 0, offset)
        raise PromptError(message, line=self.line(offset), column=column, source=self.source)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a page's text.

    Args:
        text: its characters, as the grammar reads them.
        page: where it stands.
        locate: offset in `text` to offset on the page.
    """

    text: str
    page: Page
    locate: Callable[[int], int]

    @property
    def line(self) -> int:
        """Number of the line in which it begins, from 1."""
        return self.page.line(self.locate(0))

    def fail(self, offset: int, message: str) -> NoReturn:
        """Refuses what stands at an offset of `text`.

        Raises:
            PromptError: always.
        """
        self.page.fail(self.locate(offset), message)

    def check_characters(self) -> None:
        """Refuses halves of characters, which no encoder takes.

        Raises:
            PromptError: there is one.
        """
        if lone := _SURROGATE.search(self.text):
            self.fail(lone.start(), f"{lone[0]!r} is not a character: save the text as UTF-8")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, and the body that stands at it.

    Args:
        key: such as `12`, `2.5s`, `max_f/2` or `head`, without white space around it.
        body: all that belongs to it.
    """

    key: Passage
    body: Passage


def read_page(text: str, source: str) -> Page:
    """Returns a text as a page, without a byte order mark."""
    return Page(_BREAK.sub("\n", text.removeprefix("\ufeff")), source)


def cut(page: Page, start: int, stop: int) -> Passage:
    """Returns a piece of a page as it stands there."""
    return Passage(page.text[start:stop], page, partial(add, start))
