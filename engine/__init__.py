"""giffusion's render engine: key-frame text in, frames out, on any machine.

    from giffusion.engine import RenderSettings, render
    from giffusion.models import find_model

    render("0: a dog\\n24: a lion", "out.mp4", model=find_model("mini"))

Names are imported when they are first used, so that `giffusion --help` loads none of this.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from giffusion.engine.batching.jobs import FrameSink, Job
    from giffusion.engine.errors import GiffusionError
    from giffusion.engine.frames import Frame, PixelFormat
    from giffusion.engine.model import Model, load_model
    from giffusion.engine.pipeline import Engine
    from giffusion.engine.prompts import KeyFrame, parse_prompts
    from giffusion.engine.rendering import Progress, RenderResult, render
    from giffusion.engine.runtimes import choose_runtime, open_runtime
    from giffusion.engine.settings import RenderSettings
    from giffusion.engine.stats import EngineStats
    from giffusion.engine.timelines.plans import FramePlan
    from giffusion.engine.timelines.timeline import Timeline

__all__ = [
    "Engine",
    "EngineStats",
    "Frame",
    "FramePlan",
    "FrameSink",
    "GiffusionError",
    "Job",
    "KeyFrame",
    "Model",
    "PixelFormat",
    "Progress",
    "RenderResult",
    "RenderSettings",
    "Timeline",
    "choose_runtime",
    "load_model",
    "open_runtime",
    "parse_prompts",
    "render",
]

_HOMES = {
    "Engine": "pipeline",
    "EngineStats": "stats",
    "Frame": "frames",
    "FramePlan": "plans",
    "FrameSink": "jobs",
    "GiffusionError": "errors",
    "Job": "jobs",
    "KeyFrame": "prompts",
    "Model": "model",
    "PixelFormat": "frames",
    "Progress": "rendering",
    "RenderResult": "rendering",
    "RenderSettings": "settings",
    "Timeline": "timeline",
    "choose_runtime": "runtimes",
    "load_model": "model",
    "open_runtime": "runtimes",
    "parse_prompts": "prompts",
    "render": "rendering",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(import_module(f"giffusion.engine.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
