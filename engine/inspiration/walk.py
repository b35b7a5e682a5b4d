"""Topics and a vocabulary to sentences, one for each key frame: a walk from picture to picture.

`key_frames.py` makes key frames of them. The invariant: two neighbours share all but one of what
walks, a subject or a place, so that a film between them has something that stays.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from giffusion.engine.inspiration.choice import Chooser
from giffusion.engine.inspiration.topics import words
from giffusion.engine.inspiration.vocabulary import TOPIC, Entry, Vocabulary

_NAMED = 16
"""How much likelier an entry is that a topic names, beside those that share its themes."""
_AKIN = 4
"""How much likelier an entry is that shares themes with what is there already."""
_SMALL_WORDS = {"a", "an", "and", "at", "for", "from", "in", "of", "on", "or", "the", "to", "with"}


@dataclass(frozen=True, slots=True)
class _Interest:
    """A topic, and the entries that it prefers.

    Args:
        topic: as the user wrote it.
        is_known: whether it prefers any of what walks.
        preferred: by slot, with weights.
    """

    topic: str
    is_known: bool
    preferred: dict[str, list[tuple[Entry, int]]]


def walk(vocabulary: Vocabulary, topics: Sequence[str], seed: int) -> Iterator[str]:
    """Yields sentences without an end.

    Args:
        vocabulary: what there is to show.
        topics: what to prefer; those that the vocabulary does not know are only named.
        seed: of all choices.
    """
    steps = _Walk(vocabulary, topics, Chooser(seed))
    return map(steps.sentence, count())


def subjects(vocabulary: Vocabulary, topics: Sequence[str], seed: int) -> Iterator[str]:
    """Yields what another writer may begin with: the subjects of a walk, one a step."""
    steps = _Walk(vocabulary, topics, Chooser(seed))
    slot = vocabulary.walk[0]
    return (steps.take(slot).text for _ in count())


class _Walk:
    """What is shown now, and what was shown before."""

    def __init__(self, vocabulary: Vocabulary, topics: Sequence[str], chooser: Chooser) -> None:
        self._vocabulary, self._chooser = vocabulary, chooser
        self._interests = [_interest(vocabulary, topic) for topic in topics]
        # Which topic has the first turn is up to the seed.
        self._first = chooser.number("turn")
        self._takes: Counter[str] = Counter()
        self._shown: dict[str, set[Entry]] = defaultdict(set)
        self._clauses = chooser.pick(vocabulary.clauses, "clauses")
        self._now = {
            slot: chooser.pick(entries, slot)
            for slot, entries in vocabulary.slots.items()
            if slot not in vocabulary.walk
        }

    def sentence(self, step: int) -> str:
        """Returns the sentence of a step; steps are asked for in their order."""
        moving = self._vocabulary.walk
        for slot in moving if step == 0 else [moving[step % len(moving)]]:
            self.take(slot)
        for slot in self._vocabulary.cycle if step else ():
            entries = self._vocabulary.slots[slot]
            after = entries.index(self._now[slot]) + 1
            self._now[slot] = entries[after % len(entries)]
        return self._written(step)

    def take(self, slot: str) -> Entry:
        """Fills a slot anew, and returns what it is filled with."""
        turn = self._takes[slot] + self._vocabulary.walk.index(slot)
        options = self._options(slot, turn)
        entry = self._chooser.weighted(options, slot, self._takes[slot])
        self._takes[slot] += 1
        self._shown[slot].add(entry)
        self._now[slot] = entry
        return entry

    def _options(self, slot: str, turn: int) -> list[tuple[Entry, int]]:
        """Returns what can follow: fresh entries of the topic whose turn it is, or all others."""
        shown = self._shown[slot]
        if self._interests:
            interest = self._turn(turn)
            if fresh := [pair for pair in interest.preferred[slot] if pair[0] not in shown]:
                return fresh
        entries = self._vocabulary.slots[slot]
        if len(shown) == len(entries):
            # All were shown: they begin again, without what is there now.
            shown.clear()
            shown |= {self._now[slot]} if len(entries) > 1 else set()
        others = [self._now[other] for other in self._vocabulary.walk if other in self._now]
        themes = frozenset().union(*(entry.themes for entry in others))
        rest = [entry for entry in entries if entry not in shown]
        return [(entry, _AKIN if entry.themes & themes else 1) for entry in rest]

    def _turn(self, turn: int) -> _Interest:
        return self._interests[(self._first + turn) % len(self._interests)]

    def _written(self, step: int) -> str:
        values = {slot: entry.text for slot, entry in self._now.items()}
        values[TOPIC] = ""
        plain = self._filled(values)
        values[TOPIC] = self._link(step, plain)
        return self._filled(values)

    def _filled(self, values: dict[str, str]) -> str:
        # Not `str.format` on what has a topic in it: topics may have braces.
        clauses = (clause.format_map(values) for clause in self._clauses)
        return ", ".join(clause for clause in clauses if clause)

    def _link(self, step: int, plain: str) -> str:
        """Returns how the topic of a step is named, or nothing where it shows already."""
        if not self._interests:
            return ""
        interest = self._turn(step)
        spoken = set(words(interest.topic))
        shows = bool(spoken) and spoken <= set(words(plain))
        if shows or (interest.is_known and not self._vocabulary.names_known):
            return ""
        link = self._chooser.pick(self._vocabulary.links, TOPIC, step)
        return link.replace("{topic}", interest.topic)


def _interest(vocabulary: Vocabulary, topic: str) -> _Interest:
    telling = set(words(topic)) - _SMALL_WORDS
    named = {
        entry
        for slot in vocabulary.walk
        for entry in vocabulary.slots[slot]
        if telling & set(words(entry.text))
    }
    # `whales` prefers a whale, and after it what else is of the sea.
    akin = frozenset().union(*(entry.themes for entry in named))
    themes = vocabulary.themes_of(topic) or akin
    preferred = {
        slot: list(_preferred(vocabulary.slots[slot], named, themes)) for slot in vocabulary.walk
    }
    return _Interest(topic, any(preferred.values()), preferred)


def _preferred(
    entries: Iterable[Entry], named: set[Entry], themes: frozenset[str]
) -> Iterator[tuple[Entry, int]]:
    for entry in entries:
        if entry in named:
            yield entry, _NAMED
        elif entry.themes & themes:
            yield entry, 1
