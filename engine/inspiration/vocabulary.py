"""What there is to show, and how it is said: the words of `data/*.json`.

`vocabulary_for` chooses one for a model: a model that was trained on few words has its own, named
like it, and all others share `scenes`. The invariant: a vocabulary that was read can be walked:
each of its sentences' slots has entries.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

from giffusion.engine.inspiration.topics import words

DEFAULT_VOCABULARY = "scenes"
TOPIC = "topic"
"""The slot of a sentence in which a topic is named."""
_DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that a slot can be filled with.

    Args:
        text: the words, such as `a red fox`.
        themes: what it is about; empty for what goes with everything.
    """

    text: str
    themes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words and sentences.

    Args:
        name: what it is called.
        clauses: sentences, each as clauses with slots in braces; a clause without an entry is left
            out.
        links: how a topic is named, with `{topic}` in it.
        names_known: whether topics are named that have themes, and sway the choice as it is.
        walk: the slots one of which changes from a key frame to the next; the first is what
            prompts are about.
        cycle: the slots whose entries follow one another, such as the hours of a day.
        slots: the entries of each slot; those that neither walk nor cycle are chosen once.
        topics: the themes of a word, which is as `giffusion.engine.inspiration.topics.words` has
            it.
    """

    name: str
    clauses: tuple[tuple[str, ...], ...]
    links: tuple[str, ...]
    names_known: bool
    walk: tuple[str, ...]
    cycle: tuple[str, ...]
    slots: Mapping[str, tuple[Entry, ...]]
    topics: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Reads one of the project's own vocabularies."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = cls(
            name=path.stem,
            clauses=tuple(map(tuple, values["clauses"])),
            links=tuple(values["links"]),
            names_known=values["names_known"],
            walk=tuple(values["walk"]),
            cycle=tuple(values["cycle"]),
            slots={slot: _entries(themes) for slot, themes in values["slots"].items()},
            topics=_topics(values["topics"]),
        )
        assert all(vocabulary.slots.values())
        assert vocabulary.named_slots() == vocabulary.slots.keys() | {TOPIC}
        return vocabulary

    def named_slots(self) -> set[str]:
        """Returns the slots that its sentences name."""
        texts = [clause for sentence in self.clauses for clause in sentence]
        return {slot for text in texts for _, slot, _, _ in Formatter().parse(text) if slot}

    def themes_of(self, topic: str) -> frozenset[str]:
        """Returns what a topic is about, as far as the vocabulary knows its words."""
        found = (self.topics.get(word, frozenset()) for word in words(topic))
        return frozenset().union(*found)


def vocabulary_for(model: str) -> Vocabulary:
    """Returns the vocabulary that goes with a model; a variant, `mini-turbo`, has its model's.

    Args:
        model: the name in its manifest.
    """
    family = model.removesuffix("-turbo")
    return _read(family if family in _own_vocabularies() else DEFAULT_VOCABULARY)


def _own_vocabularies() -> set[str]:
    return {path.stem for path in _DATA.glob("*.json")}


@cache
def _read(name: str) -> Vocabulary:
    return Vocabulary.read(_DATA / f"{name}.json")


def _entries(by_themes: Mapping[str, list[str]]) -> tuple[Entry, ...]:
    """Returns entries from texts by theme; one that stands under several has them all."""
    found: dict[str, set[str]] = defaultdict(set)
    for theme, texts in by_themes.items():
        for text in texts:
            found[text] |= {theme} if theme else set()
    return tuple(Entry(text, frozenset(themes)) for text, themes in found.items())


def _topics(by_theme: Mapping[str, str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for theme, listed in by_theme.items():
        for word in words(f"{theme} {listed}"):
            found[word].add(theme)
    return {word: frozenset(themes) for word, themes in found.items()}
