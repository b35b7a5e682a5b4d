"""Short renders of small models, and their frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline

OpenModel = Callable[[str], Model]
PROMPTS = ["a red house", "a dog"]


class Frames:
    """Keeps the frames of a job."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []

    def write(self, index: int, frame: Frame) -> None:
        assert index == len(self.pictures)
        assert isinstance(frame, np.ndarray)
        self.pictures.append(frame)


def guided(sampler: str, **changes: Any) -> RenderSettings:
    """Returns settings of a short render with guidance."""
    options: dict[str, Any] = {"sampler": sampler, "steps": 4, "guidance": 4.0}
    return RenderSettings(**options | changes)


def render(
    model: Model,
    runtime: Runtime,
    settings: RenderSettings,
    batch: int = 4,
    prompts: list[str] = PROMPTS,
) -> Frames:
    """Renders one frame a prompt, each with its number as its seed."""
    text = "\n".join(f"{frame}: {prompt} --seed {frame}" for frame, prompt in enumerate(prompts))
    timeline, frames = Timeline.from_text(text, settings), Frames()
    with Engine(model, runtime, batch=batch) as engine:
        engine.submit("job", timeline, settings, frames)
        engine.run()
    return frames
