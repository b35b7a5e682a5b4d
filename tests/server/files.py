"""Files with a plan of the tests' own choosing."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from giffusion.engine.encode import open_writer


def write_gif(path: Path, metadata: str) -> None:
    """Writes a GIF of one grey frame that carries a text; replaces what is there."""
    with open_writer(
        path, size=(32, 32), fps=Fraction(10), num_frames=1, metadata=metadata, force=True
    ) as writer:
        writer.write(0, np.full((32, 32, 3), 128, np.uint8))
