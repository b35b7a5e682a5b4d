r"""The line form: one key frame a line, `KEY: text`, cut into entries.

The parser calls `line_entries` for text that is not JSON. A line begins an entry where everything
up to its first colon is `head`, `tail`, or what a key can be made of: numbers, `max_f`, `fps`, `s`,
`pi`, functions, operators, paired brackets; and where that begins with a number, a sign, a bracket,
`max_f`, `fps` or the call of a function, and has a digit, `max_f` or `fps` in it. Any other line
continues the one above it, and one that begins with `#` is a comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain, pairwise
from reprlib import repr as quote

from giffusion.engine.errors import nearest
from giffusion.engine.prompts.page import AFFIXES, Entry, Page, cut
from giffusion.engine.schedules.expressions import FUNCTIONS

_CALLS = "|".join(sorted(FUNCTIONS, key=len, reverse=True))
_BEGIN = rf"[-+.\u2212\d(]|(?:max_f|fps)(?!\w)|(?:{_CALLS})[^\S\n]*+\("
_NAMES = rf"max_f|fps|pi|[sS]|{_CALLS}"
# Wider than what a key can be, so that `-5:` and `1,000:` are refused rather than taken for prose.
_ATOM = rf"[^\S\n]++|[\d.,_+\-\u2212*/%^()]++|[eE](?=[-+]?\d)|(?:{_NAMES})(?!\w)"
_KEY = re.compile(
    rf"(?m)^[^\S\n]*+(?P<key>(?:head|tail)(?=[^\S\n]*+[:\uff1a])|(?={_BEGIN})(?:{_ATOM})++)"
    r"[^\S\n]*+(?P<colon>[:\uff1a])"
)
_TELLING = re.compile(r"\d|max_f|fps|head|tail")


def line_entries(page: Page) -> Iterator[Entry]:
    """Yields the entries of a page, in the order of its lines.

    Raises:
        PromptError: there is no entry, text before the first one, or `head` or `tail` after
            a key frame.
    """
    page = _without_comments(page)
    keys = (key for key in _KEY.finditer(page.text) if _is_key(key["key"]))
    first = next(keys, None)
    _check_before(page, page.text[: first.start()] if first else page.text)
    seen_frame = False
    for key, after in pairwise(chain([first], keys, [None])):
        if key is not None:
            entry = _entry(page, key, after.start() if after else len(page.text))
            seen_frame = _seen_frame(entry, seen_frame)
            yield entry


def _seen_frame(entry: Entry, before: bool) -> bool:
    if entry.key.text not in AFFIXES:
        return True
    if before:
        what = f"'{entry.key.text}:' stands after a key frame: expected it before the first one"
        entry.key.fail(0, f"{what}; as text, join it with the line above")
    return False


def _without_comments(page: Page) -> Page:
    """Blanks comments and strips the ends of lines, which leaves every character its place."""
    lines = page.text.split("\n")
    kept = ["" if line.lstrip().startswith("#") else line.rstrip() for line in lines]
    return Page("\n".join(kept), page.source)


def _is_key(text: str) -> bool:
    # A bracket that is open at the colon is a weight, `(1:1.2)`.
    return text.count("(") == text.count(")") and _TELLING.search(text) is not None


def _check_before(page: Page, before: str) -> None:
    if stray := before.lstrip():
        place = len(before) - len(stray)
        page.fail(place, f"text before any key frame: {_expected_for(stray)}")
    if before == page.text:
        page.fail(0, "no key frame found: write lines such as '0: a corgi'")
    cut(page, 0, len(page.text)).check_characters()


def _expected_for(stray: str) -> str:
    """Says what belongs before the first key frame, for one who may have meant `head` or `tail`."""
    word = re.match(r"[a-zA-Z]{1,10}(?=[^\S\n]*+:)", stray)
    meant = nearest(word[0], AFFIXES) if word else ""
    return "expected '0: a corgi'" + (f"; {meant}" if meant.startswith("did you mean") else "")


def _entry(page: Page, match: re.Match[str], stop: int) -> Entry:
    start = match.start("key")
    key = cut(page, start, start + len(match["key"].rstrip()))
    if match["colon"] != ":":
        key.fail(0, f"{quote(match[0].strip())} begins no key frame: expected ':' after the key")
    body = page.text[match.end() : stop]
    begin = stop - len(body.lstrip())
    return Entry(key, cut(page, begin, begin + len(body.strip())))
