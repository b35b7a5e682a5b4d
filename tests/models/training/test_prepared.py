from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from giffusion.engine.errors import InputError
from giffusion.models.training.corpus import draw_corpus
from giffusion.models.training.prepared import (
    Prepared,
    load_others,
    load_prepared,
    resized,
    save_others,
    save_prepared,
)
from giffusion.models.training.questions import ask
from giffusion.models.training.sources import find_package, read_pictures
from giffusion.models.training.tokens import LENGTH, train_tokenizer
from giffusion.models.training.vocabulary import Word

WORDS = (
    Word("1f415", "animal", ("dog", "hound"), ("mutt",)),
    Word("1f3e0", "place", ("house",)),
    Word("2600", "weather", ("sun",)),
)


def _picture(shade: int, height: int = 256, kind: str = "webp") -> bytes:
    pixels = np.full((height, 256, 4), (shade, 10, 20, 255), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, lossless=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    scenes, captions = draw_corpus(WORDS, 300, 1)
    tokenizer = train_tokenizer(captions, 400)
    pictures = [_picture(40), _picture(80, 264), _picture(120)]
    names = [word.name for word in WORDS]
    save_prepared(folder, pictures, names, scenes, captions, ask(WORDS, 1), tokenizer)
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return load_prepared(folder)


def test_a_corpus_comes_back(prepared: Prepared) -> None:
    scenes, captions = draw_corpus(WORDS, 300, 1)
    assert prepared.names == ["dog", "house", "sun"]
    assert prepared.pixels.shape == (3, 256, 256, 4)
    assert prepared.pixels[:, 5, 5, 0].tolist() == [40, 80, 120]
    assert torch.equal(prepared.scenes.place, scenes.place)
    assert prepared.token_ids.shape == (300, LENGTH)
    assert prepared.token_ids.dtype == torch.int16
    assert prepared.questions == ask(WORDS, 1)
    assert len(captions) == 300


def test_tokens_are_what_transformers_gives(prepared: Prepared) -> None:
    """Padding and ends included: the model is asked with these after its training with ours."""
    from transformers import AutoTokenizer

    _, captions = draw_corpus(WORDS, 300, 1)
    tokenizer = AutoTokenizer.from_pretrained(str(prepared.tokenizer))
    theirs = tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True)
    ours = prepared.token_ids.tolist()
    assert ours == theirs["input_ids"]
    empty = tokenizer("", padding="max_length", max_length=LENGTH)["input_ids"]
    assert prepared.empty_ids.tolist() == empty


def test_case_does_not_matter(prepared: Prepared) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(prepared.tokenizer))
    assert tokenizer("A DOG").input_ids == tokenizer("a dog").input_ids


def test_others_are_optional(folder: Path) -> None:
    assert load_others(folder) is None
    save_others(folder, [_picture(1, kind="png")] * 3)
    others = load_others(folder)
    assert others is not None
    assert others.shape == (3, 256, 256, 4)


def test_no_corpus_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--prepare"):
        load_prepared(tmp_path)


def test_pictures_are_found_without_variation_selectors(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "2600-fe0f.webp").write_bytes(b"sun")
    assert read_pictures(tmp_path, WORDS[2:]) == [b"sun"]
    with pytest.raises(InputError, match=r"1f415 \(dog\), 1f3e0 \(house\)"):
        read_pictures(tmp_path, WORDS)


def test_a_package_that_is_there_is_not_fetched(tmp_path: Path) -> None:
    (tmp_path / "a-b-1.0").mkdir()
    assert find_package("@a/b@1.0", tmp_path) == tmp_path / "a-b-1.0" / "package"


def test_no_npm_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm pack failed") as caught:
        find_package("@a/b@1.0", tmp_path / "downloads")
    assert "\n" not in str(caught.value)


def test_smaller_pictures_keep_their_colours_at_edges() -> None:
    pixels = torch.zeros(2, 256, 256, 4, dtype=torch.uint8)
    pixels[:, 100:160, 30:220] = torch.tensor([120, 120, 120, 255], dtype=torch.uint8)
    for side in (64, 192):
        smaller = resized(pixels, side)
        assert smaller.shape == (2, side, side, 4)
        seen = smaller[smaller[..., 3] > 8][:, :3].float()
        assert float((seen - 120).abs().max()) <= 8
        share = (smaller[..., 3].float().mean() / pixels[..., 3].float().mean()).item()
        assert share == pytest.approx(1, abs=0.01)
    assert resized(pixels, 256) is pixels
