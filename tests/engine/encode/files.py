"""Whole files of pictures: written by an encoder or a writer, and read back by Pillow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageSequence

from giffusion.engine.encode import open_writer
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import Encoder, VideoSpec
from giffusion.engine.frames import PixelFormat
from tests.engine.encode.pictures import SIZE, Pixels, nv12_picture

E = TypeVar("E", bound=Encoder)
Opener = Callable[[Path, VideoSpec], E]


def write_all(encoder: Encoder, frames: Iterable[Pixels]) -> None:
    for frame in frames:
        encoder.write(frame)


def finished(encoder: E, frames: Iterable[Pixels]) -> E:
    """Writes every frame and completes the file."""
    write_all(encoder, frames)
    encoder.finish()
    return encoder


def video_spec(
    num_frames: int, encoder: str, fps: Fraction = Fraction(24), metadata: str = ""
) -> VideoSpec:
    """Returns what an encoder has to know of frames such as `nv12_picture` makes them."""
    return VideoSpec(SIZE, fps, num_frames, metadata, EncoderChoice(ENCODERS[encoder]))


def encode_video(
    opener: Opener[E],
    path: Path,
    num_frames: int,
    fps: Fraction = Fraction(24),
    metadata: str = "",
    *,
    encoder: str,
) -> E:
    """Writes the first NV12 pictures to a file; returns its encoder, finished."""
    video = opener(path, video_spec(num_frames, encoder, fps, metadata))
    return finished(video, map(nv12_picture, range(num_frames)))


def encode_animation(
    opener: Opener[E],
    choice: EncoderChoice,
    path: Path,
    frames: list[Pixels],
    fps: Fraction = Fraction(20),
    metadata: str = "",
) -> E:
    """Writes RGB frames, of any size, to a file; returns its encoder, finished."""
    height, width = frames[0].shape[:2]
    spec = VideoSpec((width, height), fps, len(frames), metadata, choice)
    return finished(opener(path, spec), frames)


def decode_animation(path: Path) -> tuple[list[Pixels], list[int]]:
    """Returns the pictures and how long each is shown, in milliseconds.

    A file is opened as what its extension says, and nothing else.
    """
    frames, durations = [], []
    with Image.open(path, formats=[path.suffix[1:].upper()]) as file:
        for shown in ImageSequence.Iterator(file):
            # Before a frame is loaded, a WebP does not tell how long it is shown.
            frames.append(np.asarray(shown.convert("RGB")))
            durations.append(int(shown.info["duration"]))
    return frames, durations


def render(
    path: Path,
    num_frames: int = 12,
    *,
    frame: Callable[[int, PixelFormat], Pixels],
    fps: Fraction = Fraction(24),
    metadata: str = "{}",
    encoder: str = "auto",
    quality: int | None = None,
    force: bool = False,
) -> None:
    """Writes frames, made in the writer's format by their number, as the engine does."""
    with open_writer(
        path,
        size=SIZE,
        fps=fps,
        num_frames=num_frames,
        metadata=metadata,
        encoder=encoder,
        quality=quality,
        force=force,
    ) as writer:
        for index in range(num_frames):
            writer.write(index, frame(index, writer.pixel_format))
