"""The spool gives back what it was given, and leaves no trace."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from giffusion.engine.encode.formats import RgbFrame
from giffusion.engine.encode.spool import FrameSpool


def noise(index: int, size: tuple[int, int]) -> RgbFrame:
    width, height = size
    return np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (97, 33), (64, 64)])
def test_frames_come_back_bit_for_bit_as_often_as_wanted(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    spool = FrameSpool(tmp_path, size)
    for index in range(9):
        spool.write(noise(index, size))
    for _ in range(2):
        frames = list(spool.frames())
        assert len(frames) == 9
        for index, frame in enumerate(frames):
            assert np.array_equal(frame, noise(index, size))
    spool.close()


def test_the_file_has_no_name(tmp_path: Path) -> None:
    spool = FrameSpool(tmp_path, (64, 64))
    for index in range(20):
        spool.write(noise(index, (64, 64)))
    assert os.listdir(tmp_path) == []
    spool.close()
    spool.close()
