"""Draws the sheets of the bundled models, `docs/mini*.webp`: `python -m docs.draw_models`.

What the bundled models make of the captions of the training's sheets, rendered as anyone would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from giffusion.engine import RenderSettings, load_model, render
from giffusion.models import find_model
from giffusion.models.training.sheets import CAPTIONS, WALKS

HERE = Path(__file__).parent
TURBO = {"steps": 4, "guidance": 1.0}
SIDE, COLUMNS, WALK_FRAMES = 128, 8, 8


def main() -> None:
    """Draws all sheets."""
    prompts = "\n".join(f"{frame}: {caption}" for frame, caption in enumerate(CAPTIONS))
    _save(_rendered("mini", prompts), HERE / "mini.webp")
    _save(_rendered("mini-turbo", prompts, **TURBO), HERE / "mini_turbo.webp")
    walks = [
        _rendered(name, f"0: {start}\n{WALK_FRAMES - 1}: {end}", **settings)
        for start, end in WALKS
        for name, settings in (("mini", {}), ("mini-turbo", TURBO))
    ]
    _save([frame for walk in walks for frame in walk], HERE / "mini_walks.webp")


def _rendered(name: str, prompts: str, **settings: float) -> list[Image.Image]:
    """The frames of key-frame text by a model, each at the sheets' side."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "frames" / "%05d.png"
        wanted = RenderSettings(seed=3, **settings)  # type: ignore[arg-type]
        render(prompts, output, model=load_model(find_model(name)), settings=wanted)
        paths = sorted(output.parent.iterdir())
        return [Image.open(path).convert("RGB").resize((SIDE, SIDE)) for path in paths]


def _save(pictures: Sequence[Image.Image], path: Path) -> None:
    sheet = Image.new("RGB", (COLUMNS * SIDE, -(-len(pictures) // COLUMNS) * SIDE), "white")
    for number, picture in enumerate(pictures):
        sheet.paste(picture, (number % COLUMNS * SIDE, number // COLUMNS * SIDE))
    sheet.save(path, quality=90, method=6)


if __name__ == "__main__":
    main()
