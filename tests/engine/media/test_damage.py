"""Films that are broken, or made to break what reads them: each ends in a line, soon."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from giffusion.engine.errors import InputError
from giffusion.engine.media import index as index_module
from giffusion.engine.media.decoding import MAX_PIXEL_ASPECT
from giffusion.engine.media.index import film_index
from giffusion.engine.media.probe import film_info
from giffusion.engine.media.video import FilmCut, FilmReader
from tests.engine.media.films import SIZE, number_of, numbered, numbered_film, write_film

FASTSTART = {"container_options": {"movflags": "faststart"}}


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_all(path)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def read_all(path: Path, cut: FilmCut | None = None) -> list[int]:
    reader = FilmReader(cut or FilmCut(path), SIZE, Fraction(24))
    try:
        return [number_of(reader.read(frame)) for frame in range(min(reader.num_frames, 100))]
    finally:
        reader.close()


def cut_off(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def test_a_film_that_is_cut_off_says_what_can_be_read(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 60, options={"g": "6", "bf": "0"}, **FASTSTART)
    cut_off(path, 0.6)
    info = film_info(film_index(path))
    assert 10 < info.num_frames < 50
    assert info.num_frames + info.num_missing == 60
    length_s = float(info.duration_s)
    assert refusal(path) == (
        f"{path} is cut off: {info.num_frames} of its 60 frames can be read; end before "
        f"{length_s:.6g} s, or repair it"
    )
    cut = FilmCut(path, end_s=info.duration_s - Fraction(1, 24))
    assert read_all(path, cut) == list(range(info.num_frames - 1))


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.webm", "a.gif"])
def test_a_film_that_says_no_number_of_frames_just_ends(tmp_path: Path, name: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "a.webm": {"codec": "libvpx-vp9"},
        "a.gif": {"codec": "gif", "pixel_format": "rgb8", "rate": Fraction(25)},
    }
    how = kinds.get(name, {"options": {"bf": "0"}})
    path = cut_off(numbered_film(tmp_path / name, 60, **how), 0.6)
    num_frames = film_info(film_index(path)).num_frames
    assert 10 < num_frames < 59
    reader = FilmReader(FilmCut(path), SIZE, film_info(film_index(path)).fps)
    assert [number_of(reader.read(frame)) for frame in range(num_frames - 1)] == list(
        range(num_frames - 1)
    )
    reader.close()


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    path = cut_off(numbered_film(tmp_path / "a.mp4", 30), 0.8)
    assert refusal(path).startswith(f"{path} cannot be read as a film: ")


def test_a_frame_that_is_broken_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mov", 12, codec="png", pixel_format="rgb24")
    content = path.read_bytes()
    parts = content.split(b"IDAT")
    assert len(parts) == 13
    parts[6] = bytes(60) + parts[6][60:]
    path.write_bytes(b"IDAT".join(parts))
    reader = FilmReader(FilmCut(path), SIZE, Fraction(24))
    assert number_of(reader.read(4)) == 4
    with pytest.raises(InputError) as caught:
        reader.read(5)
    said = str(caught.value)
    assert said.startswith(f"{path} is damaged at frame 5: ")
    assert said.endswith("; repair it, or leave the frame out")
    assert [number_of(reader.read(frame)) for frame in (6, 7, 4, 0, 11)] == [6, 7, 4, 0, 11]
    reader.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["a.mp4", "a.mkv", "a.avi", "a.ts", "a.gif"]),
    places=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6
    ),
)
def test_any_bytes_end_in_a_line_or_in_frames(
    originals: dict[str, bytes], tmp_path: Path, name: str, places: list[tuple[float, bytes]]
) -> None:
    content = bytearray(originals[name])
    for share, written in places:
        at = int(share * len(content))
        content[at : at + len(written)] = written
    path = tmp_path / name
    path.write_bytes(content)
    said = ""
    try:
        film_info(film_index(path))
        read_all(path)
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("originals")
    gif = {"codec": "gif", "pixel_format": "rgb8", "rate": Fraction(25)}
    names = ["a.mp4", "a.mkv", "a.avi", "a.ts", "a.gif"]
    for name in names:
        numbered_film(folder / name, 6, **(gif if name == "a.gif" else {}))
    return {name: (folder / name).read_bytes() for name in names}


def changing_size(sizes: list[tuple[int, int]]) -> Iterator[av.Packet[av.VideoStream]]:
    for number, (width, height) in enumerate(sizes):
        context = av.VideoCodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
        context.time_base = Fraction(1, 24)
        frame = av.VideoFrame.from_ndarray(numbered(number, (width, height)), "rgb24")
        frame.pts = number
        yield from [*context.encode(frame.reformat(format="yuvj420p")), *context.encode(None)]


def test_a_film_that_changes_its_size_is_fitted_throughout(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    sizes = [(64, 48), (128, 96), (32, 64), (320, 240)]
    with av.open(path, "w") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number, packet in enumerate(changing_size(sizes)):
            packet.stream, packet.time_base = stream, Fraction(1, 24)
            packet.pts = packet.dts = number
            file.mux(packet)
    reader = FilmReader(FilmCut(path, resize="stretch"), SIZE, Fraction(24))
    frames = [reader.read(frame) for frame in range(4)]
    reader.close()
    assert [number_of(frame) for frame in frames] == [0, 1, 2, 3]
    assert {frame.shape for frame in frames} == {(48, 64, 3)}


def claiming(path: Path, width: int, height: int) -> Path:
    """Makes a film of a few bytes whose frames claim to be huge."""
    write_film(path, [np.zeros((48, 64, 3), np.uint8)], codec="mjpeg", pixel_format="yuvj420p")
    content = path.read_bytes()
    frame_header = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", 48, 64)
    assert content.count(frame_header) == 1
    bomb = b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width)
    path.write_bytes(content.replace(frame_header, bomb))
    return path


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mov"])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, name: str) -> None:
    path = claiming(tmp_path / name, 65000, 65000)
    began = time.monotonic()
    assert str(path) in refusal(path)
    assert time.monotonic() - began < 5


def test_pixels_of_an_absurd_shape(tmp_path: Path) -> None:
    def set_up(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(40)

    path = numbered_film(tmp_path / "a.mkv", 2, set_up=set_up)
    assert refusal(path) == (
        f"{path} has pixels of 40 to 1: expected at most {MAX_PIXEL_ASPECT} to 1; convert it"
    )


def test_times_that_jump_far(tmp_path: Path) -> None:
    """Eleven days between two frames are no loop and no memory."""
    path = numbered_film(tmp_path / "a.mkv", 3, times=[0, 40, 1_000_000_000])
    began = time.monotonic()
    info = film_info(film_index(path))
    assert (info.num_frames, info.variable) == (3, True)
    reader = FilmReader(FilmCut(path), SIZE, Fraction(24))
    assert reader.num_frames > 24_000_000
    assert [number_of(reader.read(frame)) for frame in (0, 1, 2, 24_000_000)] == [0, 1, 1, 2]
    reader.close()
    assert time.monotonic() - began < 5


def test_a_rate_of_a_million(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.nut", 5, codec="ffv1", rate=Fraction(1_000_000))
    assert film_info(film_index(path)).fps == 1_000_000
    assert read_all(path) == [0]


def test_more_frames_than_the_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered_film(tmp_path / "a.mp4", 12)
    monkeypatch.setattr(index_module, "MAX_FILM_FRAMES", 11)
    with pytest.raises(InputError) as caught:
        film_index(path)
    assert str(caught.value) == f"{path} has more than 11 frames: cut it"


def test_no_frame_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        file.start_encoding()
    assert str(path) in refusal(path)
