"""The evaluation of a real model folder, the bundled one, on a corpus of three things."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from giffusion.models import evaluate
from giffusion.models.training.answers import Sampling, answer, embed, open_model, walk
from giffusion.models.training.corpus import draw_corpus
from giffusion.models.training.prepared import save_prepared
from giffusion.models.training.questions import ask
from giffusion.models.training.tokens import train_tokenizer
from giffusion.models.training.vocabulary import Word

# diffusers' schedulers convert a tensor in the way of NumPy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MODEL = Path(__file__).parents[3] / "models" / "mini"
WORDS = (
    Word("1f415", "animal", ("dog", "hound"), ("mutt",)),
    Word("1f3e0", "place", ("house",)),
    Word("2600", "weather", ("sun",)),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    scenes, captions = draw_corpus(WORDS, 70, 1)
    pictures = []
    for shade in (40, 120, 200):
        pixels = np.zeros((256, 256, 4), np.uint8)
        pixels[shade // 4 : 200, 40:shade] = (shade, 30, 60, 255)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "webp", lossless=True)
        pictures.append(file.getvalue())
    names = [word.name for word in WORDS]
    tokenizer = train_tokenizer(captions, 300)
    save_prepared(folder, pictures, names, scenes, captions, ask(WORDS, 1), tokenizer)
    return folder


@pytest.fixture(scope="module")
def pipeline() -> object:
    return open_model(MODEL, torch.device("cpu"))


def test_a_report_is_written(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = tmp_path / "judge.safetensors"
    options = ["--data", str(corpus), "--judge", str(judge), "--judge-seconds", "0.5"]
    asked = ["--steps", "1", "--limit", "1", "--walks", "0", "--out", str(tmp_path / "out")]
    assert evaluate.main([str(MODEL), *options, *asked]) == 0
    assert "true pictures" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    numbers = {number["name"]: number for number in report[str(MODEL)]}
    assert numbers["name, top 5"]["count"] == 1
    assert numbers["reconstruction, PSNR in dB"]["value"] > 15
    assert judge.is_file()
    assert len((tmp_path / "out" / "mini-captions.txt").read_text().splitlines()) == 5
    with Image.open(tmp_path / "out" / "mini-0000.jpg") as sheet:
        assert sheet.size == (1280, 128)


def test_the_noise_does_not_depend_on_the_batch(pipeline: object) -> None:
    captions = ["a dog", "a house", "the sun"]
    together = answer(pipeline, captions, Sampling(steps=1, batch=3))
    apart = answer(pipeline, captions, Sampling(steps=1, batch=1))
    assert together.shape == (3, 3, 256, 256)
    assert float((together - apart).abs().mean()) < 0.02


def test_a_walk_begins_and_ends_at_its_captions(pipeline: object) -> None:
    sampling = Sampling(steps=1)
    frames = walk(pipeline, "a dog", "a house", 3, sampling)
    first = answer(pipeline, ["a dog"], sampling)
    assert float((frames[0] - first[0]).abs().mean()) < 0.02
    assert embed(pipeline, ["a dog"]).shape[:2] == (1, 24)


def test_no_corpus_is_said_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("evaluate: ")
