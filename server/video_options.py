"""The options of `video`; `cli.py` builds its parser with them, as with those of `options.py`."""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.values import parse_fps, parse_seconds
from giffusion.server.option_types import typed


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `video` takes."""
    parser.add_argument("file", type=Path, help="a film")
    parser.add_argument(
        "--fps", type=typed(parse_fps), help="frames a second of the render (default: the film's)"
    )
    parser.add_argument(
        "--start",
        type=typed(parse_seconds),
        metavar="TIME",
        help="where it begins, as 12.5 or 1:02.5",
    )
    parser.add_argument(
        "--end", type=typed(parse_seconds), metavar="TIME", help="where it ends, as 12.5 or 1:02.5"
    )
    parser.add_argument(
        "--stride", type=int, default=1, metavar="N", help="take every N-th frame of it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
