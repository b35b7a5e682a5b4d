"""What all contestants render, and who takes the frames.

Key frames at the start, the middle and the end of a sequence of the bundled model, and sinks that
drop frames, keep them or digest them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.encode import Writer, open_writer
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model, load_model
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import DEFAULT_MODEL, find_model

SUBJECTS = ("a picture of a corgi", "a picture of a lion", "a red apple")


@dataclass(frozen=True, slots=True)
class Workload:
    """One job.

    Args:
        model: the model to render with.
        text: its key frames.
        settings: how it is rendered.
        timeline: what both make.
    """

    model: Model
    text: str
    settings: RenderSettings
    timeline: Timeline

    @property
    def num_frames(self) -> int:
        """Frames of the job."""
        return len(self.timeline)

    @property
    def rows_per_frame(self) -> int:
        """Model evaluations a step of a frame."""
        return self.timeline.max_rows

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.model.check_size(self.settings.size)


class Contestant(Protocol):
    """Something that renders the workload's frames."""

    @property
    def name(self) -> str:
        """How tables call it."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    def denoise_rate(self, window_s: float) -> float:
        """Runs the UNet alone for at least a time; returns rows a second."""

    def render(self, sink: FrameSink, frames: range | None = None) -> None:
        """Renders the first frames, or all, from their conditions to RGB bytes in order."""


class Discard:
    """A sink that drops what it takes.

    Args:
        pixel_format: what it takes.
    """

    on_device = False
    backlog = 0

    def __init__(self, pixel_format: PixelFormat = PixelFormat.RGB24) -> None:
        self.pixel_format = pixel_format

    def write(self, index: int, frame: Frame) -> None:
        """Takes a frame."""


class Keep:
    """A sink that keeps all frames.

    Args:
        pixel_format: what it takes.
    """

    on_device = False
    backlog = 0

    def __init__(self, pixel_format: PixelFormat = PixelFormat.RGB24) -> None:
        self.pixel_format = pixel_format
        self.frames: list[NDArray[np.uint8]] = []

    def write(self, index: int, frame: Frame) -> None:
        """Takes a frame."""
        self.frames.append(np.array(frame))


class Digest:
    """A sink that keeps the hash of all frames, as RGB."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def write(self, index: int, frame: Frame) -> None:
        """Takes a frame."""
        self._hash.update(np.asarray(frame).tobytes())

    def hexdigest(self) -> str:
        """Returns the hash of the frames so far."""
        return self._hash.hexdigest()


def key_frames(num_frames: int) -> str:
    """Returns key-frame text with the subjects spread over a number of frames, 1 or more."""
    last = num_frames - 1
    places = dict(zip((0, last // 2, last), SUBJECTS, strict=True))
    return "".join(f"{frame}: {subject}\n" for frame, subject in places.items())


def make_workload(
    num_frames: int, *, steps: int, size: tuple[int, int] | None = None, guidance: float = 3.0
) -> Workload:
    """Returns the job of all contestants on the bundled model, at its own size by default."""
    settings = RenderSettings(steps=steps, guidance=guidance, size=size)
    text = key_frames(num_frames)
    timeline = Timeline(parse_prompts(text), settings)
    return Workload(load_model(find_model(DEFAULT_MODEL)), text, settings, timeline)


def open_file(work: Workload, path: Path) -> Writer:
    """Opens a file for the workload's frames; one that is there is replaced."""
    return open_writer(
        path,
        size=work.size,
        fps=work.settings.fps,
        num_frames=work.num_frames,
        metadata="{}",
        force=True,
    )


def write_file(contestant: Contestant, work: Workload, path: Path) -> None:
    """Renders to a finished file."""
    with open_file(work, path) as writer:
        contestant.render(writer)


def count_frames(path: Path) -> int:
    """Decodes a video and returns its number of frames."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))
