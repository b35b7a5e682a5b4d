"""Draws `docs/weights.png`, the weights on the page of schedules: `python docs/draw_weights.py`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from giffusion.engine.schedules.easing import Weight, ease, hold, linear, sine

PANELS: dict[str, dict[str, Weight]] = {
    "linear, hold": {"linear": linear, "hold 0.3": hold(linear, 0.3)},
    "ease": {kind: ease(kind) for kind in ("in", "out", "in-out")},
    "sine, slow": {text: sine((float(text),)) for text in ("0.5", "0.75", "1")},
    "sine, faster": {"2": sine((2.0,)), "4": sine((4.0,)), "0.5, 3": sine((0.5, 3.0))},
}
COLOURS = ("#1f6fb4", "#d9662b", "#3f9142")
INK, GREY = "#333333", "#c8c8c8"
# Drawn twice as large and then halved, for smooth lines.
SCALE = 2
SIDE, MARGIN, HEAD = 180 * SCALE, 24 * SCALE, 30 * SCALE


def main() -> None:
    """Draws all panels side by side."""
    width = len(PANELS) * (SIDE + MARGIN) + MARGIN
    picture = Image.new("RGB", (width, HEAD + SIDE + MARGIN), "white")
    draw = ImageDraw.Draw(picture)
    for index, (title, weights) in enumerate(PANELS.items()):
        _panel(draw, MARGIN + index * (SIDE + MARGIN), title, weights)
    small = picture.resize((width // SCALE, picture.height // SCALE), Image.Resampling.LANCZOS)
    path = Path(__file__).with_name("weights.png")
    small.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _panel(draw: ImageDraw.ImageDraw, left: int, title: str, weights: dict[str, Weight]) -> None:
    font = ImageFont.load_default(12 * SCALE)
    draw.text((left, HEAD - 20 * SCALE), title, INK, font)
    draw.rectangle((left, HEAD, left + SIDE, HEAD + SIDE), outline=GREY, width=SCALE)
    for row, (name, weight) in enumerate(weights.items()):
        points = [(left + x, HEAD + SIDE * (1 - weight(x / SIDE))) for x in range(SIDE + 1)]
        draw.line(points, COLOURS[row], 2 * SCALE, joint="curve")
        draw.text((left + 8 * SCALE, HEAD + (6 + 16 * row) * SCALE), name, COLOURS[row], font)


if __name__ == "__main__":
    main()
