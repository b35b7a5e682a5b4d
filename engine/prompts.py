"""Key-frame text to key frames and back: `"0: a corgi\\n60: a lion"`.

Every front end calls `parse_prompts` and gives the result to `Timeline`. The invariant: text gives
ascending key frames or a `PromptError`, and `parse_prompts(format_prompts(k)) == k` for those.

    FRAME: text                one key frame; a line that starts with no key continues it
    # text                     a comment, where `#` is the first character of a line
    a::1.5 | b::-0.4           parts that are composed, with their weights
    text --neg text --seed N   options, after all parts
    \\|  \\::  \\--  \\\\             the characters themselves
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, takewhile
from operator import attrgetter
from reprlib import repr as quote
from typing import NoReturn

from giffusion.engine.errors import PromptError, nearest
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED

MAX_WEIGHT = 100.0
MIN_WEIGHT_SUM = 1e-6
OPTIONS = ("neg", "seed")
_PART_MARKS = ("|", "::")

# Form feeds and U+2028 stay text: editors, whose line numbers an error has to match, keep them.
_BREAK = re.compile(r"\r\n|\r|\n")
# Wider than the grammar, so that `-5:`, `1.5:`, `2.5s:` are refused rather than taken for prose.
_KEY = re.compile(
    r"(?m)^[^\S\n]*+(?P<key>[-+\u2212]?\.?\d[\d_.,eE/+-]*+(?:[^\S\n]*+[sS])?+)"
    r"[^\S\n]*+(?P<colon>[:\uff1a])"
)
_TOKEN = re.compile(r"\\(?:[\\|]|::|--)|(?<![^\s|])--[^\W\d_][^\s|]*|\||::(?!:)|\n\s*+")
_TO_ESCAPE = re.compile(r"\\(?=[\\|:]|--|\Z)|(?<![^\s|])--(?=[^\W\d_])|\||::")
_escape = partial(_TO_ESCAPE.sub, r"\\\g<0>")
_NUMBER = re.compile(r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][-+]?[0-9]++)?")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Part:
    """One of the prompts that a key frame composes.

    Args:
        text: not empty, without line breaks and without white space at its ends.
        weight: relative to the other parts, -`MAX_WEIGHT` … `MAX_WEIGHT`.
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """What is shown at one frame.

    Args:
        frame: number of the frame, 0 … `MAX_FRAMES` - 1.
        parts: one or more; their weights do not sum to zero.
        negative: what to steer away from, or None for the job's own; in the form of `Part.text`.
        seed: seed of the noise, 0 … 2^63 - 1, or None for one derived from the job's.
    """

    frame: int
    parts: tuple[Part, ...]
    negative: str | None = None
    seed: int | None = None


def parse_prompts(text: str, source: str = "<prompts>") -> tuple[KeyFrame, ...]:
    """Reads key frames, one a line, in any order.

    Args:
        text: the lines; the module's docstring has their grammar.
        source: name of the text for error messages, such as its path.

    Returns:
        One or more key frames, sorted by frame, no two at the same one.

    Raises:
        PromptError: the text does not follow the grammar.
    """
    page = _page(text, source)
    keys = _keys(page)
    stops = [*(key.start() for key in keys.values()), len(page.text)][1:]
    key_frames = map(partial(_key_frame, page), keys, keys.values(), stops)
    return tuple(sorted(key_frames, key=attrgetter("frame")))


def format_prompts(key_frames: Iterable[KeyFrame]) -> str:
    """Writes valid key frames as the text that `parse_prompts` reads, one line each."""
    return "".join(f"{_format_key_frame(key_frame)}\n" for key_frame in key_frames)


def _format_key_frame(key_frame: KeyFrame) -> str:
    weighed = (f"{_escape(p.text)}::{p.weight!r}" for p in key_frame.parts)
    words = [f"{key_frame.frame}:", " | ".join(part.removesuffix("::1.0") for part in weighed)]
    if key_frame.negative is not None:
        words += ["--neg", _escape(key_frame.negative)]
    if key_frame.seed is not None:
        words += ["--seed", str(key_frame.seed)]
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class _Page:
    """The text with comments blanked and `\\n` line breaks, which leaves every place its own."""

    text: str
    source: str

    def line(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    def fail(self, offset: int, what: str, advice: str) -> NoReturn:
        line, column = self.line(offset), offset - self.text.rfind("\n", 0, offset)
        raise PromptError(f"{what}: {advice}", line=line, column=column, source=self.source)


@dataclass(frozen=True, slots=True)
class _Field:
    """The text after a mark: `|` (also before the first part), `::`, or an option's `--name`."""

    mark: str
    offset: int
    text: str


def _page(text: str, source: str) -> _Page:
    lines = _BREAK.split(text.removeprefix("\ufeff"))
    kept = ["" if line.lstrip().startswith("#") else line.rstrip() for line in lines]
    return _Page("\n".join(kept), source)


def _keys(page: _Page) -> dict[int, re.Match[str]]:
    matches = list(_KEY.finditer(page.text))
    _check_page(page, page.text[: matches[0].start()] if matches else page.text)
    keys: dict[int, re.Match[str]] = {}
    for match in matches:
        frame, at = _frame(page, match), match.start("key")
        if (first := keys.setdefault(frame, match)) is not match:
            lines = f"line {page.line(first.start('key'))} and again on line {page.line(at)}"
            page.fail(at, f"key frame {frame} stands on {lines}", "remove one, or join them by '|'")
    return keys


def _check_page(page: _Page, before: str) -> None:
    if stray := before.lstrip():
        page.fail(len(before) - len(stray), "text before any key frame", "expected '0: a corgi'")
    if before == page.text:
        page.fail(0, "no key frame found", "write lines such as '0: a corgi'")
    if lone := _SURROGATE.search(page.text):
        page.fail(lone.start(), f"{lone[0]!r} is not a character", "save the text as UTF-8")


def _frame(page: _Page, key: re.Match[str]) -> int:
    frame = _whole(key["key"], MAX_FRAMES - 1)
    if frame is None or key["colon"] != ":":
        advice = f"expected 0 to {MAX_FRAMES - 1} in digits and then ':', as in '12: a corgi'"
        page.fail(key.start("key"), f"{quote(key[0].strip())} begins no key frame", advice)
    return frame


def _key_frame(page: _Page, frame: int, key: re.Match[str], stop: int) -> KeyFrame:
    body = page.text[key.end() : stop].lstrip()
    if not body:
        page.fail(key.start("key"), f"key frame {frame} has no prompt", "expected text after ':'")
    fields = list(_fields(body, stop - len(body)))
    num_parts = sum(1 for _ in takewhile(lambda field: field.mark in _PART_MARKS, fields))
    parts = _parts(page, fields[:num_parts])
    options = _options(page, fields[num_parts:])
    negative = options["neg"].text if "neg" in options else None
    seed = _seed(page, options["seed"]) if "seed" in options else None
    return KeyFrame(frame, parts, negative, seed)


def _fields(body: str, offset: int) -> Iterator[_Field]:
    mark, start, end = "|", 0, 0
    kept: list[str] = []
    for token in _TOKEN.finditer(body):
        kept.append(body[end : token.start()])
        end = token.end()
        if token[0][0] in "\\\n":
            kept.append(token[0][1:] if token[0][0] == "\\" else " ")
        else:
            yield _Field(mark, offset + start, "".join(kept).strip())
            mark, start, kept = token[0], token.start(), []
    yield _Field(mark, offset + start, "".join([*kept, body[end:]]).strip())


def _parts(page: _Page, fields: list[_Field]) -> tuple[Part, ...]:
    parts: list[Part] = []
    for before, field in pairwise((fields[0], *fields)):
        if field.mark == "::":
            parts[-1] = Part(parts[-1].text, _weight(page, before, field))
        elif field.text:
            parts.append(Part(field.text))
        else:
            page.fail(field.offset, "no prompt here", "expected text around '|', before '::', '--'")
    if abs(math.fsum(part.weight for part in parts)) < MIN_WEIGHT_SUM:
        page.fail(fields[0].offset, "weights sum to zero", "they cannot be normalised, change one")
    return tuple(parts)


def _weight(page: _Page, before: _Field, field: _Field) -> float:
    weight = float(field.text) if _NUMBER.fullmatch(field.text) else math.nan
    if before.mark == "::" or not abs(weight) <= MAX_WEIGHT:
        advice = f"expected one from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}; write '\\::' for text"
        page.fail(field.offset, f"weight {quote(field.text)} is not usable", advice)
    return weight


def _options(page: _Page, fields: list[_Field]) -> dict[str, _Field]:
    options: dict[str, _Field] = {}
    for field in fields:
        mark, name = field.mark, field.mark.removeprefix("--")
        if mark in _PART_MARKS:
            advice = f"expected options after all parts; write '\\{mark}' for text"
            page.fail(field.offset, f"'{mark}' after an option", advice)
        if name not in OPTIONS:
            advice = f"{nearest(name, OPTIONS)}; or write '\\--' for text"
            page.fail(field.offset, f"unknown option {quote(mark)}", advice)
        if not field.text:
            page.fail(field.offset, f"option '{mark}' has no value", f"expected '{mark} VALUE'")
        if options.setdefault(name, field) is not field:
            page.fail(field.offset, f"option '{mark}' is given twice", "remove one")
    return options


def _seed(page: _Page, field: _Field) -> int:
    seed = _whole(field.text, MAX_SEED)
    if seed is None:
        advice = f"expected one number from 0 to {MAX_SEED}"
        page.fail(field.offset, f"seed {quote(field.text)} is not usable", advice)
    return seed


def _whole(text: str, limit: int) -> int | None:
    # Nineteen digits hold every limit; Python refuses to convert thousands of them.
    match = re.fullmatch("0*([0-9]{1,19})", text)
    return int(match[1]) if match and int(match[1]) <= limit else None
