"""Frames of films: which one is read for a time, however the file says when they are shown."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.media.decoding import FilmDecoder
from giffusion.engine.media.index import film_index
from giffusion.engine.media.probe import film_info
from giffusion.engine.media.video import READ_AHEAD, FilmCut, FilmReader, count_frames
from tests.engine.media.films import SIZE, number_of, numbered_film

MPEG4_B = {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}}
OPEN_GOP = {"options": {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0:bframes=3"}}
OPEN_GOP_265 = {
    "codec": "libx265",
    "options": {"x265-params": "open-gop=1:keyint=12:min-keyint=12:log-level=none"},
}
KINDS: dict[str, dict[str, Any]] = {
    "b.mp4": {},
    "open.mp4": OPEN_GOP,
    "open.ts": OPEN_GOP,
    "open265.mp4": OPEN_GOP_265,
    "b.mkv": {"options": {"g": "7"}},
    "a.webm": {"codec": "libvpx-vp9", "options": {"g": "10"}},
    "altref.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}},
    "mpeg4.avi": MPEG4_B,
    "h264.avi": {},
    "a.flv": {},
    "a.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.mxf": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "a.wmv": {"codec": "wmv2", "rate": Fraction(25)},
    "a.mov": {"codec": "prores", "pixel_format": "yuv422p10le"},
    "a.gif": {"codec": "gif", "pixel_format": "rgb8", "rate": Fraction(25)},
    "a.nut": {"codec": "ffv1"},
    "fragments.mp4": {
        "options": {"g": "8"},
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
    },
}


@contextmanager
def reading(
    cut: FilmCut,
    fps: Fraction,
    size: tuple[int, int] = SIZE,
    promised: Iterable[int] | None = None,
) -> Iterator[FilmReader]:
    reader = FilmReader(cut, size, fps, frames=promised)
    try:
        yield reader
    finally:
        reader.close()


def numbers(cut: FilmCut, fps: Fraction) -> list[int]:
    with reading(cut, fps) as reader:
        return [number_of(reader.read(frame)) for frame in range(reader.num_frames)]


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_read_once_at_the_films_rate(tmp_path: Path, name: str) -> None:
    """And in any order: what is come to by seeking is what is come to by decoding on."""
    how = {"rate": Fraction(24), **KINDS[name]}
    path = numbered_film(tmp_path / name, 40, **how)
    info = film_info(film_index(path))
    assert (info.num_frames, info.fps, info.variable) == (40, how["rate"], False)
    assert info.duration_s == 40 / info.fps
    assert (info.size, info.rotation, info.has_sound, info.num_missing) == (SIZE, 0, False, 0)
    assert numbers(FilmCut(path), info.fps) == list(range(40))
    order = random.Random(name).sample(range(40), 16)
    with reading(FilmCut(path), info.fps) as reader:
        assert [number_of(reader.read(frame)) for frame in order] == order


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_long_film_is_sought_in(tmp_path: Path, name: str) -> None:
    path = numbered_film(tmp_path / name, 250, **OPEN_GOP)
    order = [249, 0, 130, 131, 60, 200, 3, 61, 140, 11, 12, 13]
    with reading(FilmCut(path), Fraction(24)) as reader:
        assert [number_of(reader.read(frame)) for frame in order] == order


@pytest.mark.parametrize(
    "rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60000, 1001), Fraction(30)]
)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_rates_are_exact_though_containers_round(tmp_path: Path, name: str, rate: Fraction) -> None:
    path = numbered_film(tmp_path / name, 60, rate=rate)
    info = film_info(film_index(path))
    assert (info.fps, info.variable, info.num_frames) == (rate, False, 60)
    assert info.duration_s == 60 / rate
    assert numbers(FilmCut(path), rate) == list(range(60))


@pytest.mark.parametrize("fps", [Fraction(12), Fraction(48), Fraction(10), Fraction(60, 7)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_another_rate_takes_what_is_shown_at_each_time(
    tmp_path: Path, name: str, fps: Fraction
) -> None:
    path = numbered_film(tmp_path / name, 30)
    expected = [int(i / fps * 24) for i in range(100) if i / fps < Fraction(30, 24)]
    assert numbers(FilmCut(path), fps) == expected


def test_a_part_of_a_film_and_a_stride(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 48)
    cut = FilmCut(path, start_s=Fraction(1, 2), end_s=Fraction(3, 2), stride=5)
    assert numbers(cut, Fraction(24)) == [12, 17, 22, 27, 32]
    # The end is the first time that is not shown, and one after the film's is no error.
    assert numbers(FilmCut(path, end_s=Fraction(1, 8)), Fraction(24)) == [0, 1, 2]
    assert numbers(FilmCut(path, start_s=Fraction(46, 24), end_s=Fraction(9)), Fraction(24)) == [
        46,
        47,
    ]
    # A start between two frames shows the one that is still there.
    assert numbers(FilmCut(path, start_s=Fraction(3, 48), end_s=Fraction(1, 8)), Fraction(24)) == [
        1,
        2,
    ]


TIMES = [0, 40, 80, 90, 100, 400, 433, 467, 1000, 1001]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_varying_rate(tmp_path: Path, name: str) -> None:
    path = numbered_film(tmp_path / name, len(TIMES), times=TIMES)
    info = film_info(film_index(path))
    assert info.variable
    assert info.num_frames == len(TIMES)
    assert info.fps == Fraction(9 * 1000, 1001).limit_denominator(1001)
    fps = Fraction(50)
    expected = [max(k for k, t in enumerate(TIMES) if t <= i * 20) for i in range(51)]
    assert numbers(FilmCut(path), fps)[:51] == expected


def test_a_varying_rate_in_ticks_that_no_frame_lasts_whole(tmp_path: Path) -> None:
    """A recorder that leaves frames out of 30 a second, in milliseconds: 33, 67, 133, …"""
    kept = [n for n in range(40) if n % 7 != 3]
    times = [round(n * 1000 / 30) for n in kept]
    path = numbered_film(tmp_path / "a.mkv", len(kept), times=times)
    assert film_info(film_index(path)).variable
    expected = [max(k for k, n in enumerate(kept) if n <= i) for i in range(40)]
    assert numbers(FilmCut(path), Fraction(30))[:40] == expected


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    times = [5000 + 40 * i for i in range(10)]
    path = numbered_film(tmp_path / "a.mkv", 10, times=times)
    info = film_info(film_index(path))
    assert info.duration_s * info.fps == 10
    assert numbers(FilmCut(path), Fraction(25)) == list(range(10))


def test_a_film_of_one_frame(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 1)
    info = film_info(film_index(path))
    assert (info.num_frames, info.fps, info.variable) == (1, Fraction(24), False)
    assert numbers(FilmCut(path), Fraction(24)) == [0]


def test_frames_that_show_the_same_are_one_array(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 4)
    with reading(FilmCut(path), Fraction(48)) as reader:
        first, second, third = (reader.read(frame) for frame in range(3))
    assert first is second
    assert first is not third
    assert not first.flags.writeable


def test_an_index_that_is_known_is_used(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 12)
    index = film_index(path)
    reader = FilmReader(FilmCut(path), SIZE, index.fps, index)
    assert reader.num_frames == count_frames(FilmCut(path), index, index.fps) == 12
    assert count_frames(FilmCut(path, stride=5), index, Fraction(48)) == 5
    assert [number_of(reader.read(frame)) for frame in range(12)] == list(range(12))
    reader.close()


def test_a_film_that_takes_long_to_read_through_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    assert film_index(numbered_film(tmp_path / "a.mp4"), notes.append).num_frames == 30
    assert notes == []
    path = numbered_film(tmp_path / "b.mp4")
    monkeypatch.setattr("giffusion.engine.media.index.NOTE_AFTER_S", 0)
    film_index(path, notes.append)
    assert notes == [f"{path}: reading through 0.0 GB for its frames"]
    film_index(path, notes.append)
    assert len(notes) == 1  # it is known


def test_a_film_is_read_through_once_while_it_stays_as_it_is(tmp_path: Path) -> None:
    paths = [numbered_film(tmp_path / f"{name}.mp4") for name in "abc"]
    first = film_index(paths[0])
    assert film_index(paths[0]) is first
    # Another of the same size, put in its place with its times.
    other = numbered_film(tmp_path / "other.mp4", 31)
    for path in (paths[0], other):  # with an MP4's box of nothing at the end
        room = 20_000 - path.stat().st_size
        path.write_bytes(path.read_bytes() + room.to_bytes(4) + b"free" + bytes(room - 8))
    first, found = film_index(paths[0]), paths[0].stat()
    paths[0].write_bytes(other.read_bytes())
    os.utime(paths[0], ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (first.num_frames, film_index(paths[0]).num_frames) == (30, 31)
    other.replace(paths[0])
    last = film_index(paths[0])
    assert last is not first
    # Films are not kept without end.
    for path in paths[1:]:
        film_index(path)
    assert film_index(paths[0]) is not last


def test_a_film_that_changes_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = numbered_film(tmp_path / "a.mp4")
    monkeypatch.setattr("giffusion.engine.media.index.NOTE_AFTER_S", 0)
    first = film_index(path, lambda note: os.utime(path))
    assert film_index(path) is not first


def test_a_reader_ends_with_its_thread_and_its_file(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 60)
    before = threading.active_count(), _open_files()
    with reading(FilmCut(path), Fraction(24)) as reader:
        reader.read(0)
        assert threading.active_count() > before[0]
    assert (threading.active_count(), _open_files()) == before


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_few_frames_are_read_ahead(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 60)
    with reading(FilmCut(path), Fraction(24)) as reader:
        for frame in (0, 1, 2, 40, 41, 5, 6, 30, 20):
            assert number_of(reader.read(frame)) == frame
            assert len(reader._ahead) <= READ_AHEAD


@pytest.mark.parametrize(
    "promised", [range(100, 110), [0, 1, 100, 101, 102, 290], range(0, 60, 7), None]
)
def test_what_is_promised_is_decoded_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promised: Sequence[int] | None
) -> None:
    """Wherever it begins and whatever it leaves out: from the key frame before, forward."""
    decoded, decode = [], FilmDecoder._decoded

    def counted(self: FilmDecoder) -> Generator[tuple[int, Any], None, None]:
        for found in decode(self):
            decoded.append(found[0])
            yield found

    monkeypatch.setattr(FilmDecoder, "_decoded", counted)
    path = numbered_film(tmp_path / "a.mp4", 300, options={"preset": "ultrafast", "g": "12"})
    asked = range(100, 110) if promised is None else promised
    with reading(FilmCut(path), Fraction(24), promised=promised) as reader:
        for frame in asked:
            assert number_of(reader.read(frame)) == frame % 256
            wait(reader._ahead.values())
    runs = 1 + sum(after - before > 48 for before, after in pairwise(asked))
    between = sum(after - before for before, after in pairwise(asked) if after - before <= 48)
    # The first opening peeks at nothing; a run begins up to 11 frames early and looks 1 ahead.
    assert len(decoded) <= between + runs * 14 + (READ_AHEAD if promised is None else 0)


def test_a_promise_is_used_up_a_few_frames_ahead(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 60)
    promised = iter(range(0, 60, 3))
    with reading(FilmCut(path), Fraction(24), promised=promised) as reader:
        assert number_of(reader.read(0)) == 0
        assert next(promised) == 15
        # Some of these have not been promised.
        for frame in (3, 4, 15, 30, 31, 2, 45):
            assert number_of(reader.read(frame)) == frame


@pytest.mark.parametrize("frame", [-1, 30, 10**12])
def test_past_the_end_is_told_in_a_line(tmp_path: Path, frame: int) -> None:
    path = numbered_film(tmp_path / "a.mp4", 30)
    with reading(FilmCut(path), Fraction(24)) as reader, pytest.raises(InputError) as caught:
        reader.read(frame)
    assert str(caught.value) == (
        f"frame {frame} is past the end of {path}, which has 30 at this rate: render fewer "
        "frames, or choose a longer part"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"start_s": Fraction(-1)}, "the film's start is -1 s: expected 0 or more"),
        (
            {"start_s": Fraction(2), "end_s": Fraction(2)},
            "the film would begin at 2 s and end at 2 s: expected the end above the start",
        ),
        ({"stride": 0}, "the film's stride is 0: expected 1 or more"),
        ({"resize": "squash"}, "unknown resize 'squash': known: crop, pad, stretch"),
    ],
)
def test_a_cut_out_of_its_range(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        FilmCut(tmp_path / "none.mp4", **values).check()
    assert str(caught.value) == message


def test_a_start_after_the_films_end(tmp_path: Path) -> None:
    path = numbered_film(tmp_path / "a.mp4", 30)
    with pytest.raises(InputError) as caught:
        FilmReader(FilmCut(path, start_s=Fraction(5, 4)), SIZE, Fraction(24))
    assert str(caught.value) == f"{path} ends at 1.25 s: expected a start before, got 1.25 s"


def test_memory_does_not_grow_with_the_film(tmp_path: Path) -> None:
    """Frames of 640x360 would be 0.7 MB each; two hundred of them are read."""
    import resource

    path = numbered_film(tmp_path / "a.mp4", 30, options={"preset": "ultrafast"})
    with reading(FilmCut(path), Fraction(240), (640, 360)) as reader:
        assert reader.num_frames == 300
        for frame in range(20):
            reader.read(frame)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for frame in range(20, 300):
            reader.read(frame)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 30_000  # KiB


def test_numbers_are_those_that_were_drawn() -> None:
    from tests.engine.media.films import numbered

    assert [number_of(numbered(n)) for n in range(256)] == list(range(256))
    assert not np.array_equal(numbered(1), numbered(2))
