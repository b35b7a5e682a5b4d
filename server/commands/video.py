"""`giffusion video`: how many frames a film has and at which rate, as key frames."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from fractions import Fraction
from typing import Any

from giffusion.engine.audio.key_frames import format_marks, marked_frames
from giffusion.engine.media.index import film_index
from giffusion.engine.media.probe import FilmInfo, film_info
from giffusion.engine.media.video import FilmCut, count_frames
from giffusion.server.notes import note


def run(options: argparse.Namespace) -> None:
    """Prints the first and the last frame that a render of the film has, and what the film is."""
    start_s = Fraction(0) if options.start is None else options.start
    cut = FilmCut(options.file, start_s, options.end, options.stride)
    cut.check()
    index = film_index(options.file, note)
    info = film_info(index)
    fps = info.fps if options.fps is None else options.fps
    num_frames = count_frames(cut, index, fps)
    if options.json:
        print(json.dumps(_facts(info, fps, num_frames)))
        return
    note(f"{options.file}: {_sentence(info)}")
    note(f"rendered: {num_frames} frames at {fps} a second")
    print(format_marks(marked_frames([], fps, num_frames), fps), end="")


def _facts(info: FilmInfo, fps: Fraction, num_frames: int) -> dict[str, Any]:
    film = {
        name: str(value) if name == "fps" else float(value) if name.endswith("_s") else value
        for name, value in asdict(info).items()
    }
    return {"fps": str(fps), "num_frames": num_frames, "film": film}


def _sentence(info: FilmInfo) -> str:
    width, height = info.size
    rate = f"{info.fps} a second" + (" on average" if info.variable else "")
    turned = f", turned by {info.rotation} degrees" if info.rotation else ""
    sound = "with sound" if info.has_sound else "without sound"
    return (
        f"{info.num_frames} frames at {rate}, {float(info.duration_s):.3f} s of {width}x{height}"
        f"{turned}, {sound}"
    )
