"""Key-frame text to key frames: `parse_prompts`, the list of the parser's stages.

Every front end calls it and gives the result to `Timeline`. The invariant: text gives ascending
key frames or a `PromptError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from operator import attrgetter
from reprlib import repr as quote

from giffusion.engine.prompts.body import Affixes, read_affix, read_body
from giffusion.engine.prompts.json_form import is_json, json_entries
from giffusion.engine.prompts.keyframe import KeyFrame
from giffusion.engine.prompts.keys import Clock
from giffusion.engine.prompts.lines import line_entries
from giffusion.engine.prompts.page import AFFIXES, Entry, cut, read_page

Name = int | str
"""What a key means: the number of a frame, or one of `AFFIXES`."""


def parse_prompts(
    text: str,
    source: str = "<prompts>",
    *,
    fps: Fraction = Fraction(24),
    num_frames: int | None = None,
    seed: int | None = 0,
    head: str = "",
    tail: str = "",
) -> tuple[KeyFrame, ...]:
    """Reads key frames, in any order, in the line form or as JSON.

    Args:
        text: key frames; `docs/grammar.md` has the grammar.
        source: name of the text for error messages, such as its path.
        fps: frames a second, by which keys such as `2.5s` are counted.
        num_frames: number of frames of the video, for keys such as `max_f/2`; None if not known.
        seed: of the job, which keys know as `s`; None if not known.
        head: put before the text of every part, before the text's own head.
        tail: put after the text of every part, after the text's own tail.

    Returns:
        One or more key frames, sorted by frame, no two at the same one.

    Raises:
        PromptError: the text, the head or the tail does not follow the grammar.
    """
    page = read_page(text, source)
    entries = json_entries(page) if is_json(page) else line_entries(page)
    named = _named(entries, Clock(fps, num_frames, seed))
    affixes = _affixes(named, head, tail)
    frames = [(name, entry) for name, entry in named.items() if isinstance(name, int)]
    if not frames:
        page.fail(0, "no key frame found: write one such as '0: a corgi'")
    key_frames = [read_body(frame, entry.body, affixes) for frame, entry in frames]
    return tuple(sorted(key_frames, key=attrgetter("frame")))


def _named(entries: Iterable[Entry], clock: Clock) -> dict[Name, Entry]:
    named: dict[Name, Entry] = {}
    for entry in entries:
        key = entry.key
        name = key.text if key.text in AFFIXES else clock.frame(key)
        if (first := named.setdefault(name, entry)) is not entry:
            key.fail(0, f"{_called(name)} stands {_places(first, entry)}: remove one of them")
        if not entry.body.text:
            key.fail(0, f"{_called(name)} has no prompt: expected text after ':'")
    return named


def _called(name: Name) -> str:
    return f"key frame {name}" if isinstance(name, int) else f"'{name}'"


def _places(first: Entry, second: Entry) -> str:
    places = [f"on line {entry.key.line}" for entry in (first, second)]
    if first.key.text != second.key.text:
        keys = (quote(first.key.text), quote(second.key.text))
        places = [f"{place} as {key}" for place, key in zip(places, keys, strict=True)]
    return " and again ".join(places)


def _affixes(named: dict[Name, Entry], head: str, tail: str) -> Affixes:
    own = {name: _own(named, name) for name in AFFIXES}
    return Affixes(
        before=(*_given("head", head), *own["head"]),
        after=(*own["tail"], *_given("tail", tail)),
    )


def _own(named: dict[Name, Entry], name: str) -> tuple[str, ...]:
    return (read_affix(name, named[name].body),) if name in named else ()


def _given(name: str, text: str) -> tuple[str, ...]:
    """Reads the head or tail that was given beside the text; white space alone is none."""
    page = read_page(text, name)
    start = len(page.text) - len(page.text.lstrip())
    body = cut(page, start, len(page.text.rstrip()))
    body.check_characters()
    return (read_affix(name, body),) if body.text else ()
