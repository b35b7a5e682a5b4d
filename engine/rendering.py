"""One job from text to a finished file: what the CLI and scripts call.

The engine, the writer and their order of opening and closing stand here once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from giffusion.engine.encode import check_output, open_writer
from giffusion.engine.encode.writer import Writer
from giffusion.engine.model import Model, load_model
from giffusion.engine.pipeline import Engine, EngineStats, check_job
from giffusion.engine.prompts import KeyFrame, format_prompts, parse_prompts
from giffusion.engine.runtimes import choose_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import DEFAULT_BATCH, RenderSettings
from giffusion.engine.timeline import Timeline

OnProgress = Callable[["Progress"], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a render is.

    Args:
        stage: `frames` while frames are rendered, `file` while a GIF's palette is applied.
        done: frames that have passed the stage.
        total: frames in all.
    """

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class RenderResult:
    """What a render made.

    Args:
        path: the finished file.
        num_frames: frames in it.
        size: (width, height) in pixels.
        elapsed_s: seconds from the first tick to the closed file.
        numerics: what the frames' bits depend on besides the plan.
        stats: the engine's totals.
    """

    path: Path
    num_frames: int
    size: tuple[int, int]
    elapsed_s: float
    numerics: dict[str, Any]
    stats: EngineStats


def render(
    prompts: str,
    output: str | Path,
    *,
    model: Model | Path | str,
    settings: RenderSettings | None = None,
    runtime: Runtime | None = None,
    batch: int = DEFAULT_BATCH,
    force: bool = False,
    keep_partial: bool = False,
    on_progress: OnProgress | None = None,
    source: str = "<prompts>",
) -> RenderResult:
    """Renders key-frame text to a video or GIF.

    Args:
        prompts: key-frame text, such as `0: a dog` and `24: a lion` on two lines.
        output: the file to write; its extension chooses the format.
        model: an opened model, or the folder of one.
        settings: how to render; the defaults if None.
        runtime: what runs the graphs; the fastest that works here if None.
        batch: rows of the denoise batch.
        force: replace a file that is there.
        keep_partial: when the render ends early, keep its frames in a file beside the output.
        on_progress: called at the start and after each tick that finished frames.
        source: name of the text in error messages.

    Returns:
        What was made.

    Raises:
        InputError: the text, a setting, the model or the output cannot be used.
        RuntimeUnavailableError: no runtime works here.
        RenderError: the render failed; the output path is as it was before.
    """
    settings = settings or RenderSettings()
    key_frames = parse_prompts(prompts, source)
    timeline = Timeline(key_frames, settings)
    output = Path(output)
    check_output(output, force=force, fps=settings.fps, size=settings.size)
    model = model if isinstance(model, Model) else load_model(Path(model))
    check_job(model, timeline, settings, batch=batch)
    size = model.check_size(settings.size)
    runtime = runtime or choose_runtime()[0]
    with Engine(model, runtime, size=size, batch=batch) as engine:
        writer = open_writer(
            output,
            size=size,
            fps=settings.fps,
            num_frames=len(timeline),
            metadata=plan_text(key_frames, settings, engine.numerics),
            force=force,
            keep_partial=keep_partial,
        )
        began = time.perf_counter()
        try:
            with writer:
                _run(engine, timeline, settings, writer, on_progress or _unreported)
        except BaseException as error:
            if writer.partial_path is not None:
                error.add_note(f"the frames that were finished are in {writer.partial_path}")
            raise
        elapsed_s = time.perf_counter() - began
        return RenderResult(output, len(timeline), size, elapsed_s, engine.numerics, engine.stats)


def plan_text(
    key_frames: tuple[KeyFrame, ...], settings: RenderSettings, numerics: dict[str, Any]
) -> str:
    """Returns what a file carries of the plan that made it, as JSON."""
    plan = {
        "giffusion": version("giffusion"),
        "prompts": format_prompts(key_frames),
        "settings": {**asdict(settings), "fps": str(settings.fps)},
        "numerics": numerics,
    }
    return json.dumps(plan, ensure_ascii=False)


def cut_prompts(model: Model, timeline: Timeline) -> list[str]:
    """Says of each prompt that the tokenizer cuts what is lost, one line a prompt."""
    limit = model.manifest.num_tokens - 2
    cuts = ((prompt, model.tokenizer.cut(prompt)) for prompt in timeline.prompts())
    return [
        f"prompt '{_shortened(prompt, 40)}' is longer than the {limit} tokens that model "
        f"'{model.manifest.name}' takes: its end is ignored, '{_shortened(cut, 400)}'"
        for prompt, cut in cuts
        if cut is not None
    ]


def _shortened(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def _unreported(progress: Progress) -> None:
    """Takes progress that nobody asked for."""


def _run(
    engine: Engine,
    timeline: Timeline,
    settings: RenderSettings,
    writer: Writer,
    on_progress: OnProgress,
) -> None:
    total = len(timeline)
    job = engine.submit("render", timeline, settings, writer)
    reported = 0
    on_progress(Progress("frames", 0, total))
    while reported < total and job.error is None:
        engine.tick()
        if job.num_emitted > reported:
            reported = job.num_emitted
            on_progress(Progress("frames", reported, total))
    if job.error is not None:
        raise job.error
    writer.close(lambda done, of: on_progress(Progress("file", done, of)))
