"""The options of `inspire`.

`cli.py` builds its parser with them, as with those of `options.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.inspiration.plan import DEFAULT_KEY_FRAMES
from giffusion.engine.settings import RenderSettings
from giffusion.models import DEFAULT_MODEL


def add_inspire_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `inspire` takes."""
    fps = int(RenderSettings().fps)
    parser.add_argument(
        "topics", nargs="?", default="", metavar="TOPICS", help="what they are about: 'ocean, jazz'"
    )
    parser.add_argument("--json", action="store_true", help="print them as one JSON object")
    parser.add_argument(
        "--key-frames",
        type=int,
        default=DEFAULT_KEY_FRAMES,
        metavar="N",
        help=f"how many (default: {DEFAULT_KEY_FRAMES})",
    )
    parser.add_argument(
        "--gap",
        type=int,
        default=fps,
        metavar="FRAMES",
        help=f"frames from one to the next (default: {fps}, a second)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of all choices (default: 0)"
    )
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"what is going to render them: name or folder (default: {DEFAULT_MODEL})",
    )
    parser.add_argument(
        "--generator",
        type=Path,
        metavar="DIR",
        help="let a text-generation model write on: a transformers folder such as GPT-2's",
    )
