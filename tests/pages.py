"""The fenced blocks of the pages in `docs/`: what tests take their examples from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent.parent / "docs"
_FENCED = re.compile(r"^```(?P<kind>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block.

    Args:
        kind: the word after the fence.
        text: its lines, each with its line feed.
        line: number of its first line on the page, from 1.
    """

    kind: str
    text: str
    line: int


def blocks(page: str, kind: str | None = None) -> list[Block]:
    """Returns the blocks of a page, such as `grammar.md`, or those of one kind, of which it has."""
    text = (DOCS / page).read_text("utf-8")
    found = [
        Block(match["kind"], match["text"], text.count("\n", 0, match.start("text")) + 1)
        for match in _FENCED.finditer(text)
        if kind in (None, match["kind"])
    ]
    assert found, f"docs/{page} has no block of kind {kind}"
    return found


def page_texts(page: str, kind: str) -> list[str]:
    """Returns the texts of a page's blocks of one kind, without their last line feed."""
    return [block.text.removesuffix("\n") for block in blocks(page, kind)]
