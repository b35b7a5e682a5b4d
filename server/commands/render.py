"""`giffusion render`: key-frame text to a finished file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from giffusion.engine.encode.encoders import AUTO as AUTO_ENCODER
from giffusion.engine.media_settings import SOURCES
from giffusion.engine.model import Model
from giffusion.engine.rendering import Progress, RenderResult, render
from giffusion.engine.runtimes import AUTO, choose_runtime, open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import DEFAULT_MODEL, find_model
from giffusion.server.comet import Tracker, open_tracker
from giffusion.server.comet_facts import shared_values
from giffusion.server.inputs import read_timeline
from giffusion.server.reports import JsonReport, Report, TerminalReport
from giffusion.server.settings_text import save_settings, settings_text


def run(options: argparse.Namespace) -> None:
    """Renders, and reports how far it is and how it ended."""
    with open_report(options) as report:
        tracker = _tracker(options, report)
        timeline = read_timeline(options, report.note)
        model = find_model(options.model or DEFAULT_MODEL)
        if tracker is None:
            report.done(render_timeline(options, timeline, model, report, partial(_save, options)))
        else:
            _render_tracked(options, timeline, model, report, tracker)


def open_report(options: argparse.Namespace) -> Report:
    """Returns what tells of a render, for people or with `--json` for programs."""
    return JsonReport() if options.json else TerminalReport(options.output)


def render_timeline(
    options: argparse.Namespace,
    timeline: Timeline,
    model: Model | Path,
    report: Report,
    on_start: Callable[[], None] | None = None,
) -> RenderResult:
    """Renders a timeline as the options say; what they leave out is the default.

    Args:
        options: what was given.
        timeline: what is rendered.
        model: by what.
        report: told of everything.
        on_start: called once, when all was checked.

    Raises:
        InputError: an option, the model or the output cannot be used.
        RuntimeUnavailableError: the runtime does not work here.
        RenderError: the render failed.
    """
    starting = [] if on_start is None else [on_start]

    def progress(progress: Progress) -> None:
        if starting:
            starting.pop()()
        report.progress(progress)

    return render(
        timeline,
        options.output,
        model=model,
        runtime=lambda: _runtime(options, report),
        batch=options.batch,
        shrink_tail=options.shrink_tail,
        encoder=options.encoder or AUTO_ENCODER,
        quality=options.quality,
        force=options.force,
        keep_partial=options.keep_partial,
        on_progress=progress,
        on_note=report.note,
        on_warning=report.warn,
    )


def _save(options: argparse.Namespace) -> None:
    if options.save_config is not None:
        save_settings(options)


def _settings_text(options: argparse.Namespace) -> str | None:
    """Returns the settings for Comet's archive, where the render has to do with a file of them."""
    if options.save_config is None and options.config is None:
        return None
    return settings_text(shared_values(vars(options)), Path("giffusion.toml"))


def _tracker(options: argparse.Namespace, report: Report) -> Tracker | None:
    if options.comet is None:
        return None
    return open_tracker(options.comet, on_warning=report.warn, on_note=report.note)


def _render_tracked(
    options: argparse.Namespace,
    timeline: Timeline,
    model: Path,
    report: Report,
    tracker: Tracker,
) -> None:
    named = (getattr(timeline.settings, name) for name in SOURCES)

    def begin() -> None:
        _save(options)
        tracker.begin(
            timeline,
            model=options.model or DEFAULT_MODEL,
            output=options.output,
            media=[Path(path) for path in named if path is not None],
            settings_file=_settings_text(options),
        )

    try:
        result = render_timeline(options, timeline, model, report, begin)
        tracker.finish(result)
        report.done(result)
    except BaseException as error:
        tracker.fail(error)
        raise
    finally:
        tracker.close()


def _runtime(options: argparse.Namespace, report: Report) -> Runtime:
    if options.runtime not in (None, AUTO):
        return open_runtime(options.runtime, options.precision)
    runtime, reason = choose_runtime(options.precision)
    report.note(f"runtime auto: {reason}")
    return runtime
