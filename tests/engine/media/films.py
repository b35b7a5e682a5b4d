"""Films of known frames: each says its number in blocks of black and white."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
SIZE = (64, 48)
_BITS = 8


def numbered(number: int, size: tuple[int, int] = SIZE) -> Pixels:
    """Draws a frame: the number's bits in the upper half, the lowest left; a square that moves."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    block = width // _BITS
    for bit in range(_BITS):
        if number >> bit & 1:
            pixels[: height // 2, bit * block : (bit + 1) * block] = 255
    x = number * 4 % (width - block)
    pixels[-block:, x : x + block] = (255, 0, 0)
    return pixels


def number_of(pixels: Pixels) -> int:
    """Reads the number off a frame of any size."""
    height, width = pixels.shape[:2]
    row = pixels[height // 4, :, :].mean(axis=-1)
    centres = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    return sum(1 << bit for bit, x in enumerate(centres) if row[x] > 127)


def write_film(
    path: Path,
    frames: Iterable[Pixels | av.VideoFrame],
    *,
    rate: Fraction = Fraction(24),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    set_up: Callable[[VideoStream], Any] = lambda stream: None,
) -> Path:
    """Encodes frames, at a rate or at the times given in ticks of a time base."""
    with av.open(path, "w", format=container, options=container_options or {}) as file:
        stream: Any = None
        for number, frame in enumerate(frames):
            if isinstance(frame, np.ndarray):
                frame = av.VideoFrame.from_ndarray(frame, "rgb24")
            if stream is None:
                stream = file.add_stream(codec, rate=rate, options=options or {})
                stream.width, stream.height = frame.width, frame.height
                stream.pix_fmt = pixel_format
                if times is not None:
                    stream.codec_context.time_base = time_base
                set_up(stream)
            if times is not None:
                frame.pts, frame.time_base = times[number], time_base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def numbered_film(path: Path, num_frames: int = 30, **how: Any) -> Path:
    """Makes a film of numbered frames."""
    return write_film(path, map(numbered, range(num_frames)), **how)
