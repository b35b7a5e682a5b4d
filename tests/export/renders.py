"""Short renders of small models, and their frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from tests.engine.frames import Frames

OpenModel = Callable[[str], Model]
PROMPTS = ["a red house", "a dog"]


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
