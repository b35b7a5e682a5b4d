"""Draws `docs/inspiration.png`, two inspired films: `python docs/draw_inspiration.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from giffusion.engine.inspiration.key_frames import inspire
from giffusion.engine.inspiration.topics import parse_topics
from giffusion.engine.inspiration.vocabulary import vocabulary_for
from giffusion.engine.rendering import render
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import DEFAULT_MODEL, find_model

FILMS = (("ocean, jazz", 1), ("garden", 3))
"""Topics and seeds."""
GAP, NUM_KEY_FRAMES = 2, 6
SIDE, MARGIN, HEAD = 96, 4, 22
INK = "#333333"


def main() -> None:
    """Renders the films, and lays their frames out in rows."""
    num_frames = (NUM_KEY_FRAMES - 1) * GAP + 1
    width = num_frames * (SIDE + MARGIN) + MARGIN
    picture = Image.new("RGB", (width, len(FILMS) * (HEAD + SIDE + MARGIN)), "white")
    draw = ImageDraw.Draw(picture)
    for row, (topics, seed) in enumerate(FILMS):
        top = row * (HEAD + SIDE + MARGIN)
        title = f'giffusion inspire "{topics}" --seed {seed} --gap {GAP}'
        draw.text((MARGIN, top + 4), title, INK, ImageFont.load_default(12))
        for column, frame in enumerate(_frames(topics, seed)):
            picture.paste(frame, (MARGIN + column * (SIDE + MARGIN), top + HEAD))
    path = Path(__file__).with_name("inspiration.png")
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _frames(topics: str, seed: int) -> list[Image.Image]:
    vocabulary = vocabulary_for(DEFAULT_MODEL)
    key_frames = inspire(
        vocabulary, parse_topics(topics), num_key_frames=NUM_KEY_FRAMES, gap=GAP, seed=seed
    )
    timeline = Timeline(key_frames, RenderSettings(fixed_latent=True))
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "frames" / "%05d.png"
        render(timeline, output, model=find_model(DEFAULT_MODEL))
        paths = sorted(output.parent.iterdir())
        return [Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in paths]


if __name__ == "__main__":
    main()
