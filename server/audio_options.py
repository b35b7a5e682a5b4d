"""The options of `audio`, with the defaults that `AudioOptions` states.

`cli.py` builds its parser with them, as with those of `options.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.settings import RenderSettings
from giffusion.engine.values import parse_fps
from giffusion.server.option_types import add_heard, add_part, typed

DETECTORS = ("onsets", "beats")


def add_audio_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `audio` takes."""
    parser.add_argument("file", type=Path, help="a sound file, or a film with sound")
    parser.add_argument(
        "--fps",
        type=typed(parse_fps),
        default=RenderSettings.default("fps"),
        help=f"frames a second (default: {RenderSettings.default('fps')})",
    )
    parser.add_argument(
        "--detect", metavar="WHAT", default=DETECTORS[0], help="onsets or beats (default: onsets)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with the curve")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw sound and curve, as .png")
    parser.add_argument("--force", action="store_true", help="replace an existing plot")
    heard = parser.add_argument_group("what is heard")
    add_part(heard, "--", "where it begins", "where it ends")
    add_heard(heard, "--")
