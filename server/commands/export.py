"""`giffusion export`: a checkpoint as people have it becomes a model folder."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from giffusion.server.extras import needs_export

if TYPE_CHECKING:
    from giffusion.export.exporting import ExportSettings


def run(options: argparse.Namespace) -> None:
    """Exports, telling each step, and says how to render with what was made."""
    with needs_export("export"):
        from giffusion.export.exporting import export_checkpoint
    settings = _settings(options)
    manifest = export_checkpoint(options.checkpoint, options.output, settings, progress=_tell)
    if options.json:
        print(json.dumps({"name": manifest.name, "folder": str(options.output)}))
        return
    print(
        f"{options.output}: model {manifest.name}; render with --model {options.output}, or "
        f"give it its name with `giffusion models add {options.output}`"
    )


def _settings(options: argparse.Namespace) -> ExportSettings:
    from giffusion.export.additions.embeddings import parse_embedding
    from giffusion.export.additions.lora import parse_lora
    from giffusion.export.exporting import ExportSettings

    return ExportSettings(
        loras=tuple(map(parse_lora, options.lora)),
        embeddings=tuple(map(parse_embedding, options.embedding)),
        vae=None if options.vae is None else Path(options.vae),
        decoder=options.decoder,
        controlnet=None if options.controlnet is None else Path(options.controlnet),
        dtype=options.dtype,
        graphs=tuple(word.strip() for word in options.graphs.split(",")),
        optimum=options.optimum,
        prediction=options.prediction,
        name=options.name,
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
