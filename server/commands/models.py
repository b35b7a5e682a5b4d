"""`giffusion models`: the models that are installed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from giffusion.engine.errors import ModelError
from giffusion.engine.model import load_model
from giffusion.models import bundled_models


def run(options: argparse.Namespace) -> None:
    """Prints every bundled model: its name, size in pixels, prediction type, folder."""
    models = {name: _describe(folder) for name, folder in bundled_models().items()}
    if options.json:
        print(json.dumps(models, ensure_ascii=False))
        return
    for name, facts in models.items():
        print(f"{name:<12} " + ", ".join(f"{key} {value}" for key, value in facts.items()))


def _describe(folder: Path) -> dict[str, object]:
    try:
        model = load_model(folder)
    except ModelError as error:
        return {"broken": str(error)}
    width, height = model.manifest.size
    return {
        "size": f"{width}x{height}",
        "multiple": model.manifest.size_multiple,
        "tokens": model.manifest.num_tokens,
        "prediction": model.schedule.prediction_type,
        "fingerprint": model.fingerprint,
        "folder": str(folder),
    }
