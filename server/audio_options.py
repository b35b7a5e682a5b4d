"""The options of `audio`, with the defaults that `AudioOptions` states.

`cli.py` builds its parser with them, as with those of `options.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.audio.options import COMPONENTS, REDUCTIONS, AudioOptions
from giffusion.engine.settings import RenderSettings
from giffusion.engine.values import parse_band, parse_fps, parse_seconds
from giffusion.server.option_types import typed

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
    _add_heard(parser.add_argument_group("what is heard"))


def _add_heard(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--start",
        type=typed(parse_seconds),
        metavar="TIME",
        help="where it begins, as 12.5 or 1:02.5",
    )
    group.add_argument(
        "--end", type=typed(parse_seconds), metavar="TIME", help="where it ends, as 12.5 or 1:02.5"
    )
    group.add_argument(
        "--component", metavar="NAME", help=_help(", ".join(COMPONENTS), "component")
    )
    group.add_argument(
        "--margin", type=float, metavar="M", help=_help("how far the other is kept out", "margin")
    )
    group.add_argument(
        "--band", type=typed(parse_band), metavar="LOW-HIGH", help="frequencies in Hz, as 20-200"
    )
    group.add_argument(
        "--smooth", type=float, metavar="S", help=_help("share of a steady motion", "smooth")
    )
    names = ", ".join(REDUCTIONS)
    group.add_argument(
        "--reduction", metavar="NAME", help=_help(f"over them, {names}", "reduction")
    )


def _help(text: str, field: str) -> str:
    return f"{text} (default: {AudioOptions.default(field)})"
