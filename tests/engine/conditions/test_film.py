"""Latents of a film's frames: those of the pictures, in batches, however they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.conditions.film import FilmLatents
from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.errors import InputError
from giffusion.engine.media.video import FilmCut, FilmReader
from giffusion.engine.model import Model
from giffusion.engine.runtimes.fake import FakeRuntime
from tests.conftest import OpenCpu
from tests.engine.media.films import numbered_film

SIZE = (64, 64)
NUM_FRAMES = 20


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return numbered_film(tmp_path_factory.mktemp("film") / "a.mp4", NUM_FRAMES)


@pytest.fixture
def reader(film: Path) -> Iterator[FilmReader]:
    reader = FilmReader(FilmCut(film), SIZE, Fraction(24))
    yield reader
    reader.close()


def pictures(film: Path) -> list[NDArray[np.uint8]]:
    reader = FilmReader(FilmCut(film), SIZE, Fraction(24))
    frames = [reader.read(frame) for frame in range(NUM_FRAMES)]
    reader.close()
    return frames


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_latents_are_those_of_the_pictures_in_any_batch(
    mini: Model, open_cpu: OpenCpu, film: Path, reader: FilmReader, batch: int
) -> None:
    """To the bit, with numbers that are no multiple of the batch."""
    runtime = open_cpu("onnxruntime", "fp32")
    single = PictureEncoder(mini, runtime, SIZE)
    expected = [single.encode(picture) for picture in pictures(film)]
    encoder = PictureEncoder(mini, runtime, SIZE, batch=batch)
    latents = FilmLatents(reader, encoder, range(NUM_FRAMES))
    for frame in range(NUM_FRAMES):
        np.testing.assert_array_equal(latents.latents(frame), expected[frame])
    encoder.close()
    single.close()


@pytest.mark.parametrize("runtime", [("openvino", "fp32"), ("openvino", "bf16")])
def test_many_pictures_are_encoded_as_each_is_alone(
    mini: Model, open_cpu: OpenCpu, film: Path, runtime: tuple[str, str]
) -> None:
    frames = pictures(film)[:5]
    one, four = (PictureEncoder(mini, open_cpu(*runtime), SIZE, batch=n) for n in (1, 4))
    for alone, together in zip(map(one.encode, frames), four.encode_many(frames), strict=True):
        np.testing.assert_array_equal(alone, together)
    assert four.encode_many([]) == []
    one.close()
    four.close()


def test_frames_are_encoded_once_and_a_batch_at_a_time(mini: Model, reader: FilmReader) -> None:
    runtime = FakeRuntime()
    encoder = PictureEncoder(mini, runtime, SIZE, batch=4)
    latents = FilmLatents(reader, encoder, range(0, NUM_FRAMES, 2))
    for frame in range(0, NUM_FRAMES, 2):
        first = latents.latents(frame)
        assert latents.latents(frame) is first
        assert not first.flags.writeable
        assert len(latents._ready) <= 4
    assert runtime.num_runs["encode"] == 3  # ten frames


def test_frames_that_were_not_promised_or_have_gone_by(mini: Model, reader: FilmReader) -> None:
    runtime = FakeRuntime()
    encoder = PictureEncoder(mini, runtime, SIZE, batch=4)
    latents = FilmLatents(reader, encoder, range(NUM_FRAMES))
    expected = [encoder.encode(reader.read(frame)) for frame in range(NUM_FRAMES)]
    for frame in (0, 1, 9, 3, 10, 11, 12, 0, 13, 19):
        np.testing.assert_array_equal(latents.latents(frame), expected[frame])


def test_past_the_end_of_the_film(mini: Model, reader: FilmReader) -> None:
    encoder = PictureEncoder(mini, FakeRuntime(), SIZE)
    with pytest.raises(InputError, match="frame 20 is past the end of "):
        FilmLatents(reader, encoder, range(30)).latents(20)
