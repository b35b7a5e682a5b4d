"""Draws `docs/motion.png`, the pictures on the page of motion: `python docs/draw_motion.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from giffusion.engine.motion import ColorMatch, Motion, warp

Pixels = NDArray[np.uint8]
Move = Callable[[Pixels, Motion], Pixels]
SIDE, GAP, HEAD = 128, 12, 16
INK, GREY = "#333333", "#c8c8c8"


def main() -> None:
    """Draws a row for motion, one for what is outside, one for detail and one for colours."""
    folder = Path(__file__).parent
    with Image.open(folder / "demo.gif") as film:
        picture = np.asarray(film.convert("RGB").resize((SIDE, SIDE)))
    rows = [moved(picture), outside(picture), detail(picture), colours(picture)]
    width = GAP + max(len(row) for row in rows) * (SIDE + GAP)
    page = Image.new("RGB", (width, len(rows) * (HEAD + SIDE + GAP)), "white")
    for index, row in enumerate(rows):
        _draw_row(page, index * (HEAD + SIDE + GAP), row)
    page.quantize(256, dither=Image.Dither.NONE).save(folder / "motion.png", optimize=True)


def moved(picture: Pixels) -> dict[str, Pixels]:
    """Returns one picture of each motion."""
    return {
        "frame i-1": picture,
        "zoom 1.25": warp(picture, Motion(zoom=1.25)),
        "angle 15": warp(picture, Motion(angle=15)),
        "translate 24, 12": warp(picture, Motion(translate_x=24, translate_y=12)),
    }


def outside(picture: Pixels) -> dict[str, Pixels]:
    """Returns one picture of each padding."""
    motion = Motion(zoom=0.8, angle=15, translate_x=24)
    return {name: warp(picture, motion, name) for name in ("border", "reflection", "zeros")}


def detail(picture: Pixels) -> dict[str, Pixels]:
    """Returns what is left of a picture that was turned by 3.6 degrees a hundred times."""
    motion = Motion(angle=3.6)
    return {
        "100 turns: none": picture,
        "bilinear": _again(_bilinear, picture, motion),
        "here": _again(lambda pixels, move: warp(pixels, move), picture, motion),
    }


def colours(picture: Pixels) -> dict[str, Pixels]:
    """Returns a picture whose colours went away, and came back."""
    drifted = np.clip(picture * [0.7, 0.9, 1.05] + [70, 20, -20], 0, 255).astype(np.uint8)
    return {
        "frame 0": picture,
        "drifted": drifted,
        "matched": ColorMatch(picture).match(drifted),
    }


def _again(move: Move, picture: Pixels, motion: Motion) -> Pixels:
    for _ in range(100):
        picture = move(picture, motion)
    return picture


def _bilinear(picture: Pixels, motion: Motion) -> Pixels:
    wide = Image.fromarray(np.pad(picture, ((SIDE, SIDE), (SIDE, SIDE), (0, 0)), mode="edge"))
    turned = wide.rotate(motion.angle, Image.Resampling.BILINEAR)
    return np.asarray(turned)[SIDE:-SIDE, SIDE:-SIDE]


def _draw_row(page: Image.Image, top: int, row: dict[str, Pixels]) -> None:
    draw = ImageDraw.Draw(page)
    for index, (name, picture) in enumerate(row.items()):
        left = GAP + index * (SIDE + GAP)
        draw.text((left, top), name, INK, ImageFont.load_default(12))
        page.paste(Image.fromarray(picture), (left, top + HEAD))
        frame = (left - 1, top + HEAD - 1, left + SIDE, top + HEAD + SIDE)
        draw.rectangle(frame, outline=GREY)


if __name__ == "__main__":
    main()
