"""`giffusion models ls | add | rm | verify`: the models that have a name on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.engine.errors import (
    InputError,
    ModelError,
    SettingsError,
)
from giffusion.engine.model import load_model
from giffusion.models import bundled_models, find_model, installed_models
from giffusion.models.registry import Registry
from giffusion.server.extras import needs_export

if TYPE_CHECKING:
    from giffusion.export.verify import Check

_Verify = Callable[[Path, Callable[["Check"], None]], None]


def run(options: argparse.Namespace) -> None:
    """Lists, registers, forgets or checks models."""
    if options.json and options.action not in (None, "ls"):
        raise InputError(f"--json goes with `giffusion models ls`, not with {options.action}")
    {None: _list, "ls": _list, "add": _add, "rm": _remove, "verify": _verify}[options.action](
        options
    )


def _list(options: argparse.Namespace) -> None:
    models = {name: _describe(name, folder) for name, folder in installed_models().items()}
    if options.json:
        print(json.dumps(models, ensure_ascii=False))
        return
    for name, facts in models.items():
        print(f"{name:<12} " + ", ".join(f"{key} {value}" for key, value in facts.items()))


def _describe(name: str, folder: Path) -> dict[str, object]:
    kind = "bundled" if name in bundled_models() else "registered"
    try:
        model = load_model(folder)
    except ModelError as error:
        return {"broken": str(error), "kind": kind, "folder": str(folder)}
    width, height = model.manifest.size
    return {
        "size": f"{width}x{height}",
        "multiple": model.manifest.size_multiple,
        "tokens": model.manifest.num_tokens,
        "prediction": model.schedule.prediction_type,
        "fingerprint": model.fingerprint,
        "kind": kind,
        "folder": str(folder),
    }


def _add(options: argparse.Namespace) -> None:
    model = load_model(options.folder)
    name = model.manifest.name if options.name is None else options.name
    registry = Registry()
    registry.add(name, options.folder, bundled_models())
    print(f"registered {name}, at {registry.models()[name]}: render with --model {name}")


def _remove(options: argparse.Namespace) -> None:
    registry = Registry()
    registered, bundled = registry.models(), bundled_models()
    for name in options.names:
        if name in bundled and name not in registered:
            raise SettingsError(f"model '{name}' ships with giffusion and cannot be removed")
    for name, folder in registry.remove(options.names).items():
        print(f"forgot {name}; its folder stays where it is: {folder}")


def _verify(options: argparse.Namespace) -> None:
    verify = _open_verify()
    if options.names:
        models = {name: find_model(name) for name in options.names}
    else:
        models = installed_models()
    wrong = sum(not _is_right(name, folder, verify) for name, folder in models.items())
    if wrong:
        raise InputError(f"{wrong} of {len(models)} models are wrong or broken: see above")


def _open_verify() -> _Verify:
    """Imports what compares; it needs the packages of the extra `export`.

    Raises:
        RuntimeUnavailableError: one of them is not installed.
    """
    with needs_export("models verify"):
        from giffusion.export.verify import verify_model
    return verify_model


def _is_right(name: str, folder: Path, verify: _Verify) -> bool:
    """Prints a line for each graph of a model; returns whether all are what they should be."""
    checks: list[Check] = []

    def report(check: Check) -> None:
        checks.append(check)
        print(f"{name}: {_line(check)}", flush=True)

    try:
        load_model(folder)
        verify(folder, report)
    except ModelError as error:
        print(f"{name}: broken: {error}")
        return False
    return all(check.ok for check in checks)


def _line(check: Check) -> str:
    verdict = "ok" if check.ok else "WRONG"
    errors = f"largest error {check.max_error:.2g}, mean {check.mean_error:.2g}"
    return f"{check.graph} {verdict}, {errors}" + (f"; {check.detail}" if check.detail else "")
