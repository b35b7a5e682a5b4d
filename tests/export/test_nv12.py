"""RGB to NV12, against BT.709 in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from giffusion.export.nv12 import nv12

RED, GREEN, BLUE = Fraction(2126, 10000), Fraction(7152, 10000), Fraction(722, 10000)
HALF = Fraction(1, 2)
LEVELS = arrays.arrays(
    np.uint8,
    st.tuples(st.just(3), st.sampled_from([2, 4]), st.sampled_from([2, 4, 6])),
    elements=st.sampled_from([0, 1, 15, 16, 127, 128, 129, 200, 254, 255]),
)


def converted(levels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(nv12(torch.from_numpy(levels[None]))[0].numpy())


def luma(pixel: NDArray[np.uint8]) -> Fraction:
    red, green, blue = (Fraction(int(level), 255) for level in pixel)
    return RED * red + GREEN * green + BLUE * blue


def chroma(pixel: NDArray[np.uint8], channel: int, weight: Fraction) -> Fraction:
    return (Fraction(int(pixel[channel]), 255) - luma(pixel)) / (2 * (1 - weight))


def sited_left(levels: NDArray[np.uint8], y: int, x: int, channel: int, weight: Fraction) -> int:
    """A sample of Cb or Cr: two rows, and three columns of which the first repeats at the edge."""
    columns = ((max(2 * x - 1, 0), 1), (2 * x, 2), (2 * x + 1, 1))
    mean = sum(
        (times * chroma(levels[:, row, column], channel, weight))
        for row in (2 * y, 2 * y + 1)
        for column, times in columns
    ) / Fraction(8)
    return floor(128 + 224 * mean + HALF)


@given(LEVELS)
def test_every_sample_is_correctly_rounded(levels: NDArray[np.uint8]) -> None:
    _, height, width = levels.shape
    result = converted(levels)
    assert result.shape == (height * 3 // 2, width)
    for y in range(height):
        for x in range(width):
            assert result[y, x] == floor(16 + 219 * luma(levels[:, y, x]) + HALF)
    for y in range(height // 2):
        for x in range(width // 2):
            blue, red = result[height + y, 2 * x : 2 * x + 2]
            assert blue == sited_left(levels, y, x, 2, BLUE)
            assert red == sited_left(levels, y, x, 0, RED)


@pytest.mark.parametrize("level", range(256))
def test_grey_has_no_colour(level: int) -> None:
    result = converted(np.full((3, 4, 4), level, np.uint8))
    assert (result[:4] == floor(16 + Fraction(219 * level, 255) + HALF)).all()
    assert (result[4:] == 128).all()


def test_the_type_of_the_levels_does_not_matter() -> None:
    levels = torch.randint(0, 256, (2, 3, 8, 6), generator=torch.Generator().manual_seed(0))
    whole = nv12(levels)
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        assert torch.equal(nv12(levels.to(dtype)), whole)
