"""The options of `video`; `cli.py` builds its parser with them, as with those of `options.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.values import parse_fps
from giffusion.server.option_types import add_part, typed


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `video` takes."""
    parser.add_argument("file", type=Path, help="a film")
    parser.add_argument(
        "--fps", type=typed(parse_fps), help="frames a second of the render (default: the film's)"
    )
    add_part(parser, "--", "where it begins", "where it ends")
    parser.add_argument(
        "--stride", type=int, default=1, metavar="N", help="take every N-th frame of it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
