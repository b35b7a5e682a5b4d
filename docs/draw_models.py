"""Draws the sheets of the bundled models, `docs/mini*.webp`: `python -m docs.draw_models`.

What the bundled models make of the captions of the training's sheets, rendered as anyone would.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from docs.draw_renders import HERE, Pixels, made
from giffusion.models.training.sheets import CAPTIONS, WALKS, write_grid

TURBO = {"steps": 4, "guidance": 1.0}
SEED, COLUMNS = 3, 8


def main() -> None:
    """Draws all sheets."""
    prompts = "\n".join(f"{frame}: {caption}" for frame, caption in enumerate(CAPTIONS))
    with tempfile.TemporaryDirectory() as folder:
        mini = made(Path(folder), prompts, seed=SEED)
        turbo = made(Path(folder), prompts, "mini-turbo", seed=SEED, **TURBO)
        walks = [
            made(Path(folder), f"0: {start}\n{COLUMNS - 1}: {end}", name, seed=SEED, **settings)
            for start, end in WALKS
            for name, settings in (("mini", {}), ("mini-turbo", TURBO))
        ]
    _save(mini, HERE / "mini.webp")
    _save(turbo, HERE / "mini_turbo.webp")
    _save([*chain(*walks)], HERE / "mini_walks.webp")


def _save(pictures: Sequence[Pixels], path: Path) -> None:
    write_grid(path, torch.from_numpy(np.stack(pictures)), COLUMNS)


if __name__ == "__main__":
    main()
