"""Films and sounds that the page's lines with `#` speak of: whole ones, and broken in each way."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.engine.media.films import numbered_film
from tests.engine.media.sounds import wandering_tone, write_film, write_sound

RATE = 16_000
_FASTSTART = {"movflags": "faststart"}


def _film(folder: Path, name: str, num_frames: str) -> None:
    numbered_film(folder / name, int(num_frames))


def _sounding_film(folder: Path, name: str, seconds: str, sound_s: str) -> None:
    sound = (0, wandering_tone(int(sound_s) * RATE, RATE))
    write_film(folder / name, sound, RATE, num_frames=25 * int(seconds))


def _cut_film(folder: Path, name: str, num_left: str, num_frames: str) -> None:
    """Makes a film of raw pictures whose last ones are missing, and half a one besides."""
    raw = {"codec": "rawvideo", "pixel_format": "rgb24", "container_options": _FASTSTART}
    path = numbered_film(folder / name, int(num_frames), **raw)
    content = path.read_bytes()
    size = 64 * 48 * 3
    missing = size * (int(num_frames) - int(num_left)) - size // 2
    path.write_bytes(content[:-missing])


def _broken_frame(folder: Path, number: str, name: str) -> None:
    path = numbered_film(folder / name, 12, codec="png", pixel_format="rgb24")
    parts = path.read_bytes().split(b"IDAT")
    parts[int(number) + 1] = bytes(60) + parts[int(number) + 1][60:]
    path.write_bytes(b"IDAT".join(parts))


def _no_index(folder: Path, name: str) -> None:
    content = numbered_film(folder / name, 30).read_bytes()
    (folder / name).write_bytes(content[: content.index(b"moov") - 4])


def _wide_pixels(folder: Path, name: str, aspect: str) -> None:
    def set_up(stream: av.VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)

    numbered_film(folder / name, 2, set_up=set_up)


def _no_frame(folder: Path, name: str) -> None:
    with av.open(folder / name, "w") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        file.start_encoding()


def _unknown_codec(folder: Path, name: str) -> None:
    path = numbered_film(folder / name, 2)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz1"))


def _many_sounds(folder: Path, name: str, count: str) -> None:
    with av.open(folder / name, "w") as file:
        # All streams have to be known before the first packet.
        streams = [
            file.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(int(count))
        ]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 160), np.int16), "s16", "mono")
            frame.rate = RATE
            file.mux([*stream.encode(frame), *stream.encode()])


def _sound(folder: Path, name: str, seconds: str) -> None:
    write_sound(folder / name, [(0, wandering_tone(int(seconds) * RATE, RATE))], RATE)


def _half_sound(folder: Path, name: str, seconds: str) -> None:
    _sound(folder, name, seconds)
    _first_bytes(folder, name, str((folder / name).stat().st_size // 2))


def _broken_sound(folder: Path, name: str, seconds: str) -> None:
    _sound(folder, name, seconds)
    content = bytearray((folder / name).read_bytes())
    half = len(content) // 2
    content[half : half + 3_000] = np.random.default_rng(0).bytes(3_000)
    (folder / name).write_bytes(content)


def _claim(folder: Path, name: str, what: str) -> None:
    """Writes a WAV file whose header says something odd, over two seconds of silence."""
    num_channels, rate, num_bytes = {
        "no samples": (1, 8_000, 0),
        "300 channels": (300, 8_000, 6_000),
        "no channels": (0, 8_000, 6_000),
        "a sample a second": (1, 1, 6_000),
    }[what]
    head = struct.pack(
        "<HHIIHH", 1, num_channels, rate, 2 * rate * num_channels, 2 * num_channels, 16
    )
    data = b"data" + struct.pack("<I", num_bytes) + bytes(num_bytes)
    riff = b"WAVEfmt " + struct.pack("<I", len(head)) + head + data
    (folder / name).write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)


def _two_sounds(folder: Path, name: str, first: str, second: str, what: str) -> None:
    """Joins two sounds of one second that differ in one thing."""
    joined = b""
    for number in (int(first), int(second)):
        rate, channels = (number, 1) if what == "samples a second" else (48_000, number)
        path = folder / f"part{folder.joinpath(name).suffix}"
        codec = ("ac3", "fltp") if path.suffix == ".ts" else ("", "")
        write_sound(path, [(0, wandering_tone(rate, rate, channels))], rate, *codec)
        joined += path.read_bytes()
    (folder / name).write_bytes(joined)


def _jumping_sound(folder: Path, name: str, seconds: str) -> None:
    tone = wandering_tone(4_608, 8_000)
    parts = [(0, tone), (int(seconds) * 8_000, tone)]
    write_sound(folder / name, parts, 8_000, "flac", "s16")


def _first_bytes(folder: Path, name: str, length: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[: int(length)])


def _content(text: str) -> Callable[[Path, str], None]:
    def write(folder: Path, name: str) -> None:
        (folder / name).write_text(text, "utf-8")

    return write


_NAME = r"(\S+)"
MEDIA_SCENES: dict[str, Callable[..., None]] = {
    rf"{_NAME} is a film of (\d+) frames": _film,
    rf"{_NAME} is a film of (\d+) s with (\d+) s of sound": _sounding_film,
    rf"{_NAME} is cut off after (\d+) of its (\d+) frames": _cut_film,
    rf"{_NAME} is cut off after (\d+) bytes": _first_bytes,
    rf"{_NAME} is a film without its index": _no_index,
    rf"frame (\d+) of {_NAME} is damaged": _broken_frame,
    rf"{_NAME} is a film with pixels of (\d+) to 1": _wide_pixels,
    rf"{_NAME} is a film without frames": _no_frame,
    rf"{_NAME} is a film in an unknown codec": _unknown_codec,
    rf"{_NAME} has (\d+) sounds": _many_sounds,
    rf"{_NAME} is a list of files": _content("ffconcat version 1.0\nfile 'other.mp4'\n"),
    rf"{_NAME} is a playlist": _content(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n"
    ),
    rf"{_NAME} is a sound of (\d+) s": _sound,
    rf"{_NAME} is half a file of (\d+) s": _half_sound,
    rf"{_NAME} is a sound of (\d+) s that is damaged": _broken_sound,
    rf"{_NAME} says that it has (.+)": _claim,
    rf"{_NAME} changes from (\d+) to (\d+) (samples a second|channels)": _two_sounds,
    rf"{_NAME} goes on after (\d+) s": _jumping_sound,
}
