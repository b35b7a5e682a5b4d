from __future__ import annotations

from random import Random

import pytest

from giffusion.models.training import captions as english


@pytest.mark.parametrize(
    ("noun", "expected"),
    [
        ("dog", "a dog"),
        ("apple", "an apple"),
        ("unicorn", "a unicorn"),
        ("ufo", "a ufo"),
        ("hourglass", "an hourglass"),
        ("umbrella", "an umbrella"),
        ("+glasses", "glasses"),
    ],
)
def test_articles(noun: str, expected: str) -> None:
    assert english.with_article(noun) == expected


def test_adjectives_keep_the_mark() -> None:
    assert english.with_article(english.described(["orange"], "cat")) == "an orange cat"
    assert english.with_article(english.described(["red"], "+glasses")) == "red glasses"


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("cat", "cats"), ("cherry", "cherries"), ("box", "boxes"), ("key", "keys")],
)
def test_plurals(noun: str, expected: str) -> None:
    assert english.plural(noun) == expected


def test_joined_reads_as_english() -> None:
    assert english.joined("a dog", "", ", blue background") == "a dog, blue background"
    assert english.joined("a dog", "on a orange wall") == "a dog on an orange wall"


def test_held_out_sentences_are_held_out() -> None:
    assert not set(english.HELD_OUT_SENTENCES) & set(english.SENTENCES)
    assert not set(english.HELD_OUT_GROUNDS) & set(english.GROUND_PHRASES)
    draw = Random(0)
    assert all("{}" in english.sentence(draw) for _ in range(100))
