"""The options of films, sounds and motion, with the defaults that `RenderSettings` states.

`options.py` adds them to what `plan` and `render` share; the invariant is the one stated there.
"""

from __future__ import annotations

import argparse

from giffusion.engine.media.fitting import RESIZES
from giffusion.engine.settings import PADDINGS
from giffusion.server.option_types import add_flag, add_heard, add_part, help_text


def add_media_options(parser: argparse.ArgumentParser) -> None:
    """Adds what frames start from, what is heard, and how frames follow from each other."""
    _add_init(parser.add_argument_group("init picture and video"))
    _add_sound(parser.add_argument_group("sound"))
    _add_motion(
        parser.add_argument_group(
            "motion", "Each makes a frame from the one before it; numbers, or schedules."
        )
    )


def _add_init(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--image", metavar="FILE", help="picture that frames start from")
    group.add_argument("--video", metavar="FILE", help="film whose frames they start from")
    add_part(group, "--video-", "where in the film the first frame is", "where the film ends")
    group.add_argument(
        "--video-stride", type=int, metavar="N", help="take every N-th frame of the film"
    )
    group.add_argument("--resize", metavar="HOW", help=help_text(", ".join(RESIZES), "resize"))
    add_flag(group, "--keep-audio", "let the film's sound be heard")
    group.add_argument(
        "--control",
        metavar="FILE",
        help="map for the model's ControlNet, or FOLDER/%%05d.png, one a frame",
    )


def _add_sound(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--audio", metavar="FILE", help="sound that is heard, and that moves frames")
    add_part(group, "--audio-", "where in the sound the first frame is", "where the sound ends")
    add_heard(group, "--audio-")
    add_flag(group, "--mute", "leave the sound out of the file")


def _add_motion(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--zoom", metavar="F", help="enlarge about the centre, by a factor")
    group.add_argument("--angle", metavar="A", help="turn counter-clockwise, in degrees")
    group.add_argument("--translate-x", metavar="X", help="move to the right, in pixels")
    group.add_argument("--translate-y", metavar="Y", help="move down, in pixels")
    group.add_argument("--padding", metavar="HOW", help=help_text(", ".join(PADDINGS), "padding"))
    add_flag(group, "--color-match", "match colours to the first frame's")
    group.add_argument(
        "--coherence",
        type=float,
        metavar="C",
        help=help_text("pull to where the frames before started", "coherence"),
    )
    group.add_argument(
        "--coherence-alpha",
        type=float,
        metavar="A",
        help=help_text("how fast that follows, 0 to 1", "coherence_alpha"),
    )
    group.add_argument(
        "--coherence-noise",
        type=float,
        metavar="N",
        help=help_text("noise that is added", "coherence_noise"),
    )
