"""Sound: each sample in its place, whatever the format; files that are none, broken or crafted."""

from __future__ import annotations

import contextlib
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giffusion.engine.errors import InputError
from giffusion.engine.media.mixing import Resampler, mixed, stereo_weights
from giffusion.engine.media.samples import MAX_GAP_S
from giffusion.engine.media.sound import SoundInfo, sound_blocks, sound_info
from tests.engine.media.sounds import (
    click_seconds,
    offset,
    read_sound,
    wandering_tone,
    write_film,
    write_sound,
)

RATE = 48_000
FLAC_FRAME = 4_608
LOSSLESS = (".wav", ".flac", ".aiff")
LOSSY = (".mp3", ".m4a", ".opus", ".webm", ".mkv")


@pytest.mark.parametrize("extension", LOSSLESS)
@pytest.mark.parametrize("num_channels", [1, 2, 6])
def test_lossless_sound_comes_back_sample_for_sample(
    tmp_path: Path, extension: str, num_channels: int
) -> None:
    tone = wandering_tone(70_000, 44_100, num_channels)
    path = tmp_path / f"a{extension}"
    write_sound(path, [(0, tone)], 44_100)
    assert sound_info(path) == SoundInfo(44_100, num_channels, Fraction(70_000, 44_100))
    found = read_sound(path)
    assert found.dtype.name == "float32"
    assert found.shape == tone.shape
    assert np.abs(found - tone).max() <= 1 / 32_768


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_every_kind_of_number_has_the_same_level(tmp_path: Path, codec: str) -> None:
    tone = wandering_tone(9_000, RATE, 2)
    formats = {"pcm_u8": "u8", "pcm_s16le": "s16", "pcm_s32le": "s32", "pcm_f64le": "dbl"}
    write_sound(tmp_path / "a.wav", [(0, tone)], RATE, codec, formats.get(codec, "flt"))
    step = {"pcm_u8": 1 / 128, "pcm_s16le": 1 / 32_768}.get(codec, 1e-7)
    assert np.abs(read_sound(tmp_path / "a.wav") - tone).max() <= step


@pytest.mark.parametrize("extension", LOSSY)
def test_what_an_encoder_puts_before_the_sound_is_left_out(tmp_path: Path, extension: str) -> None:
    # Whole milliseconds, as FFmpeg's MP4 rounds its edit list to them.
    tone = wandering_tone(3 * RATE + 96, RATE)
    path = tmp_path / f"a{extension}"
    write_sound(path, [(0, tone)], RATE)
    found = read_sound(path)
    assert offset(found[0], tone[0]) == 0
    # Matroska does not say how much of AAC's last frame is sound.
    assert 0 <= found.shape[1] - tone.shape[1] < (1024 if extension == ".mkv" else 1)


@pytest.mark.parametrize("extension", [*LOSSLESS, *LOSSY])
def test_a_late_start_is_the_same_sound_without_what_is_before(
    tmp_path: Path, extension: str
) -> None:
    tone = wandering_tone(12 * RATE, RATE, 2)
    path = tmp_path / f"a{extension}"
    write_sound(path, [(0, tone)], RATE)
    start_s, end_s = Fraction("7.123"), Fraction("9.5")
    first, last = round(start_s * RATE), round(end_s * RATE)
    whole, found = read_sound(path)[:, first:last], read_sound(path, start_s, end_s)
    assert found.shape == whole.shape
    assert offset(found[0], whole[0]) == 0
    if extension not in (".m4a", ".opus"):  # whose decoders remember all that they decoded
        assert np.array_equal(found, whole)


def test_a_part_is_cut_to_the_sample(tmp_path: Path) -> None:
    tone = wandering_tone(9_999, 8_000)
    write_sound(tmp_path / "a.wav", [(0, tone)], 8_000)
    whole = read_sound(tmp_path / "a.wav")
    for first, last in [(0, 1), (1, 2), (4_095, 4_097), (5_000, 9_999), (9_998, 12_000)]:
        found = read_sound(tmp_path / "a.wav", Fraction(first, 8_000), Fraction(last, 8_000))
        assert np.array_equal(found, whole[:, first:last])


def test_past_the_end_nothing_comes(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.wav", [(0, wandering_tone(9_000, 8_000))], 8_000)
    assert list(sound_blocks(tmp_path / "a.wav", start_s=Fraction(9_000, 8_000))) == []
    assert list(sound_blocks(tmp_path / "a.wav", start_s=Fraction(999))) == []
    assert list(sound_blocks(tmp_path / "a.wav", start_s=Fraction(999), rate=22_050)) == []


@pytest.mark.parametrize("rate", [None, 22_050])
def test_blocks_have_a_second_or_less(tmp_path: Path, rate: int | None) -> None:
    write_sound(tmp_path / "a.flac", click_seconds(5, 16_000), 16_000)
    shapes = [block.shape for block in sound_blocks(tmp_path / "a.flac", rate=rate)]
    assert shapes == [(1, rate or 16_000)] * 5


@pytest.mark.parametrize(
    ("rate", "new_rate"), [(44_100, 22_050), (48_000, 22_050), (8_000, 48_000)]
)
def test_another_rate_shifts_nothing(tmp_path: Path, rate: int, new_rate: int) -> None:
    def sine(num_samples: int, at: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        return 0.5 * np.sin(2 * np.pi * 440 * np.arange(num_samples) / at)

    write_sound(tmp_path / "a.wav", [(0, sine(2 * rate + 1, rate)[None].astype("f4"))], rate)
    found = read_sound(tmp_path / "a.wav", rate=new_rate)[0]
    assert len(found) == round(Fraction((2 * rate + 1) * new_rate, rate))
    inside = slice(200, -200)
    assert np.abs(found - sine(len(found), new_rate))[inside].max() < 1e-3
    later = read_sound(tmp_path / "a.wav", Fraction(1, 2), rate=new_rate)[0]
    shared = min(len(later), len(found) - new_rate // 2)
    assert np.abs(later[:shared] - found[new_rate // 2 :][:shared])[inside].max() < 1e-3


@given(sizes=st.lists(st.integers(0, 3_000), max_size=6), new_rate=st.sampled_from([7, 11, 13]))
@settings(max_examples=20, deadline=None)
def test_a_resampler_keeps_the_duration_however_it_is_fed(sizes: list[int], new_rate: int) -> None:
    resampler = Resampler(1, 11_000, new_rate * 1_000)
    blocks = [np.zeros((1, size), np.float32) for size in sizes]
    found = [resampler.write(block) for block in blocks if block.size]
    assert sum(block.shape[1] for block in [*found, resampler.rest()]) == round(
        Fraction(sum(sizes) * new_rate, 11)
    )


def test_channels_are_mixed_as_asked(tmp_path: Path) -> None:
    stereo = wandering_tone(20_000, RATE, 2)
    write_sound(tmp_path / "a.wav", [(0, stereo)], RATE)
    assert np.allclose(read_sound(tmp_path / "a.wav", num_channels=1), stereo.mean(0), atol=1e-4)
    write_sound(tmp_path / "b.wav", [(0, stereo[:1])], RATE)
    both = read_sound(tmp_path / "b.wav", num_channels=2)
    assert np.array_equal(both[0], both[1])
    assert np.allclose(both[0], stereo[0], atol=1e-4)


def test_surround_is_mixed_so_that_nothing_clips(tmp_path: Path) -> None:
    write_sound(tmp_path / "a.flac", [(0, np.full((6, 9_000), 0.99, "f4"))], RATE)
    found = read_sound(tmp_path / "a.flac", num_channels=2)
    assert np.allclose(found, 0.99, atol=1e-3)
    left, right = stereo_weights(["FL", "FR", "FC", "LFE", "BL", "BR"])
    assert np.allclose(left / left[0], [1, 0, 0.5**0.5, 0, 0.5**0.5, 0])
    assert np.array_equal(right[[1, 0, 2, 3, 5, 4]], left)


def test_channels_without_names_are_in_the_middle() -> None:
    samples = np.eye(3, dtype=np.float32)
    found = mixed(samples, ["NONE", "UNSD12", "AMBI0"], 2)
    assert np.allclose(found, 1 / 3)


def test_a_film_whose_sound_begins_late_begins_with_silence(tmp_path: Path) -> None:
    tone = wandering_tone(RATE, RATE)
    for extension in (".mkv", ".mp4"):
        write_film(tmp_path / f"a{extension}", (12_000, tone), RATE)
        found = read_sound(tmp_path / f"a{extension}")
        assert not found[:, :12_000].any()
        assert np.abs(found[:, 12_000:] - tone).max() <= 1 / 32_768


def test_sound_before_a_films_first_frame_is_left_out(tmp_path: Path) -> None:
    tone = wandering_tone(2 * RATE, RATE)
    write_film(tmp_path / "a.mkv", (0, tone), RATE, first_frame=10)
    found = read_sound(tmp_path / "a.mkv")
    assert np.abs(found - tone[:, 10 * RATE // 25 :]).max() <= 1 / 32_768


def test_a_gap_is_silence_and_an_overlap_is_cut(tmp_path: Path) -> None:
    tone = wandering_tone(6 * FLAC_FRAME, RATE)
    first, second = np.split(tone, 2, axis=1)
    for name, place in (("gap", 48_000), ("overlap", 9_600)):
        path = tmp_path / f"{name}.mkv"
        write_sound(path, [(0, first), (place, second)], RATE, "flac", "s16")
        expected = np.zeros((1, place + second.shape[1]), "f4")
        expected[:, place:] = second
        expected[:, : first.shape[1]] = first
        assert np.abs(read_sound(path) - expected).max() <= 1 / 32_768


def test_times_in_milliseconds_tear_nothing(tmp_path: Path) -> None:
    """A frame of 1,024 samples at 44.1 kHz lasts 23.22 ms; Matroska says 23 or 24."""
    tone = wandering_tone(441_000, 44_100)
    write_sound(tmp_path / "a.mkv", [(0, tone)], 44_100, "flac", "s16")
    assert np.abs(read_sound(tmp_path / "a.mkv") - tone).max() <= 1 / 32_768


def wav(path: Path, num_channels: int, rate: int, body: bytes, length: int | None = None) -> Path:
    """Writes a WAV file whose header says what it is told to say."""
    length = len(body) if length is None else length
    speed = min(2 * rate * num_channels, 2**32 - 1)
    head = struct.pack("<HHIIHH", 1, num_channels, rate, speed, 2 * num_channels % 65_536, 16)
    riff = b"RIFF" + struct.pack("<I", min(36 + length, 2**32 - 1)) + b"WAVEfmt "
    data = b"data" + struct.pack("<I", length)
    path.write_bytes(riff + struct.pack("<I", 16) + head + data + body)
    return path


@pytest.mark.parametrize("length", [0, 2**32 - 1])
def test_a_wav_that_was_streamed_is_read_to_its_last_sample(tmp_path: Path, length: int) -> None:
    path = wav(tmp_path / "a.wav", 1, 8_000, b"\1\2" * 4_001, length)
    assert read_sound(path).shape == (1, 4_001)


@pytest.mark.parametrize(
    ("num_channels", "rate", "body", "message"),
    [
        (1, 8_000, b"", "has 0 s of sound"),
        (300, 8_000, b"\0" * 6_000, "has 300 channels: expected 1 to 64"),
        (0, 8_000, b"\0" * 6_000, "is damaged after 0.000 s"),
        (65_535, 8_000, b"\0" * 6_000, "is damaged after 0.000 s"),
        (1, 1, b"\0" * 6_000, "has 1 samples a second: expected 1000 to 768000"),
        (1, 0, b"\0" * 6_000, "cannot be read"),
        (1, 4_000_000_000, b"\0" * 6_000, "cannot be read"),
    ],
)
def test_a_header_that_is_none_of_sound_is_refused(
    tmp_path: Path, num_channels: int, rate: int, body: bytes, message: str
) -> None:
    path = wav(tmp_path / "a.wav", num_channels, rate, body)
    for read in (sound_info, read_sound):
        with pytest.raises(InputError, match=message) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no sound at all\n" * 50, b"\0" * 9_999, b"#EXTM3U\na.wav\n"]
)
def test_what_is_no_sound_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mp3").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.mp3"):
        read_sound(tmp_path / "a.mp3")
    with pytest.raises(InputError, match="is no file"):
        sound_info(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        sound_info(tmp_path / "b.mp3")


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
        file.mux(stream.encode(None))
    with pytest.raises(InputError, match="has no audio, only video"):
        sound_info(tmp_path / "a.mp4")


@pytest.mark.parametrize("extension", [".flac", ".aiff", ".webm", ".mkv"])
def test_a_file_that_is_cut_short_says_where(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    write_sound(path, [(0, wandering_tone(6 * RATE, RATE))], RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert read_sound(path, end_s=Fraction(1)).shape == (1, RATE)
    with pytest.raises(
        InputError, match=r"is cut short: it has [23]\.\d+ s of sound, of 6\.0\d+ s"
    ):
        read_sound(path)


def test_damage_on_the_way_says_where_and_junk_at_the_end_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_sound(path, [(0, wandering_tone(6 * RATE, RATE))], RATE)
    data = bytearray(path.read_bytes())
    path.write_bytes(data + b"TAG" + b"junk" * 200)
    assert read_sound(path).shape == (1, 6 * RATE)
    data[len(data) // 2 :][:3_000] = b""
    half = len(data) // 2
    data[half : half + 3_000] = np.random.default_rng(0).bytes(3_000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"its sound is damaged after [23]\.\d+ s"):
        read_sound(path)


@pytest.mark.parametrize("rates", [(44_100, 48_000), (48_000, 44_100)])
def test_a_rate_that_changes_on_the_way_is_refused(tmp_path: Path, rates: tuple[int, int]) -> None:
    """In one way, since FFmpeg says the last rate of the first frame of so short a file."""
    for name, rate in zip("ab", rates, strict=True):
        write_sound(tmp_path / f"{name}.mp3", [(0, wandering_tone(rate, rate))], rate)
    both = (tmp_path / "a.mp3").read_bytes() + (tmp_path / "b.mp3").read_bytes()
    (tmp_path / "c.mp3").write_bytes(both)
    with pytest.raises(InputError, match="changes between 44100 and 48000 samples a second on"):
        read_sound(tmp_path / "c.mp3")


def test_a_jump_of_hours_is_refused_and_one_of_seconds_is_bounded(tmp_path: Path) -> None:
    tone = wandering_tone(FLAC_FRAME, 8_000)
    for name, gap_s in (("a", MAX_GAP_S // 60), ("b", MAX_GAP_S + 9)):
        parts = [(0, tone), (gap_s * 8_000, tone)]
        write_sound(tmp_path / f"{name}.mkv", parts, 8_000, "flac", "s16")
    sizes = [block.shape[1] for block in sound_blocks(tmp_path / "a.mkv")]
    assert max(sizes) == 8_000
    assert sum(sizes) == MAX_GAP_S // 60 * 8_000 + FLAC_FRAME
    with pytest.raises(InputError, match=r"jumps from 0\.\d+ s to 3609\.\d+ s"):
        read_sound(tmp_path / "b.mkv")


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_is_overwritten_ends_in_sound_or_in_a_line(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    extension = data.draw(st.sampled_from([".wav", ".flac", ".mp3", ".m4a", ".opus", ".webm"]))
    source = folder / f"whole{extension}"
    if not source.exists():
        write_sound(source, [(0, wandering_tone(16_000, 16_000))], 48_000)
    content = bytearray(source.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    junk = data.draw(st.binary(min_size=1, max_size=64))
    content[place : place + len(junk)] = junk
    del content[data.draw(st.integers(1, len(content))) :]
    path = folder / f"broken{extension}"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        num_samples = sum(block.shape[1] for block in sound_blocks(path, end_s=Fraction(5)))
        assert num_samples <= 5 * 768_000


def test_nothing_is_written_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_sound(tmp_path / "a.mp3", [(0, wandering_tone(RATE, RATE))], RATE)
    (tmp_path / "a.mp3").write_bytes((tmp_path / "a.mp3").read_bytes()[100:])
    capfd.readouterr()
    read_sound(tmp_path / "a.mp3", rate=22_050)
    assert capfd.readouterr() == ("", "")
