"""The option of commands that render by which they are logged to Comet.

`cli.py` builds its parser with it, as with those of `options.py`.
"""

from __future__ import annotations

import argparse


def add_comet_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--comet`."""
    parser.add_argument(
        "--comet",
        metavar="TARGET",
        help="log the render to Comet: [WORKSPACE/]PROJECT, or offline:FOLDER for an archive there",
    )
