"""`python -m giffusion.export FOLDER`: make a diffusers folder renderable, in place."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from giffusion.engine.errors import GiffusionError
from giffusion.engine.model import GRAPH_DTYPES
from giffusion.export.model import export_model


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m giffusion.export",
        description="Writes the render graphs and the manifest into a diffusers folder.",
    )
    parser.add_argument("folder", type=Path, help="a StableDiffusionPipeline folder")
    parser.add_argument("--name", help="what the model is called (default: the folder's name)")
    parser.add_argument(
        "--dtypes",
        nargs="+",
        choices=GRAPH_DTYPES,
        default=GRAPH_DTYPES,
        help="what graphs are written for: fp32 for CPUs, and what GPUs are to compute in "
        "(default: all)",
    )
    arguments = parser.parse_args()
    try:
        export_model(arguments.folder, name=arguments.name, dtypes=arguments.dtypes)
    except GiffusionError as error:
        print(f"giffusion: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
