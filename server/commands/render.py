"""`giffusion render`: key-frame text to a finished file."""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.encode.encoders import AUTO as AUTO_ENCODER
from giffusion.engine.model import Model
from giffusion.engine.rendering import RenderResult, render
from giffusion.engine.runtimes import AUTO, choose_runtime, open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.timeline import Timeline
from giffusion.models import DEFAULT_MODEL, find_model
from giffusion.server.inputs import read_timeline
from giffusion.server.reports import JsonReport, Report, TerminalReport


def run(options: argparse.Namespace) -> None:
    """Renders, and reports how far it is and how it ended."""
    with open_report(options) as report:
        timeline, model = read_timeline(options), find_model(options.model or DEFAULT_MODEL)
        report.done(render_timeline(options, timeline, model, report))


def open_report(options: argparse.Namespace) -> Report:
    """Returns what tells of a render, for people or with `--json` for programs."""
    return JsonReport() if options.json else TerminalReport(options.output)


def render_timeline(
    options: argparse.Namespace, timeline: Timeline, model: Model | Path, report: Report
) -> RenderResult:
    """Renders a timeline as the options say; what they leave out is the default.

    Raises:
        InputError: an option, the model or the output cannot be used.
        RuntimeUnavailableError: the runtime does not work here.
        RenderError: the render failed.
    """
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
        on_progress=report.progress,
        on_note=report.note,
        on_warning=report.warn,
    )


def _runtime(options: argparse.Namespace, report: Report) -> Runtime:
    if options.runtime not in (None, AUTO):
        return open_runtime(options.runtime, options.precision)
    runtime, reason = choose_runtime(options.precision)
    report.note(f"runtime auto: {reason}")
    return runtime
