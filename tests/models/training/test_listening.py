"""Phrasings: none is one of the evaluation's, and a model learns to hear through them."""

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
from giffusion.models.training.lessons import LessonBatch, Teacher, batches
from giffusion.models.training.listening import (
    ListeningOptions,
    hearing_loss,
    listened,
    seeing_loss,
    teach,
)
from giffusion.models.training.machine import Machine
from giffusion.models.training.networks import TOY, Denoiser
from giffusion.models.training.palette import GROUNDS
from giffusion.models.training.phrases import BACKDROPS, MEDIA, Piece, Rephraser
from giffusion.models.training.schedule import Budget, alphas_cumprod
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


def test_no_name_of_a_thing_is_a_word_that_means_none() -> None:
    words = read_vocabulary(VOCABULARY)
    names = {name.removeprefix("+").lower() for word in words for name in word.names}
    assert "plane" in names
    assert names.isdisjoint((*BACKDROPS, *MEDIA))


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


@pytest.mark.parametrize("pictures", [0, 8])
def test_a_model_learns_to_hear_and_forgets_nothing(
    pictures: int, captions: list[str], tokenizer: Tokenizer
) -> None:
    torch.manual_seed(0)
    machine = Machine(torch.device("cpu"))
    known = Denoiser.new(TOY)
    for parameter in known.unet.parameters():
        # A new U-Net says zero of everything.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    model = deepcopy(known)
    ids = torch.from_numpy(token_ids(tokenizer, captions))
    latents = torch.randn(len(ids), 4, TOY.latent, TOY.latent)
    options = ListeningOptions(batch=32, rate=2e-3, warmup=5, pictures=pictures)
    teach(
        model,
        batches(MINI, ids, 5, options.batch, 0),
        latents if pictures else None,
        machine,
        Budget(1.0, 60),
        options,
    )

    lessons = LessonBatch.of(list(islice(Teacher(tokenizer, ids, 6).lessons(), 64)))
    places = torch.arange(LENGTH).expand(64, -1)
    meanings = LessonBatch(lessons.meant, lessons.meant, places, lessons.scenes)

    def losses(one: Denoiser, asked: LessonBatch) -> tuple[float, float]:
        alphas = alphas_cumprod()
        with torch.no_grad():
            pair = listened(one, known, asked, machine)
            torch.manual_seed(1)
            seen = seeing_loss(one, known, *pair, latents[:64], alphas, machine)
            return float(hearing_loss(pair[1], pair[0], asked)), float(seen)

    before, after, kept = losses(known, lessons), losses(model, lessons), losses(model, meanings)
    assert after[0] < 0.7 * before[0]
    assert kept[0] < after[0]
    learned = {
        name
        for (name, one), other in zip(
            model.unet.named_parameters(), known.unet.parameters(), strict=True
        )
        if not one.equal(other)
    }
    assert bool(learned) == bool(pictures)
    assert all(".attn2." in name for name in learned)
    if pictures:
        assert after[1] < 0.7 * before[1]
        assert kept[1] < after[1]
