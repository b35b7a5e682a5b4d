from __future__ import annotations

import re

import pytest
import torch

from giffusion.models.training.corpus import NEVER_TINTED, draw_corpus
from giffusion.models.training.palette import COLOURS, GROUNDS, WEATHERS
from giffusion.models.training.questions import ask
from giffusion.models.training.scenes import NOTHING, Scenes
from giffusion.models.training.vocabulary import Word, read_vocabulary

WORDS = read_vocabulary()


@pytest.fixture(scope="module")
def corpus() -> tuple[Scenes, list[str]]:
    return draw_corpus(WORDS, 4000, 7)


def test_the_seed_decides(corpus: tuple[Scenes, list[str]]) -> None:
    scenes, captions = draw_corpus(WORDS, 200, 7)
    assert captions == corpus[1][:200]
    assert torch.equal(scenes.place, corpus[0].place[:200])
    assert draw_corpus(WORDS, 200, 8)[1] != captions


def test_every_field_has_a_row_a_scene(corpus: tuple[Scenes, list[str]]) -> None:
    scenes, captions = corpus
    assert len(scenes) == len(captions) == 4000
    assert scenes.picture.shape == (4000, 2)
    assert bool((scenes.picture[:, 0] >= 0).all())
    assert int(scenes.picture.max()) < len(WORDS)
    assert 0.6 < float((scenes.picture[:, 1] == NOTHING).float().mean()) < 0.85


def test_captions_name_what_is_there(corpus: tuple[Scenes, list[str]]) -> None:
    """The picture's own name, one of its others, or the weather that it stands for."""
    nouns = {weather.code: weather.nouns + weather.phrases for weather in WEATHERS}
    for pair, caption in zip(corpus[0].picture.tolist(), corpus[1], strict=True):
        for picture in (number for number in pair if number != NOTHING):
            word = WORDS[picture]
            known = [*word.names, *nouns.get(word.code, ())]
            stems = [name.lstrip("+").lower().removesuffix("y") for name in known]
            assert any(stem in caption for stem in stems), (caption, word)


def test_a_tint_is_named_and_a_colour_named_is_painted(corpus: tuple[Scenes, list[str]]) -> None:
    scenes, captions = corpus
    for row in scenes.tinted[:, 0].nonzero().flatten().tolist():
        assert WORDS[int(scenes.picture[row, 0])].kind not in NEVER_TINTED
        tint = scenes.tint[row, 0].float()
        assert any((tint - torch.tensor(rgb)).abs().max() < 0.05 for rgb in COLOURS.values())
        assert re.search(
            "|".join([*COLOURS, "gray", "violet", "scarlet", "crimson", "teal", "cyan", "golden"]),
            captions[row],
        )


def test_a_white_ground_needs_no_word_and_others_have_one(
    corpus: tuple[Scenes, list[str]],
) -> None:
    scenes, captions = corpus
    for name in ("light green", "dark blue"):
        rgb = torch.tensor(GROUNDS[name], dtype=torch.float16)
        for row in (scenes.ground[:, 0] == rgb).all(1).nonzero().flatten().tolist():
            assert name in captions[row]


def test_what_is_held_out_stands_in_no_caption(corpus: tuple[Scenes, list[str]]) -> None:
    held_out = [name.lstrip("+") for word in WORDS for name in word.held_out]
    ends = re.compile(rf"\b({'|'.join(map(re.escape, held_out))})( on| in|,|$)")
    assert not [caption for caption in corpus[1] if ends.search(caption)]
    asked = {question.caption for question in ask(WORDS, 7)}
    assert not asked & set(corpus[1])


def test_questions_say_what_answers_them() -> None:
    questions = ask(WORDS, 7, count=20)
    assert {question.group for question in questions} == {
        "name",
        "word",
        "colour",
        "pair",
        "ground",
    }
    assert sum(question.group == "colour" for question in questions) == 20
    for question in questions:
        assert question.accepted
        assert bool(question.also) == (question.group == "pair")
        assert question.colour in question.caption
        assert question.ground in question.caption


def test_two_words_are_enough() -> None:
    words = (Word("1f415", "animal", ("dog",)), Word("1f453", "thing", ("+glasses",)))
    scenes, captions = draw_corpus(words, 100, 0)
    assert len(scenes) == 100
    assert all("dog" in caption or "glasses" in caption for caption in captions)
