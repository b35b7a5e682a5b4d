"""Rates out of the times that a format can tell, written and read back by the project itself."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from giffusion.engine.encode import open_writer
from giffusion.engine.media.index import film_index

SIZE = (16, 16)


@pytest.mark.parametrize("num_frames", [5, 30, 61])
@pytest.mark.parametrize("fps", [5, 8, 10, 12, 15, 20, 24, 25, 30, 40, 50])
def test_a_gif_is_read_at_the_rate_that_it_was_written_at(
    tmp_path: Path, fps: int, num_frames: int
) -> None:
    path = tmp_path / "out.gif"
    with open_writer(
        path, size=SIZE, fps=Fraction(fps), num_frames=num_frames, metadata=""
    ) as writer:
        for number in range(num_frames):
            writer.write(number, np.full((16, 16, 3), 4 * number, np.uint8))
        writer.close()
    index = film_index(path)
    assert index.fps == fps
    assert not index.variable
    assert index.num_frames == num_frames


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(24)])
@pytest.mark.parametrize("extension", [".mp4", ".webm"])
def test_other_formats_tell_rates_apart(tmp_path: Path, extension: str, fps: Fraction) -> None:
    path = tmp_path / f"out{extension}"
    with open_writer(path, size=(32, 32), fps=fps, num_frames=50, metadata="") as writer:
        for number in range(50):
            shape = writer.pixel_format.shape((32, 32))
            writer.write(number, np.full(shape, 4 * number, np.uint8))
        writer.close()
    assert film_index(path).fps == fps
