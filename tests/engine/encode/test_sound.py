"""Sound in MP4 and WebM: where each click is heard, how long it lasts, what a file is made of."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from giffusion.engine.encode import (
    SoundTrack,
    carries_sound,
    check_sound,
    open_writer,
    read_metadata,
)
from giffusion.engine.encode.containers import MP4, WEBM, open_video
from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.encode.sound import AAC, OPUS
from giffusion.engine.encode.writer import Writer
from giffusion.engine.errors import InputError, OutputError, RenderError
from giffusion.engine.media.sound import sound_info
from tests.engine.encode.pictures import SIZE, nv12_picture
from tests.engine.media.sounds import (
    Samples,
    click_seconds,
    offset,
    read_sound,
    wandering_tone,
    write_film,
    write_sound,
)

FPS = Fraction(24_000, 1001)
AAC_FRAME = 1024


def writer(
    path: Path,
    track: SoundTrack | None,
    num_frames: int,
    fps: Fraction = FPS,
    size: tuple[int, int] = (16, 16),
    *,
    encoder: str = "auto",
    keep_partial: bool = False,
) -> Writer:
    return open_writer(
        path,
        size=size,
        fps=fps,
        num_frames=num_frames,
        metadata='{"a": 1}',
        encoder=encoder,
        quality=1,
        keep_partial=keep_partial,
        sound=track,
    )


def render(
    path: Path,
    track: SoundTrack | None,
    num_frames: int,
    fps: Fraction = FPS,
    size: tuple[int, int] = (16, 16),
    *,
    encoder: str = "auto",
) -> None:
    """Writes grey frames, as small and quick as the encoder has them, with a sound."""
    frame = np.full((size[1] * 3 // 2, size[0]), 99, np.uint8)
    with writer(path, track, num_frames, fps, size, encoder=encoder) as film:
        for index in range(num_frames):
            film.write(index, frame)


def click_offsets(found: Samples, rate: int, num_seconds: int) -> set[int]:
    """Returns by how many samples the clicks of each second are late."""
    _, click = next(click_seconds(1, rate))
    near = 2 * AAC_FRAME
    offsets = set()
    for second in range(num_seconds):
        start = max(second * rate - near, 0)
        place = second * rate - start
        part = found[0, start : start + place + near]
        offsets.add(offset(part, np.pad(click[0, :near], (place, 0))[: len(part)]))
    return offsets


def test_ten_minutes_of_clicks_are_where_they_were(tmp_path: Path) -> None:
    rate, num_frames = 16_000, int(600 * FPS)
    write_sound(tmp_path / "clicks.flac", click_seconds(600, rate), rate)
    render(tmp_path / "a.mp4", SoundTrack(tmp_path / "clicks.flac"), num_frames, size=(2, 2))
    found = read_sound(tmp_path / "a.mp4")
    assert found.shape == (1, num_frames / FPS * rate // 1)
    assert click_offsets(found, rate, 599) == {0}
    with open_video(tmp_path / "a.mp4", MP4) as file:
        for stream in (file.streams.video[0], file.streams.audio[0]):
            assert stream.time_base is not None
            assert (stream.start_time, (stream.duration or 0) * stream.time_base) == (
                0,
                num_frames / FPS if stream.type == "video" else Fraction(found.shape[1], rate),
            )


def test_a_minute_of_clicks_in_webm_is_where_it_was(tmp_path: Path) -> None:
    num_frames = int(60 * FPS)
    write_sound(tmp_path / "clicks.wav", click_seconds(60, 48_000), 48_000)
    track = SoundTrack(tmp_path / "clicks.wav")
    render(tmp_path / "a.webm", track, num_frames, size=(2, 2))
    found = read_sound(tmp_path / "a.webm")
    assert found.shape == (1, num_frames / FPS * 48_000 // 1)
    assert click_offsets(found, 48_000, 59) == {0}
    with open_video(tmp_path / "a.webm", WEBM) as file:
        assert [stream.start_time for stream in file.streams] == [0, 0]


@pytest.mark.parametrize("fps", ["1/3", "7/3", "30000/1001", "60"])
@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("a.mp4", "libx264"),
        ("a.mp4", "libx265"),
        ("a.mp4", "libsvtav1"),
        ("a.webm", "libvpx-vp9"),
        ("a.webm", "libsvtav1"),
    ],
)
def test_sound_and_frames_begin_together_and_sound_ends_first(
    tmp_path: Path, name: str, encoder: str, fps: str
) -> None:
    rate, num_frames = Fraction(fps), 7
    tone = wandering_tone(22 * 44_100, 44_100, 2)
    write_sound(tmp_path / "a.flac", [(0, tone)], 44_100)
    path = tmp_path / name
    render(path, SoundTrack(tmp_path / "a.flac"), num_frames, rate, encoder=encoder)
    found, new_rate = read_sound(path), sound_info(path).rate
    assert found.shape == (2, num_frames / rate * new_rate // 1)
    expected = read_sound(tmp_path / "a.flac", rate=new_rate)
    if found.shape[1] > new_rate // 2:
        assert offset(found[0], expected[0, : found.shape[1]]) == 0
    with av.open(str(path)) as file:
        times = [(frame.pts or 0) * (frame.time_base or 0) for frame in file.decode(video=0)]
    assert len(times) == num_frames
    assert times[0] == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_part_is_heard_from_its_first_sample(tmp_path: Path, name: str) -> None:
    tone = wandering_tone(20 * 48_000, 48_000)
    # Opus moves the waves of a pure tone about, and no click.
    tone[:, ::5_000] += 0.5
    write_sound(tmp_path / "a.flac", [(0, tone)], 48_000)
    track = SoundTrack(tmp_path / "a.flac", Fraction("9.001"), Fraction("10.5"))
    render(tmp_path / name, track, 48, Fraction(24))
    found = read_sound(tmp_path / name)
    first = 9_001 * 48
    assert found.shape == (1, 1_499 * 48)
    assert offset(found[0], tone[0, first : first + found.shape[1]]) == 0


def test_a_films_sound_that_begins_late_is_late(tmp_path: Path) -> None:
    write_film(tmp_path / "film.mkv", (12_000, wandering_tone(48_000, 48_000)), 48_000)
    track = SoundTrack(tmp_path / "film.mkv")
    assert check_sound(track, Fraction(2)) == []
    render(tmp_path / "a.mp4", track, 50, Fraction(25))
    found, expected = read_sound(tmp_path / "a.mp4"), read_sound(tmp_path / "film.mkv")
    assert found.shape == expected.shape == (1, 60_000)
    assert offset(found[0], expected[0]) == 0
    assert np.abs(found[:, : 12_000 - 2 * AAC_FRAME]).max() < 1e-3


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_the_same_sound_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    write_sound(tmp_path / "a.flac", [(0, wandering_tone(44_100, 44_100, 2))], 44_100)
    files = []
    for folder in ("b", "c", "d"):
        (tmp_path / folder).mkdir()
        render(tmp_path / folder / name, SoundTrack(tmp_path / "a.flac"), 24)
        files.append((tmp_path / folder / name).read_bytes())
        assert read_metadata(tmp_path / folder / name) == '{"a": 1}'
    assert files[0] == files[1] == files[2]
    # The version of an encoder would be another one on another machine.
    assert b"Lavc" not in files[0]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_sound_lies_beside_its_frames_in_the_file(tmp_path: Path, name: str) -> None:
    """So that a player need not hold the one until the other comes, nor the writer."""
    write_sound(tmp_path / "a.flac", click_seconds(40, 16_000), 16_000)
    render(tmp_path / name, SoundTrack(tmp_path / "a.flac"), 960, Fraction(24))
    times, apart = {"video": 0.0, "audio": 0.0}, []
    with av.open(str(tmp_path / name)) as file:
        packets = [packet for packet in file.demux() if packet.size and packet.pos is not None]
        for packet in sorted(packets, key=lambda packet: packet.pos or 0):
            times[packet.stream.type] = float((packet.pts or 0) * packet.time_base)
            apart.append(abs(times["video"] - times["audio"]))
    assert len(apart) > 1_500
    assert max(apart) < 1.5


def test_what_was_kept_of_a_render_has_no_more_sound_than_frames(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.flac", click_seconds(4, 48_000), 48_000)
    film = writer(tmp_path / "a.mp4", SoundTrack(tmp_path / "a.flac"), 96, keep_partial=True)
    for index in range(30):
        film.write(index, np.full((24, 16), 99, np.uint8))
    kept = film.abort()
    assert kept is not None
    assert read_sound(kept).shape == (1, 30 / FPS * 48_000 // 1)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_a_sound_that_breaks_on_the_way_leaves_nothing(tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.mp3"
    write_sound(source, [(0, wandering_tone(6 * 48_000, 48_000))], 48_000)
    data = bytearray(source.read_bytes())
    half = len(data) // 2
    data[half : half + 3_000] = np.random.default_rng(0).bytes(3_000)
    source.write_bytes(data)
    (tmp_path / "out").mkdir()
    for check in (
        lambda: check_sound(SoundTrack(source), Fraction(5)),
        lambda: render(tmp_path / "out" / name, SoundTrack(source), 120, Fraction(24)),
    ):
        with pytest.raises(
            InputError, match=r"a\.mp3: its sound is damaged after [23]\."
        ) as caught:
            check()
        assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    # What will not be heard is not read.
    assert check_sound(SoundTrack(source), Fraction(2)) == []


def test_a_file_without_sound_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    render(tmp_path / "film.mp4", None, 2)
    track = SoundTrack(tmp_path / "film.mp4")
    with pytest.raises(InputError, match="has no audio"):
        check_sound(track)
    with pytest.raises(InputError, match="has no audio"):
        writer(tmp_path / "a.mp4", track, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_part_without_sound_is_refused(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", click_seconds(2, 8_000), 8_000)
    with pytest.raises(InputError, match=r"no sound from 2 s to its end: expected an earlier"):
        check_sound(SoundTrack(tmp_path / "a.wav", Fraction(2)))
    with pytest.raises(InputError, match=r"no sound from 9\.5 s to 10\.5 s"):
        check_sound(SoundTrack(tmp_path / "a.wav", Fraction("9.5")), Fraction(1))


def test_what_will_be_other_than_in_the_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    write_sound(path, [(0, wandering_tone(96_000, 48_000, 6))], 48_000)
    assert check_sound(SoundTrack(path), Fraction(5)) == [
        f"{path}: 6 channels are mixed to stereo",
        f"{path}: the sound ends after 2 s of 5 s",
    ]
    render(tmp_path / "a.mp4", SoundTrack(path), 24)
    assert sound_info(tmp_path / "a.mp4").num_channels == 2


@pytest.mark.parametrize(
    ("rate", "aac"),
    [
        *((rate, rate) for rate in AAC.rates),
        *(
            (37_800, 44_100),
            (4_000, 7_350),
            (192_000, 96_000),
            (176_400, 88_200),
            (100_000, 96_000),
        ),
    ],
)
def test_rates_are_kept_or_are_the_next_that_loses_nothing(rate: int, aac: int) -> None:
    assert (AAC.rate_for(rate), OPUS.rate_for(rate)) == (aac, 48_000)


def test_bits_suit_the_sound() -> None:
    assert [AAC.bits_for(48_000, 2), AAC.bits_for(44_100, 2)] == [192_000, 192_000]
    assert [AAC.bits_for(48_000, 1), AAC.bits_for(8_000, 1)] == [96_000, 32_000]
    assert OPUS.bits_for(48_000, 2) == 128_000


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 96_000, 192_000])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_every_rate_is_carried(
    tmp_path: Path, name: str, rate: int, capfd: pytest.CaptureFixture[str]
) -> None:
    write_sound(tmp_path / "a.wav", [(0, wandering_tone(rate, rate, 2))], rate)
    render(tmp_path / name, SoundTrack(tmp_path / "a.wav"), 20)
    codec = AAC if name == "a.mp4" else OPUS
    info = sound_info(tmp_path / name)
    assert (info.rate, info.num_channels) == (codec.rate_for(rate), 2)
    assert capfd.readouterr() == ("", "")


def test_formats_say_whether_they_carry_sound(tmp_path: Path) -> None:
    carrying = [extension for extension in FORMATS if carries_sound(Path(f"a{extension}"))]
    assert carrying == [".mp4", ".webm"]
    write_sound(tmp_path / "a.wav", click_seconds(1, 8_000), 8_000)
    with pytest.raises(OutputError, match=r"GIF carries no sound: write \.mp4 or \.webm"):
        writer(tmp_path / "a.gif", SoundTrack(tmp_path / "a.wav"), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_film_that_lost_sound_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sound(tmp_path / "a.wav", click_seconds(1, 48_000), 48_000)
    film = writer(tmp_path / "a.mp4", SoundTrack(tmp_path / "a.wav"), 24, size=SIZE)
    for index in range(24):
        film.write(index, nv12_picture(index))
    sound = film._encoder._sound  # type: ignore[attr-defined]
    monkeypatch.setattr(sound, "rest", list)
    sound.num_packets += 1
    with pytest.raises(RenderError, match="packets of sound: render it again"):
        film.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
