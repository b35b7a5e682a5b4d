"""What all tests of the training need: one thread, and a corpus of four pictures."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from giffusion.models.training.prepared import save_prepared
from giffusion.models.training.scenes import NOTHING, Scenes
from giffusion.models.training.tokens import train_tokenizer

NAMES = ["disc", "square", "bar", "frame"]
COUNT = 16


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these are slower on more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    captions = [f"a picture of a {NAMES[i % 4]}" for i in range(COUNT)]
    layers = torch.full((COUNT, 2), NOTHING, dtype=torch.int16)
    layers[:, 0] = torch.arange(COUNT) % 4
    place = torch.tensor([0.0, 0.0, 0.8, 0.0]).expand(COUNT, 2, 4).half()
    no = torch.zeros(COUNT, 2, dtype=torch.bool)
    colours = torch.ones(COUNT, 2, 3).half()
    scenes = Scenes(layers, place, no, no, colours, colours, torch.zeros(COUNT, 2).half())
    pictures = [_webp(number) for number in range(4)]
    tokenizer = train_tokenizer(captions, 512)
    save_prepared(folder, pictures, NAMES, scenes, captions, [], tokenizer)
    return folder


def _webp(number: int) -> bytes:
    image = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(image)
    shape = (draw.ellipse, draw.rectangle)[number % 2]
    shape((30, 30 + 30 * number, 220, 220), fill=(60 * number, 200 - 40 * number, 90, 255))
    stream = io.BytesIO()
    image.save(stream, "webp", lossless=True)
    return stream.getvalue()
