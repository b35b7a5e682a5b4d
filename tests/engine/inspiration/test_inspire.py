"""Topics to key frames: whatever they are, the text of the key frames means them."""

from __future__ import annotations

import hashlib
import re
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.conditions.emphasis import plain_text
from giffusion.engine.errors import SettingsError
from giffusion.engine.inspiration.key_frames import inspire, spaced
from giffusion.engine.inspiration.topics import MAX_TOPIC_LENGTH, MAX_TOPICS, parse_topics
from giffusion.engine.inspiration.vocabulary import TOPIC, Vocabulary, vocabulary_for
from giffusion.engine.inspiration.walk import subjects, walk
from giffusion.engine.prompts import format_prompts, parse_prompts
from giffusion.models.training import captions as english
from giffusion.models.training.palette import GROUNDS, PLACES, WEATHERS
from giffusion.models.training.vocabulary import VOCABULARY, read_vocabulary

SCENES, MINI = vocabulary_for("a model of its own"), vocabulary_for("mini")
BOTH = pytest.mark.parametrize("vocabulary", [SCENES, MINI], ids=lambda v: v.name)
HOSTILE = [
    "a | b",
    "a::1.5",
    "::",
    ":::: |",
    "--neg blurry",
    "a --seed 7 --hold x",
    "(unclosed",
    "closed)",
    "[cat:dog:0.5]",
    "(red:99)",
    "back\\slash \\| \\(",
    "{topic} {subject} {0} {",
    "%s %(a)s",
    "# comment",
    "0: a corgi",
    "head: b",
    '{"0": "a"}',
    "日本の海、冬",
    "\N{SPARKLES} café",
    "line\nbreak\r\nand\ttab\u2028too",
    "\u202eright to left",
]


def sentences(vocabulary: Vocabulary, topics: str, seed: int, number: int) -> list[str]:
    return list(islice(walk(vocabulary, parse_topics(topics), seed), number))


def test_the_same_on_every_machine() -> None:
    text = "".join(
        format_prompts(inspire(vocabulary, parse_topics(topics), num_key_frames=40, seed=seed))
        for vocabulary in (SCENES, MINI)
        for topics in ("", "ocean, jazz", "xyzzy")
        for seed in (0, 3, 2**63 - 1)
    )
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "949febd43091117277e5f5556738eaf7544bf97ff1eb5501af32772239d6c938"


@BOTH
@given(st.text(max_size=300), st.integers(0, 2**63 - 1), st.integers(1, 12), st.integers(1, 99))
def test_the_text_means_the_key_frames(
    vocabulary: Vocabulary, text: str, seed: int, number: int, gap: int
) -> None:
    try:
        topics = parse_topics(text)
    except SettingsError:
        return
    key_frames = inspire(vocabulary, topics, num_key_frames=number, gap=gap, seed=seed)
    assert parse_prompts(format_prompts(key_frames)) == key_frames
    assert [key_frame.frame for key_frame in key_frames] == [index * gap for index in range(number)]
    shown = [plain_text(key_frame.parts[0].text) for key_frame in key_frames]
    assert shown == sentences(vocabulary, text, seed, number)


@BOTH
@pytest.mark.parametrize("topics", HOSTILE)
def test_marks_in_topics_are_text(vocabulary: Vocabulary, topics: str) -> None:
    key_frames = inspire(vocabulary, parse_topics(topics), num_key_frames=8)
    assert parse_prompts(format_prompts(key_frames)) == key_frames
    for key_frame in key_frames:
        assert len(key_frame.parts) == 1
        assert (key_frame.negative, key_frame.seed, key_frame.hold) == (None, None, None)
    if vocabulary is SCENES:
        text = " ".join(plain_text(key_frame.parts[0].text) for key_frame in key_frames)
        assert all(topic in text for topic in parse_topics(topics))


@BOTH
def test_neighbours_share_all_but_one(vocabulary: Vocabulary) -> None:
    subject, place = _pattern(vocabulary, "subject"), _pattern(vocabulary, "place")

    def found(sentence: str) -> tuple[str, str]:
        where = place.findall(sentence)[-1]
        return subject.findall(sentence.replace(where, ""))[-1], where

    for seed in range(5):
        for before, after in pairwise(sentences(vocabulary, "garden, moon", seed, 30)):
            changed = [a != b for a, b in zip(found(before), found(after), strict=True)]
            assert sum(changed) == 1


def _pattern(vocabulary: Vocabulary, slot: str) -> re.Pattern[str]:
    texts = sorted((entry.text for entry in vocabulary.slots[slot]), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, texts))})\b")


@BOTH
def test_topics_sway_the_choice(vocabulary: Vocabulary) -> None:
    at_sea = {entry.text for entry in vocabulary.slots["subject"] if "sea" in entry.themes}
    for seed in range(20):
        chosen = list(islice(subjects(vocabulary, ["the ocean"], seed), 6))
        assert set(chosen) <= at_sea
        assert len(set(chosen)) == 6
    both = set(islice(subjects(vocabulary, ["ocean", "jazz"], 1), 6))
    assert len(both & at_sea) == 3


def test_an_entry_that_a_topic_names_is_likely() -> None:
    firsts = [next(subjects(SCENES, ["lighthouses"], seed)) for seed in range(40)]
    assert firsts.count("an old lighthouse") > 10
    assert "the sea" not in firsts


def test_unknown_topics_are_named() -> None:
    for vocabulary in (SCENES, MINI):
        texts = sentences(vocabulary, "xyzzy, quux", 5, 8)
        assert sum("xyzzy" in text for text in texts) == 4
        assert sum("quux" in text for text in texts) == 4


def test_mini_hears_what_it_was_trained_on() -> None:
    names = {
        name.lstrip("+").lower() for word in read_vocabulary(VOCABULARY) for name in word.names
    }
    for entry in MINI.slots["subject"]:
        _, name = entry.text.lower().split(" ", 1)
        assert name in names or name.removeprefix("red ") in names, entry
    phrases = {phrase for place in (*PLACES, *WEATHERS) for phrase in place.phrases}
    grounds = {english.joined(f"on a {colour} background") for colour in GROUNDS}
    assert {entry.text for entry in MINI.slots["place"]} <= phrases | grounds
    assert vocabulary_for("mini-turbo") is MINI


@BOTH
def test_longer_walks_than_there_are_words(vocabulary: Vocabulary) -> None:
    texts = sentences(vocabulary, "", 0, 900)
    assert all(a != b for a, b in pairwise(texts))


def test_the_words_are_written_well() -> None:
    for vocabulary in (SCENES, MINI):
        for slot, entries in vocabulary.slots.items():
            texts = [entry.text for entry in entries]
            assert len(set(texts)) == len(texts) > 10
            for text in texts:
                assert re.fullmatch(r"[A-Za-z'-]+( [A-Za-z'-]+)*", text), text
                if slot in ("subject", "medium") and (match := re.match(r"an? (\w+)", text)):
                    vowel = match[1][0] in "aeiou" and match[1] != "unicorn"
                    assert text.startswith("an ") == vowel, text
        themes = {t for entries in vocabulary.slots.values() for e in entries for t in e.themes}
        known = frozenset().union(*vocabulary.topics.values())
        assert known == themes
        assert vocabulary.named_slots() == {*vocabulary.slots, TOPIC}
    assert len(SCENES.slots["subject"]) > 180
    assert len(MINI.slots["subject"]) > 180


def test_topics() -> None:
    assert parse_topics(" ocean,, Jazz ,ocean, deep\n blue ") == ("ocean", "Jazz", "deep blue")
    assert parse_topics("海、山\uff0c川") == ("海", "山", "川")
    assert parse_topics(" , \n") == ()


@pytest.mark.parametrize(
    ("topics", "words"),
    [
        ("x" * (MAX_TOPIC_LENGTH + 1), "is too long: expected at most 200 characters"),
        ("x" * 10_000, "is too long"),
        (",".join(map(str, range(MAX_TOPICS + 1))), "too many topics: expected at most 100"),
        ("a\x00b", "has '\\x00', which is no text"),
        ("a\ud800b", "has '\\ud800', which is no text"),
    ],
)
def test_topics_that_cannot_be(topics: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_topics(topics)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"num_key_frames": 0}, "there are 0 key frames: expected 1 or more"),
        ({"gap": 0}, "gap 0 is out of range: expected 1 frame or more"),
        ({"num_key_frames": 3, "gap": 500_000}, "are more than 1000000 frames"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"seed": 2**63}, "seed 9223372036854775808 is out of range"),
    ],
)
def test_numbers_that_cannot_be(numbers: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        inspire(SCENES, **numbers)


def test_others_texts_are_spaced() -> None:
    key_frames = spaced(["a (b) | c", "--neg x"], 10)
    assert format_prompts(key_frames) == "0: a \\(b\\) \\| c\n10: \\--neg x\n"
    assert parse_prompts(format_prompts(key_frames)) == key_frames
