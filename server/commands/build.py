"""`giffusion build`: a model's engines, ahead of rendering and for any GPU."""

from __future__ import annotations

import argparse

from giffusion.engine.errors import SettingsError
from giffusion.engine.model import load_model
from giffusion.engine.rendering import Progress
from giffusion.engine.runtimes.tensorrt.package import CURRENT, TensorRtPackage
from giffusion.engine.runtimes.tensorrt.prepare import Target, ensure_engines
from giffusion.engine.runtimes.tensorrt.store import EngineStore, StoredEngine
from giffusion.engine.settings import GPU_BATCHES, MAX_BATCH
from giffusion.models import find_model
from giffusion.server.reports import JsonReport, Report, TerminalReport


def run(options: argparse.Namespace) -> None:
    """Builds what the store lacks, and reports every engine."""
    with JsonReport() if options.json else TerminalReport() as report:
        _build(options, report)


def _build(options: argparse.Namespace, report: Report) -> None:
    batches = parse_batches(options.batch)
    model = load_model(find_model(options.model))
    package = TensorRtPackage(options.runtime)
    target = Target(
        package,
        options.precision,
        model.check_size(options.size),
        _devices(package, options.device),
        batches,
    )

    def report_engine(engine: StoredEngine, built: bool) -> None:
        report.engine(engine.manifest.to_dict() | {"key": engine.key, "built": built})

    def report_build(label: str, done: int, total: int) -> None:
        report.progress(Progress(label, done, total))

    store = EngineStore()
    ensure_engines(target, store, model, on_progress=report_build, on_engine=report_engine)


def parse_batches(text: str) -> tuple[int, ...]:
    """Reads the batches to build for: whole numbers with commas between.

    Raises:
        SettingsError: one is no number, out of its range, or given twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= MAX_BATCH for word in words):
        raise SettingsError(
            f"batch '{text}' is no list of batches: expected numbers from 1 to {MAX_BATCH}, such "
            f"as {','.join(map(str, GPU_BATCHES))}"
        )
    batches = tuple(sorted(int(word) for word in words))
    if len(set(batches)) < len(batches):
        raise SettingsError(f"batch '{text}' names a number twice: give each once")
    return batches


def _devices(package: TensorRtPackage, text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(","))
    package.check_devices(names)
    if names != (CURRENT,):
        return names
    from giffusion.engine.runtimes.cuda.bindings import open_cuda

    return (open_cuda().compute_capability,)
