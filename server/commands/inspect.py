"""`giffusion inspect`: the plan that a file carries, and the file once more."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from importlib.metadata import version
from reprlib import repr as quote

from giffusion.engine.conditions.sources import source_digests
from giffusion.engine.encode import read_metadata
from giffusion.engine.errors import InputError, ModelError
from giffusion.engine.model import Model, load_model
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model, installed_models
from giffusion.server.commands.render import open_report, render_timeline
from giffusion.server.reports import Report

_THE = {"image": "the picture", "video": "the film", "audio": "the sound", "control": "the map"}


def run(options: argparse.Namespace) -> None:
    """Prints the plan, or renders it again with `--again`."""
    text = read_metadata(options.file)
    if text is None:
        raise InputError(
            f"{options.file} carries no plan: expected a file that giffusion render made, whose "
            "metadata nobody removed"
        )
    try:
        record = RenderRecord.from_json(text)
    except InputError as error:
        raise InputError(f"{options.file}: {error}") from error
    if options.again:
        _render_again(options, record)
    elif unused := next(_of_render(options), None):
        raise InputError(f"{unused} without --again: give both, or neither")
    else:
        print(record.to_json() if options.json else "\n".join(_lines(record)))


def _of_render(options: argparse.Namespace) -> Iterator[str]:
    """Yields the options that are given and say how to render, as they were written."""
    for name in ("output", "encoder", "quality", "model", "runtime", "precision", "batch"):
        if (value := getattr(options, name)) is not None:
            yield f"--{name} {value}"
    for name in ("force", "keep_partial", "shrink_tail"):
        if getattr(options, name):
            yield f"--{name.replace('_', '-')}"


def _render_again(options: argparse.Namespace, record: RenderRecord) -> None:
    if options.output is None:
        raise InputError("--again has no place to go: give -o FILE")
    timeline = record.timeline(str(options.file))
    _check_sources(record, timeline)
    _take_over(options, record)
    with open_report(options) as report:
        if (installed := version("giffusion")) != record.version:
            report.note(f"other code than before: giffusion was {record.version}, is {installed}")
        model = _find_model(options, record, report)
        result = render_timeline(options, timeline, model, report)
        for name in sorted({*record.numerics, *result.numerics}):
            then, now = record.numerics.get(name), result.numerics.get(name)
            if then != now:
                report.note(f"other numerics than before: {name} was {then}, is {now}")
        report.done(result)


def _take_over(options: argparse.Namespace, record: RenderRecord) -> None:
    """Fills in, from the file, the options that were not given."""
    numerics = record.numerics
    if options.runtime is None:
        options.runtime, options.precision = (
            numerics.get("runtime"),
            (options.precision or numerics.get("precision")),
        )
    # Another format has its own encoder.
    if options.encoder is None and options.output.suffix.lower() == options.file.suffix.lower():
        options.encoder = numerics.get("encoder")
        if options.quality is None:
            options.quality = numerics.get("quality")
    if options.batch is None:
        options.batch = numerics.get("batch")
    options.shrink_tail = options.shrink_tail or bool(numerics.get("shrink_tail"))


def _find_model(options: argparse.Namespace, record: RenderRecord, report: Report) -> Model:
    """Opens the model that made the file, or the one that is named instead."""
    name, fingerprint = record.numerics.get("model"), record.numerics.get("fingerprint")
    if options.model is None:
        model = _installed(str(name), fingerprint)
        if model is None:
            raise InputError(
                f"{options.file} was made by model {quote(name)}, which is not installed: give its "
                "folder by --model"
            )
    else:
        model = load_model(find_model(options.model))
    found = model.fingerprint
    if found == fingerprint:
        return model
    if options.model is None:
        raise InputError(
            f"{options.file} was made by another model '{name}', {fingerprint}, than the one here, "
            f"{found}: give --model FOLDER of that one, or --model {name} to use this one"
        )
    report.note(f"another model than before: it was {fingerprint}, is {found}")
    return model


def _installed(name: str, fingerprint: object) -> Model | None:
    """Returns the installed model of a fingerprint, else that of a name, else None.

    A model may be registered by another name than it was rendered by.
    """
    folders = installed_models()
    for other in sorted(folders, key=lambda other: other != name):
        with suppress(ModelError):
            model = load_model(folders[other])
            if model.fingerprint == fingerprint:
                return model
    return load_model(find_model(name)) if name in folders else None


def _check_sources(record: RenderRecord, timeline: Timeline) -> None:
    """Compares the files that frames are made from with those that they were made from."""
    for name, digest in source_digests(timeline).items():
        path = getattr(record.settings, name)
        if digest != record.digests.get(name):
            raise InputError(
                f"{path} is not {_THE[name]} that the file was made from: put that one there again"
            )


def _lines(record: RenderRecord) -> Iterator[str]:
    """Yields the plan for reading: the key frames, and what is not the default."""
    yield f"# made by giffusion {record.version}"
    yield record.prompts.rstrip("\n")
    yield ""
    for field in fields(RenderSettings):
        value = getattr(record.settings, field.name)
        if value != field.default:
            yield f"{field.name}: {value}"
    yield ""
    for name, value in record.numerics.items():
        yield f"{name}: {value}"
    for name, digest in record.digests.items():
        yield f"{name}_sha256: {digest}"
