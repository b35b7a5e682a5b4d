r"""The JSON form: one object of strings, `{"0": "a --neg b", "max_f/2": "c"}`, cut into entries.

The parser calls `json_entries` for text that begins with `{`. It reads the text itself, not by
`json.loads`, which forgets places and keeps the last of equal keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from reprlib import repr as quote
from typing import NoReturn

from giffusion.engine.errors import one_line
from giffusion.engine.prompts.page import Entry, Page, Passage

_SPACE = re.compile(r"\s*+")
# One match for each character of the string that JSON's escapes stand for.
_ESCAPE = (
    r'\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
)
_CHARACTER = re.compile(rf"{_ESCAPE}|[^\\]", re.DOTALL)
_STRING = re.compile(rf'"(?:[^"\\\x00-\x1f]++|{_ESCAPE})*+')
_EXAMPLE = '{"0": "a corgi", "60": "a lion"}'


def is_json(page: Page) -> bool:
    """Returns whether a page is written in the JSON form."""
    return page.text.lstrip().startswith("{")


def json_entries(page: Page) -> Iterator[Entry]:
    """Yields the entries of a page, in the order of its text.

    Raises:
        PromptError: the text is not one JSON object of strings.
    """
    return _Reader(page).entries()


class _Reader:
    """Reads marks and strings from a page, from its start."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._at = 0

    def entries(self) -> Iterator[Entry]:
        """Yields the entries of the object, which has to be all that is on the page."""
        self._take("{")
        closed = self._take("}")
        while not closed:
            key = self._string("a key")
            if not self._take(":"):
                self._fail("':' after the key")
            yield Entry(_stripped(key), _stripped(self._string("a prompt")))
            closed = self._closed()
        if self._rest():
            self._fail("nothing after '}'")

    def _closed(self) -> bool:
        """Passes what follows an entry; returns whether it ends the object."""
        if self._take("}"):
            return True
        if not self._take(","):
            self._fail("',' or '}' after the prompt")
        if self._rest() == "}":
            self._fail("another key after ','; remove one of them")
        return False

    def _rest(self) -> str:
        """Passes white space; returns the character that follows, or nothing at the end."""
        space = _SPACE.match(self._page.text, self._at)
        self._at = space.end() if space else self._at
        return self._page.text[self._at : self._at + 1]

    def _take(self, mark: str) -> bool:
        taken = self._rest() == mark
        self._at += taken
        return taken

    def _fail(self, expected: str) -> NoReturn:
        got = quote(self._rest()) if self._rest() else "the end"
        self._page.fail(self._at, f"{got} is not what belongs here: expected {expected}")

    def _string(self, what: str) -> Passage:
        self._rest()
        text = self._page.text
        match = _STRING.match(text, self._at)
        if match is None:
            self._fail(f"{what} in double quotes, as in {_EXAMPLE}")
        start, stop = match.start() + 1, match.end()
        if text[stop : stop + 1] != '"':
            self._fail_inside(stop)
        self._at = stop + 1
        raw = text[start:stop]
        # Line breaks as the rest of the grammar knows them, without moving a character.
        value: str = json.loads(f'"{raw}"')
        passage = Passage(value.replace("\r", "\n"), self._page, partial(_locate, raw, start))
        passage.check_characters()
        return passage

    def _fail_inside(self, at: int) -> NoReturn:
        """Refuses what ends a string before its quote."""
        page = self._page
        found = page.text[at : at + 2]
        if not found:
            page.fail(self._at, "'\"' is never closed: expected another at the end of the text")
        if found[0] == "\\":
            advice = f"write '\\{one_line(found)}' for a backslash"
            page.fail(at, f"'{one_line(found)}' is no escape of JSON: {advice}")
        page.fail(
            at, f"{found[0]!r} inside of quotes: write it as an escape, or close them by '\"'"
        )


def _locate(raw: str, start: int, offset: int) -> int:
    """Returns the place on the page of a character of a string, of which `raw` is the source."""
    lengths = (len(match[0]) for match in islice(_CHARACTER.finditer(raw), offset))
    return start + sum(lengths)


def _stripped(passage: Passage) -> Passage:
    text = passage.text.lstrip()
    lead = len(passage.text) - len(text)
    return Passage(text.rstrip(), passage.page, lambda offset: passage.locate(lead + offset))
