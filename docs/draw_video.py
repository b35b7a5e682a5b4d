"""Draws the pictures on the page of films, of the demo's frames: `python docs/draw_video.py`."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from giffusion.engine.media.fitting import RESIZES, Size
from giffusion.engine.media.index import FilmIndex, film_index
from giffusion.engine.media.video import FilmCut, FilmReader

DOCS = Path(__file__).parent
FILM = DOCS / "demo.gif"
FRAME = 12
SQUARE: Size = (128, 128)
WIDE: Size = (228, 128)
INK, BACK = "#333333", "#e4e4e4"
MARGIN, HEAD = 16, 28
RATES = {
    "the film, 20 frames a second": (Fraction(20), 1),
    "rendered at 30": (Fraction(30), 1),
    "rendered at 12": (Fraction(12), 1),
    "rendered at 20, stride 3": (Fraction(20), 3),
}
SHOWN_S = Fraction(2, 5)
SIDE, GAP = 96, 3


def main() -> None:
    """Draws both."""
    index = film_index(FILM)
    for name, picture in (("shapes", _draw_shapes(index)), ("times", _draw_times(index))):
        small = picture.quantize(128, dither=Image.Dither.NONE)
        small.save(DOCS / f"video_{name}.png", optimize=True)


def _draw_shapes(index: FilmIndex) -> Image.Image:
    """Draws a frame as the film has it, and as each policy makes a wide one of it."""
    frames = {"square, the film": _frame(FilmCut(FILM), SQUARE, index)}
    for resize in RESIZES:
        frames[f"{WIDE[0]}x{WIDE[1]}, {resize}"] = _frame(FilmCut(FILM, resize=resize), WIDE, index)
    width = sum(frame.width + MARGIN for frame in frames.values()) + MARGIN
    picture = Image.new("RGB", (width, HEAD + 128 + MARGIN), BACK)
    left = MARGIN
    for title, frame in frames.items():
        ImageDraw.Draw(picture).text((left, 8), title, INK, ImageFont.load_default(12))
        picture.paste(frame, (left, HEAD))
        left += frame.width + MARGIN
    return picture


def _draw_times(index: FilmIndex) -> Image.Image:
    """Draws which frame of the film is shown when, at several rates, one row each."""
    width = int(SHOWN_S * 20) * (SIDE + GAP)
    picture = Image.new("RGB", (width + 2 * MARGIN, len(RATES) * (SIDE + HEAD) + MARGIN), BACK)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for row, (title, (fps, stride)) in enumerate(RATES.items()):
        top = row * (SIDE + HEAD) + HEAD
        draw.text((MARGIN, top - 20), title, INK, font)
        reader = FilmReader(FilmCut(FILM, stride=stride), (SIDE, SIDE), fps, index)
        for frame in range(int(SHOWN_S * fps)):
            left, right = (MARGIN + int(n / fps / SHOWN_S * width) for n in (frame, frame + 1))
            shown = Image.fromarray(np.array(reader.read(frame)))
            picture.paste(shown.crop((0, 0, min(SIDE, right - left - GAP), SIDE)), (left, top))
            number = index.number_at(frame * stride / fps)
            at = (left + 3, top + 2)
            draw.text(at, str(number), "white", font, stroke_width=1, stroke_fill="black")
        reader.close()
    return picture


def _frame(cut: FilmCut, size: Size, index: FilmIndex) -> Image.Image:
    reader = FilmReader(cut, size, index.fps, index)
    try:
        return Image.fromarray(np.array(reader.read(FRAME)))
    finally:
        reader.close()


if __name__ == "__main__":
    main()
