"""Lessons: tokens find what they stand for, and every process makes its own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from giffusion.models.training.corpus import draw_corpus
from giffusion.models.training.lessons import Teacher, batches
from giffusion.models.training.phrases import Piece
from giffusion.models.training.tokens import LENGTH, load_tokenizer, token_ids
from giffusion.models.training.vocabulary import VOCABULARY, read_vocabulary

MINI = Path(__file__).parents[3] / "models" / "mini" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(MINI)


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return draw_corpus(read_vocabulary(VOCABULARY), 300, 3)[1]


def test_tokens_stand_for_those_of_the_meaning(tokenizer: Tokenizer) -> None:
    teacher = Teacher(tokenizer, torch.zeros(1, LENGTH, dtype=torch.int16), 0)
    lesson = teacher.lesson(
        [
            Piece("wow", ""),
            Piece("a cat", "a cat"),
            Piece("standing on", "on"),
            Piece("a blue", "a blue"),
            Piece("backdrop", "background"),
            Piece("please", ""),
        ]
    )
    assert lesson is not None
    said = [tokenizer.decode([number]).strip() for number in lesson.said]
    meant = [tokenizer.decode([number]).strip() for number in lesson.meant]
    heard = [(one, meant[place]) for one, place in zip(said, lesson.stands_for, strict=True)]
    for word in ("cat", "blue"):
        assert (word, word) in heard
    assert ("on", "on") in heard
    assert "background" in meant
    assert "backdrop" not in meant
    # What means nothing stands for the beginning, and the ends for the ends.
    count = sum(1 for number in lesson.said if number != tokenizer.token_to_id("</s>"))
    polite = len(tokenizer.encode(" please", add_special_tokens=False).ids)
    assert lesson.stands_for[0] == 0
    assert lesson.stands_for[count - polite : count] == [0] * polite
    first = meant.index("background") + 1
    ends = range(first, first + LENGTH - count)
    assert lesson.stands_for[count:] == [min(place, LENGTH - 1) for place in ends]


def test_a_sentence_stands_for_one_that_is_as_long(tokenizer: Tokenizer) -> None:
    teacher = Teacher(tokenizer, torch.zeros(1, LENGTH, dtype=torch.int16), 0)
    lesson = teacher.lesson([Piece("my wallpaper showing", ""), Piece("a lion", "a lion")])
    assert lesson is not None
    assert lesson.stands_for == list(range(LENGTH))
    assert teacher.lesson([Piece("a lion " * 20, "a lion")]) is None


def test_a_lesson_is_of_its_scene_and_some_are_empty(
    captions: list[str], tokenizer: Tokenizer
) -> None:
    ids = torch.from_numpy(token_ids(tokenizer, captions))
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    nothing = [begin, *[end] * (LENGTH - 1)]
    empty = 0
    for lesson in islice(Teacher(tokenizer, ids, 1).lessons(), 400):
        if lesson.said == nothing:
            assert lesson.meant == nothing
            assert lesson.stands_for == list(range(LENGTH))
            empty += 1
            continue
        caption = tokenizer.decode(ids[lesson.scene].tolist())
        meant = tokenizer.decode(lesson.meant)
        # They share what is shown, not only such words as a sentence or a ground has.
        shared = set(meant.split()) & set(caption.replace(",", "").split())
        assert shared - {"a", "an", "of", "on", "picture", "background"}, (meant, caption)
    assert 4 < empty < 40


def test_processes_make_lessons_of_their_own(captions: list[str], tokenizer: Tokenizer) -> None:
    ids = torch.from_numpy(token_ids(tokenizer, captions))
    first, second = islice(batches(MINI, ids, 7, 32, 2), 2)
    assert first.said.shape == first.meant.shape == first.stands_for.shape == (32, LENGTH)
    assert first.scenes.shape == (32,)
    assert not first.said.equal(second.said)
    # The first process draws as this one does.
    (here,) = islice(batches(MINI, ids, 7, 32, 0), 1)
    assert first.said.equal(here.said)
    assert first.scenes.equal(here.scenes)
