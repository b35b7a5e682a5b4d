"""Phrasings: none is one of the evaluation's, and tokens find what they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import islice
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from giffusion.models.training import captions as english
from giffusion.models.training.corpus import draw_corpus
from giffusion.models.training.listening import ListeningOptions, Teacher, hearing_loss, teach
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import TOY, text_encoder
from giffusion.models.training.palette import GROUNDS
from giffusion.models.training.phrases import Piece, Rephraser
from giffusion.models.training.schedule import Budget
from giffusion.models.training.tokens import LENGTH, load_tokenizer, token_ids
from giffusion.models.training.vocabulary import VOCABULARY, read_vocabulary

MINI = Path(__file__).parents[3] / "models" / "mini" / "tokenizer"


def sentence_of(pieces: Sequence[Piece]) -> str:
    return " ".join(piece.said for piece in pieces).replace(" ,", ",")


@pytest.fixture(scope="module")
def captions() -> list[str]:
    return draw_corpus(read_vocabulary(VOCABULARY), 1500, 3)[1]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(MINI)


def test_nothing_that_is_held_out_is_drawn(captions: list[str]) -> None:
    phrases = Rephraser(1)
    openings = tuple(text.split("{}")[0] for text in english.HELD_OUT_SENTENCES)
    grounds = [text.format(name) for text in english.HELD_OUT_GROUNDS for name in GROUNDS]
    for caption in captions:
        said = sentence_of(phrases.rephrase(caption))
        assert not said.startswith(openings), said
        assert not any(ground in said for ground in grounds), said


def test_what_a_caption_shows_stays() -> None:
    phrases = Rephraser(2)
    seen = set()
    for _ in range(200):
        pieces = phrases.rephrase("a beautiful picture of a red fox on a green background, 4k")
        assert Piece("a red fox", "a red fox") in pieces
        meant = " ".join(piece.meant for piece in pieces if piece.meant)
        assert meant == "a red fox on a green background"
        said = sentence_of(pieces)
        assert "green" in said
        assert "4k" not in said
        seen.add(said)
    assert len(seen) > 150


def test_an_orange_ground_is_one_as_well() -> None:
    phrases = Rephraser(3)
    said = set()
    for caption in ("a lion on an orange background", "a lion on orange background"):
        for _ in range(60):
            pieces = phrases.rephrase(caption)
            meant = " ".join(piece.meant for piece in pieces if piece.meant)
            assert meant == "a lion on an orange background"
            assert " a orange" not in sentence_of(pieces)
            said.add(pieces[-1].said)
    assert "backdrop" in said


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


def test_a_text_encoder_learns_to_hear_and_forgets_nothing(
    captions: list[str], tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    machine = Machine(torch.device("cpu"))
    known = text_encoder(TOY)
    encoder = deepcopy(known)
    ids = torch.from_numpy(token_ids(tokenizer, captions))
    options = ListeningOptions(batch=32, rate=2e-3, warmup=5)
    teach(encoder, Teacher(tokenizer, ids, 5), machine, Budget(1.0, 60), options)

    lessons = list(islice(Teacher(tokenizer, ids, 6).lessons(), 64))
    said, meant, places = (
        torch.tensor([getattr(lesson, name) for lesson in lessons])
        for name in ("said", "meant", "stands_for")
    )
    with torch.no_grad():
        before, after = (
            float(hearing_loss(one, known, said, meant, places, machine))
            for one in (known, encoder)
        )
        same = torch.arange(LENGTH).expand(len(ids[:64]), -1)
        kept = float(hearing_loss(encoder, known, ids[:64].long(), ids[:64].long(), same, machine))
    assert after < 0.7 * before
    assert kept < after
