"""`giffusion render`: key-frame text to a finished file."""

from __future__ import annotations

import argparse

from giffusion.engine.encode import check_output
from giffusion.engine.model import load_model
from giffusion.engine.pipeline import check_job
from giffusion.engine.rendering import cut_prompts, render
from giffusion.engine.runtimes import AUTO, choose_runtime, open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.models import find_model
from giffusion.server.inputs import read_timeline
from giffusion.server.reports import JsonReport, Report, TerminalReport


def run(options: argparse.Namespace) -> None:
    """Renders, and reports how far it is and how it ended."""
    with JsonReport() if options.json else TerminalReport(options.output) as report:
        _render(options, report)


def _render(options: argparse.Namespace, report: Report) -> None:
    inputs = read_timeline(options)
    check_output(
        options.output,
        force=options.force,
        fps=inputs.settings.fps,
        size=inputs.settings.size,
        encoder=options.encoder,
    )
    model = load_model(find_model(options.model))
    check_job(model, inputs.timeline, inputs.settings, batch=options.batch)
    for line in cut_prompts(model, inputs.timeline):
        report.warn(line)
    result = render(
        inputs.text,
        options.output,
        model=model,
        settings=inputs.settings,
        runtime=_runtime(options, report),
        batch=options.batch,
        shrink_tail=options.shrink_tail,
        encoder=options.encoder,
        force=options.force,
        keep_partial=options.keep_partial,
        on_progress=report.progress,
        on_note=report.note,
        source=inputs.source,
    )
    report.done(result)


def _runtime(options: argparse.Namespace, report: Report) -> Runtime:
    if options.runtime != AUTO:
        return open_runtime(options.runtime, options.precision)
    runtime, reason = choose_runtime(options.precision)
    report.note(f"runtime auto: {reason}")
    return runtime
