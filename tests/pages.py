"""The pages in `docs/`, their fenced blocks and tables: what tests take their examples from."""

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


def read_page(page: str) -> str:
    """Returns the text of a page, such as `grammar.md`."""
    return (DOCS / page).read_text("utf-8")


def blocks(page: str, kind: str | None = None) -> list[Block]:
    """Returns the blocks of a page, or those of one kind, of which it has."""
    text = read_page(page)
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


def table_rows(page: str) -> list[list[str]]:
    """Returns the cells of every row of a page's tables, without the spaces around them."""
    lines = [line for line in read_page(page).splitlines() if line.startswith("|")]
    assert lines, f"docs/{page} has no table"
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
