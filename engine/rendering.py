"""One job from text to a finished file: what the CLI and scripts call.

The engine, the writer and their order of opening and closing stand here once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.engine.batching.jobs import FrameSink
from giffusion.engine.batching.mirror import Mirror
from giffusion.engine.checks import check_job
from giffusion.engine.conditions.cautions import cautions
from giffusion.engine.conditions.sources import (
    Media,
    check_output_is_no_source,
    num_shown,
    read_media,
    source_digests,
)
from giffusion.engine.encode import check_output, choose_encoder, open_writer
from giffusion.engine.encode.encoders import AUTO
from giffusion.engine.encode.writer import Writer
from giffusion.engine.errors import DeviceMemoryError, SettingsError
from giffusion.engine.model import Model, load_model
from giffusion.engine.notes import OnNote
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes import choose_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import DEFAULT_BATCH, RenderSettings
from giffusion.engine.stats import EngineStats
from giffusion.engine.timelines.planning import plan_timeline
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline

OnProgress = Callable[["Progress"], None]
OpenRuntime = Callable[[], Runtime]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a render is.

    Args:
        stage: `frames` while frames are rendered, `file` while a GIF's palette is applied, and
            before both whatever the runtime has to build.
        done: frames, or steps of a build, that have passed the stage.
        total: how many there are.
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
    prompts: str | Timeline,
    output: str | Path,
    *,
    model: Model | Path | str,
    settings: RenderSettings | None = None,
    runtime: Runtime | OpenRuntime | None = None,
    batch: int | None = None,
    shrink_tail: bool = False,
    encoder: str = AUTO,
    quality: int | None = None,
    force: bool = False,
    keep_partial: bool = False,
    on_progress: OnProgress | None = None,
    on_note: OnNote | None = None,
    on_warning: OnNote | None = None,
    source: str = "<prompts>",
) -> RenderResult:
    """Renders key-frame text to a video, an animation or a folder of pictures.

    Args:
        prompts: key-frame text, such as `0: a dog` and `24: a lion` on two lines, or a timeline,
            which has its own settings.
        output: the file to write; its extension chooses the format.
        model: an opened model, or the folder of one.
        settings: how to render; the defaults if None.
        runtime: what runs the graphs, or what opens it once all else was checked; the fastest that
            works here if None.
        batch: rows of the denoise batch; None is `DEFAULT_BATCH`, or what the chains of frames that
            follow from each other fill of it. Where the device has no room for it the render starts
            again with the next smaller one that the runtime has.
        shrink_tail: let the last frames go through a smaller batch; see `Engine`.
        encoder: what writes the file, or `auto`.
        quality: 1 … 100, or None for the encoder's own.
        force: replace a file that is there.
        keep_partial: when the render ends early, keep its frames in a file beside the output.
        on_progress: called while engines are built, at the start, and after each tick that
            finished frames.
        on_note: told in a line of what was decided on the way.
        on_warning: told in a line of what was probably not meant, such as a prompt that is cut.
        source: name of the text in error messages.

    Returns:
        What was made.

    Raises:
        InputError: the text, a setting, the model or the output cannot be used.
        RuntimeUnavailableError: no runtime works here.
        RenderError: the render failed; the output path is as it was before.
    """
    report, note = on_progress or _unreported, on_note or _unreported
    timeline = as_timeline(prompts, settings, source, note)
    settings, output = timeline.settings, Path(output)
    check_output_is_no_source(timeline, output)
    check_output(
        output,
        force=force,
        fps=settings.fps,
        size=settings.size,
        encoder=encoder,
        quality=quality,
    )
    model = model if isinstance(model, Model) else load_model(Path(model))
    timeline = timeline.for_model(model_guides=model.guides)
    check_job(model, timeline, settings, batch=DEFAULT_BATCH if batch is None else batch)
    size = model.check_size(settings.size)
    # First, since they say in the system's words why a file cannot be read.
    digests = source_digests(timeline)
    media = read_media(timeline, size, output, note)
    if on_warning is not None:
        for line in cautions(model, timeline):
            on_warning(line)
    runtime = _opened(runtime)
    batch = _filled_batch(timeline, runtime) if batch is None else batch
    # What is shown backwards has to come back to the host first.
    on_device = runtime.on_device and not settings.pingpong and len(timeline.chains) < 2
    choice, reason = choose_encoder(
        output, encoder, on_device=on_device, size=size, fps=settings.fps
    )
    if encoder == AUTO and on_device:
        note(f"encoder auto: {reason}")

    def build_progress(label: str, done: int, total: int) -> None:
        if done == 0:
            note(label)
        report(Progress(label, done, total))

    def attempt(batch: int) -> RenderResult:
        with Engine(model, runtime, size=size, batch=batch, shrink_tail=shrink_tail) as engine:
            numerics = engine.numerics | {"encoder": choice.name}
            numerics |= {} if quality is None else {"quality": quality}
            num_frames = num_shown(timeline)
            writer = open_writer(
                output,
                size=size,
                fps=settings.fps,
                num_frames=num_frames,
                metadata=RenderRecord.of(timeline, numerics, digests).to_json(),
                sound=media.sound,
                encoder=choice.name,
                quality=quality,
                on_device=on_device,
                force=force,
                keep_partial=keep_partial,
            )
            began = time.perf_counter()
            with _kept(writer):
                _run(engine, timeline, media, writer, report)
            elapsed_s = time.perf_counter() - began
            return RenderResult(output, num_frames, size, elapsed_s, numerics, engine.stats)

    runtime.prepare(model, size=size, batch=batch, on_progress=build_progress)
    return _where_it_fits(attempt, batch, runtime, timeline.max_rows, note)


def as_timeline(
    prompts: str | Timeline,
    settings: RenderSettings | None,
    source: str = "<prompts>",
    on_note: OnNote | None = None,
) -> Timeline:
    """Returns a timeline as it is, or plans key-frame text; see `render`."""
    if isinstance(prompts, str):
        return plan_timeline(prompts, settings or RenderSettings(), source, on_note)
    if settings is not None and settings != prompts.settings:
        raise SettingsError("a timeline has its own settings: expected none beside it")
    return prompts


def _filled_batch(timeline: Timeline, runtime: Runtime) -> int:
    """Returns the rows of a lane that a job can fill, at most `DEFAULT_BATCH`."""
    if not timeline.chains:
        return DEFAULT_BATCH
    # Along a chain one frame waits for the other, and an idle row costs what a busy one does.
    num_rows = timeline.max_rows * math.ceil(len(timeline.chains) / runtime.num_lanes)
    sizes = runtime.smaller(DEFAULT_BATCH) or (min(num_rows, DEFAULT_BATCH),)
    return min((rows for rows in sizes if rows >= num_rows), default=DEFAULT_BATCH)


def _where_it_fits(
    attempt: Callable[[int], RenderResult], batch: int, runtime: Runtime, least: int, note: OnNote
) -> RenderResult:
    """Renders at a batch, or at the largest smaller one that the device's memory has room for."""
    while True:
        try:
            return attempt(batch)
        except DeviceMemoryError as error:
            smaller = [rows for rows in runtime.smaller(batch) if rows >= least]
            if not smaller:
                raise
            note(f"{error}; starting again at batch {smaller[-1]}, whose numerics are its own")
            batch = smaller[-1]


@contextmanager
def _kept(writer: Writer) -> Iterator[None]:
    """Closes or aborts a writer; an error says where finished frames were kept, if they were."""
    try:
        with writer:
            yield
    except BaseException as error:
        if writer.partial_path is not None:
            error.add_note(f"the frames that were finished are in {writer.partial_path}")
        raise


def _unreported(report: Progress | str) -> None:
    """Takes what nobody asked for."""


def _opened(runtime: Runtime | OpenRuntime | None) -> Runtime:
    if runtime is None:
        return choose_runtime()[0]
    return runtime() if callable(runtime) else runtime


def _run(
    engine: Engine,
    timeline: Timeline,
    media: Media,
    writer: Writer,
    on_progress: OnProgress,
) -> None:
    total = num_shown(timeline)
    with ExitStack() as opened:
        mirror = None
        if total > len(timeline):
            mirror = opened.enter_context(closing(Mirror(writer, len(timeline), engine.size)))
        sink: FrameSink = mirror or writer
        job = engine.submit(
            "render",
            timeline,
            timeline.settings,
            sink,
            image=media.image,
            film=media.film,
            scratch=writer.folder,
        )
        reported = 0
        on_progress(Progress("frames", 0, total))
        while not job.done and job.error is None:
            engine.tick()
            if job.num_finished > reported:
                reported = job.num_finished
                on_progress(Progress("frames", reported, total))
        if job.error is not None:
            raise job.error
        if mirror is not None:
            mirror.play_back(lambda done: on_progress(Progress("frames", reported + done, total)))
    writer.close(lambda done, of: on_progress(Progress("file", done, of)))
