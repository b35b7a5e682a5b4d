"""Latents of a film's frames: those of its pictures, however they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.conditions.film import FilmLatents
from giffusion.engine.conditions.init_latents import film_latents
from giffusion.engine.conditions.pictures import PictureEncoder
from giffusion.engine.conditions.sources import read_media
from giffusion.engine.errors import InputError
from giffusion.engine.media.decoding import FilmDecoder
from giffusion.engine.media.video import FilmCut, FilmReader
from giffusion.engine.model import Model
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.planning import settings_after_film
from giffusion.engine.timelines.timeline import Timeline
from tests.conftest import OpenCpu
from tests.engine.media.films import numbered_film

SIZE = (64, 64)
NUM_FRAMES = 20


class Watched(PictureEncoder):
    """Keeps the places of the pictures of each run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.runs: list[list[int]] = []

    def encode_together(
        self, pictures: Mapping[int, NDArray[np.uint8]]
    ) -> dict[int, NDArray[np.float32]]:
        self.runs.append(list(pictures))
        return super().encode_together(pictures)


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


def test_latents_are_those_of_the_pictures(
    mini: Model, open_cpu: OpenCpu, film: Path, reader: FilmReader
) -> None:
    """To the bit, in whatever order they are asked for."""
    encoder = PictureEncoder(mini, open_cpu("onnxruntime", "fp32"), SIZE)
    expected = [encoder.encode(picture) for picture in pictures(film)]
    latents = FilmLatents(reader, encoder)
    for frame in (*range(NUM_FRAMES), 9, 3, 10, 0, 19):
        np.testing.assert_array_equal(latents.latents(frame), expected[frame])
    encoder.close()


def test_a_picture_that_is_shown_on_is_encoded_once(mini: Model, film: Path) -> None:
    reader, runtime = FilmReader(FilmCut(film), SIZE, Fraction(72)), FakeRuntime()
    latents = FilmLatents(reader, PictureEncoder(mini, runtime, SIZE))
    made = [latents.latents(frame) for frame in range(3 * NUM_FRAMES)]
    assert runtime.num_runs["encode"] == NUM_FRAMES
    assert made[0] is made[2] is not made[3]
    assert not made[0].flags.writeable
    reader.close()


@pytest.mark.parametrize("batch", [2, 3, 4])
@pytest.mark.parametrize(
    "asked", [range(NUM_FRAMES), range(5, 18), (0, 1, 7, 9, 10, 11, 19)], ids=str
)
def test_frames_in_a_row_are_encoded_in_one_run(
    mini: Model, open_cpu: OpenCpu, film: Path, batch: int, asked: Sequence[int]
) -> None:
    """Each at the place of its number, so that a segment's frames are those of the whole."""
    alone = PictureEncoder(mini, open_cpu("onnxruntime", "fp32"), SIZE)
    expected = [alone.encode(picture) for picture in pictures(film)]
    for encoder in (
        PictureEncoder(mini, open_cpu("onnxruntime", "fp32"), SIZE, batch=batch),
        Watched(mini, FakeRuntime(), SIZE, batch=batch),
    ):
        reader = FilmReader(FilmCut(film), SIZE, Fraction(24), None, asked)
        latents = FilmLatents(reader, encoder, asked)
        made = {frame: latents.latents(frame) for frame in asked}
        reader.close()
        if isinstance(encoder, Watched):
            groups = [
                [n % batch for n in group] for _, group in groupby(asked, lambda n: n // batch)
            ]
            assert encoder.runs == groups
        else:
            for frame, found in made.items():
                np.testing.assert_array_equal(found, expected[frame])
        encoder.close()
    alone.close()


def test_what_was_not_promised_is_encoded_by_itself(mini: Model, reader: FilmReader) -> None:
    encoder = Watched(mini, FakeRuntime(), SIZE, batch=4)
    latents = FilmLatents(reader, encoder, [4, 6])
    for frame in (4, 5, 6, 2):
        latents.latents(frame)
    # 5 takes 6 along, which was promised and comes after it.
    assert encoder.runs == [[0, 2], [1, 2], [2]]


def test_past_the_end_of_the_film(mini: Model, reader: FilmReader) -> None:
    encoder = PictureEncoder(mini, FakeRuntime(), SIZE)
    with pytest.raises(InputError, match="frame 20 is past the end of "):
        FilmLatents(reader, encoder).latents(20)


def test_a_render_reads_a_film_through_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its rate and length when it is planned, and for its frames when it begins."""
    notes: list[str] = []
    monkeypatch.setattr("giffusion.engine.media.index.NOTE_AFTER_S", 0)
    film = numbered_film(tmp_path / "a.mp4", NUM_FRAMES)
    settings = settings_after_film({"video": str(film), "strength": "0.5"}, notes.append)
    timeline = Timeline.from_text("0: a corgi", settings)
    media = read_media(timeline, SIZE, tmp_path / "out.gif", notes.append)
    assert media.film is not None
    assert notes == [
        f"{film}: reading through 0.0 GB for its frames",
        f"{film}: 20 frames at 24 a second",
    ]


@pytest.mark.parametrize(
    ("strength", "last", "num_runs"),
    [
        ("0.5", 48, 1),
        ("0:(1), 99:(1), 100:(0.5)", 120, 1),
        ("0:(0.5), 9:(0.5), 10:(1), 199:(1), 200:(0.5)", 210, 2),
    ],
)
def test_a_job_decodes_what_its_frames_start_from(
    mini: Model,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strength: str,
    last: int,
    num_runs: int,
) -> None:
    """Also where those that start from noise alone come first or between."""
    film = numbered_film(tmp_path / "a.mp4", 300, options={"preset": "ultrafast", "g": "12"})
    decoded, decode = [], FilmDecoder._decoded

    def counted(self: FilmDecoder) -> Iterator[tuple[int, Any]]:
        for found in decode(self):
            decoded.append(found)
            yield found

    read = FilmReader.read

    def read_and_wait(self: FilmReader, frame: int) -> NDArray[np.uint8]:
        picture = read(self, frame)
        wait(self._ahead.values())
        return picture

    monkeypatch.setattr(FilmDecoder, "_decoded", counted)
    monkeypatch.setattr(FilmReader, "read", read_and_wait)
    settings = RenderSettings(video=str(film), strength=strength, num_frames=last)
    timeline = Timeline.from_text("0: a corgi", settings)
    encoder = PictureEncoder(mini, FakeRuntime(), SIZE)
    latents, close = film_latents(timeline, range(last), encoder, SIZE, None)
    starting = [plan.frame for plan in timeline if plan.strength != 1]
    for frame in starting:
        latents(frame)
    close()
    # From a key frame on, at most 11 frames before, and to the one after the last.
    assert len(decoded) <= len(starting) + num_runs * 12
