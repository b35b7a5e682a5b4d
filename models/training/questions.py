"""What the evaluation asks the model: captions that stand nowhere in its training.

`prepare` writes them beside the corpus. The invariant: every question is a sentence, a word or a
combination that was held out, and says which pictures answer it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from giffusion.models.training import captions as english
from giffusion.models.training.corpus import NEVER_TINTED
from giffusion.models.training.palette import COLOURS, GROUNDS, WEATHERS
from giffusion.models.training.prepared import Question
from giffusion.models.training.vocabulary import Word


def ask(words: Sequence[Word], seed: int, count: int = 100) -> tuple[Question, ...]:
    """Questions of every group, `count` or fewer each, and `name` for every word.

    Args:
        words: the vocabulary, whose order numbers the pictures.
        seed: of the choice among them.
        count: most questions a group but `name`.
    """
    draw = Random(seed)
    known = _meanings(words)
    groups = [list(group) for group in (_words(words), _colours(words, draw), _pairs(words, draw))]
    groups += [list(_grounds(words, draw)), list(_weather(words))]
    asked = list(_names(words, known, draw))
    for group in groups:
        asked += group if len(group) <= count else draw.sample(group, count)
    return tuple(asked)


def _meanings(words: Sequence[Word]) -> dict[str, tuple[int, ...]]:
    """Every name with all the pictures that bear it."""
    known: dict[str, tuple[int, ...]] = {}
    for number, word in enumerate(words):
        for name in word.names:
            known[name] = (*known.get(name, ()), number)
    return known


def _names(
    words: Sequence[Word], known: dict[str, tuple[int, ...]], draw: Random
) -> Iterator[Question]:
    """Every word's usual name in a sentence that was held out."""
    for word in words:
        text = draw.choice(english.HELD_OUT_SENTENCES)
        caption = text.format(english.with_article(word.names[0])).lower()
        yield Question(caption, known[word.names[0]], group="name")


def _words(words: Sequence[Word]) -> Iterator[Question]:
    """Words that were held out, in a sentence that was not."""
    for number, word in enumerate(words):
        for name in word.held_out:
            caption = f"a picture of {english.with_article(name)}".lower()
            yield Question(caption, (number,), group="word")


def _colours(words: Sequence[Word], draw: Random) -> Iterator[Question]:
    for number, word in enumerate(words):
        if word.kind not in NEVER_TINTED:
            colour = draw.choice([name for name in COLOURS if name != "white"])
            noun = english.described([colour], word.names[0])
            text = draw.choice(english.HELD_OUT_SENTENCES)
            caption = text.format(english.with_article(noun)).lower()
            yield Question(caption, (number,), group="colour", colour=colour)


def _pairs(words: Sequence[Word], draw: Random) -> Iterator[Question]:
    for number, word in enumerate(words):
        other = (number + draw.randrange(1, len(words))) % len(words)
        first, second = (english.with_article(one.names[0]) for one in (word, words[other]))
        caption = draw.choice(english.HELD_OUT_SENTENCES).format(f"{first} and {second}").lower()
        yield Question(caption, (number,), (other,), group="pair")


def _grounds(words: Sequence[Word], draw: Random) -> Iterator[Question]:
    for number, word in enumerate(words):
        colour = draw.choice(list(GROUNDS))
        where = draw.choice(english.HELD_OUT_GROUNDS).format(colour)
        caption = english.joined(english.with_article(word.names[0]), where).lower()
        yield Question(caption, (number,), group="ground", ground=colour)


def _weather(words: Sequence[Word]) -> Iterator[Question]:
    for number, word in enumerate(words):
        for weather in WEATHERS:
            if weather.code == word.code:
                for noun in weather.held_out:
                    caption = f"a picture of {english.with_article(noun)}".lower()
                    yield Question(caption, (number,), group="word")
