"""Sounds of known samples, written by FFmpeg's own encoders, for whoever reads and muxes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from giffusion.engine.media.sound import sound_blocks

Samples = NDArray[np.float32]  # (channels, n)
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
# Encoder and sample format by extension.
CODECS = {
    ".wav": ("pcm_s16le", "s16"),
    ".flac": ("flac", "s16"),
    ".aiff": ("pcm_s16be", "s16"),
    ".mp3": ("libmp3lame", "fltp"),
    ".m4a": ("aac", "fltp"),
    ".mp4": ("aac", "fltp"),
    ".opus": ("libopus", "flt"),
    ".webm": ("libopus", "flt"),
    ".mkv": ("aac", "fltp"),
}


def wandering_tone(num_samples: int, rate: int, num_channels: int = 1, seed: int = 0) -> Samples:
    """Returns a tone whose pitch wanders, so that it is like itself at no other place."""
    steps = np.random.default_rng(seed).standard_normal(num_samples // (rate // 50) + 1)
    pitch = 400 + 25 * np.cumsum(steps).repeat(rate // 50)[:num_samples]
    phase = 2 * np.pi * np.cumsum(np.clip(pitch, 100, 2000)) / rate
    return np.stack([0.4 * np.sin(phase * (1 + k / 2)) for k in range(num_channels)], dtype="f4")


def write_sound(
    path: Path, parts: Iterable[tuple[int, Samples]], rate: int, codec: str = "", fmt: str = ""
) -> None:
    """Writes parts, each with the number of its first sample, which the container may tell."""
    with av.open(str(path), "w") as file:
        add_sound(file, parts, rate, *((codec, fmt) if codec else CODECS[path.suffix]))


def add_sound(
    file: OutputContainer, parts: Iterable[tuple[int, Samples]], rate: int, codec: str, fmt: str
) -> None:
    stream: AudioStream | None = None
    for first, samples in parts:
        layout = LAYOUTS[len(samples)]
        if stream is None:
            stream = cast(AudioStream, file.add_stream(codec, rate=rate, layout=layout))
            stream.codec_context.format = fmt
            stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        splitter = AudioResampler(format=fmt, layout=layout, rate=rate, frame_size=size)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        for piece in [*splitter.resample(frame), *splitter.resample(None)]:
            file.mux(stream.encode(piece))
    assert stream is not None
    file.mux(stream.encode(None))


def write_film(
    path: Path, sound: tuple[int, Samples], rate: int, *, first_frame: int = 0, num_frames: int = 50
) -> None:
    """Writes a film of grey frames, 25 a second, whose sound and frames begin where it is said."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=25)
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        # Both streams have to be known before the first packet.
        audio = file.add_stream("flac", rate=rate, layout=LAYOUTS[len(sound[1])])
        audio.codec_context.format = "s16"
        for index in range(num_frames):
            picture = VideoFrame.from_ndarray(np.full((16, 16, 3), 99, np.uint8), "rgb24")
            picture.pts, picture.time_base = first_frame + index, Fraction(1, 25)
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(sound[1]), "fltp", audio.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, sound[0], Fraction(1, rate)
        file.mux(audio.encode(frame))
        file.mux(audio.encode(None))


def click_seconds(
    num_seconds: int, rate: int, num_channels: int = 1
) -> Iterator[tuple[int, Samples]]:
    """Yields a second at a time, each begun by a click."""
    times = np.arange(64)
    click = 0.9 * np.exp(-times / 12) * np.cos(2.0 * times)
    for index in range(num_seconds):
        second = np.zeros((num_channels, rate), np.float32)
        second[:, :64] = click
        yield index * rate, second


def read_sound(
    path: Path,
    start_s: Fraction = Fraction(0),
    end_s: Fraction | None = None,
    rate: int | None = None,
    num_channels: int | None = None,
) -> Samples:
    """Returns the whole of what `sound_blocks` yields."""
    blocks = sound_blocks(path, start_s=start_s, end_s=end_s, rate=rate, num_channels=num_channels)
    return np.concatenate(list(blocks), axis=1)


def offset(found: Samples, expected: Samples) -> int:
    """Returns how many samples later than expected one channel is, by cross-correlation."""
    size = 1 << (len(found) + len(expected)).bit_length()
    spectrum = np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size))
    place = int(np.fft.irfft(spectrum).argmax())
    return place - size if place > size // 2 else place
