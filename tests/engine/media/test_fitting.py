"""Shapes: what is cut off, what is added, and that pictures and films are treated alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from giffusion.engine.conditions.pictures import read_picture
from giffusion.engine.media.fitting import contained_size, covering_box, fitted

SIDES = st.integers(1, 5000)
SIZES = st.tuples(SIDES, SIDES)
ASPECTS = st.fractions(Fraction(1, 16), Fraction(16), max_denominator=100)


@given(source=SIZES, size=SIZES, aspect=ASPECTS)
def test_what_is_cut_to_has_the_shape_and_lies_within(
    source: tuple[int, int], size: tuple[int, int], aspect: Fraction
) -> None:
    left, top, right, bottom = covering_box(source, size, aspect)
    width, height = right - left, bottom - top
    assert width * float(aspect) / height == pytest.approx(size[0] / size[1])
    assert min(left, top) >= 0
    assert (right, bottom) <= source or right == pytest.approx(source[0])
    # One pair of sides is whole, and what is cut is so equally on both.
    assert width == pytest.approx(source[0]) or height == pytest.approx(source[1])
    assert left == pytest.approx(source[0] - right, abs=1e-6)
    assert top == pytest.approx(source[1] - bottom, abs=1e-6)


@given(source=SIZES, size=SIZES, aspect=ASPECTS)
def test_what_is_shown_whole_touches_two_sides(
    source: tuple[int, int], size: tuple[int, int], aspect: Fraction
) -> None:
    width, height = contained_size(source, size, aspect)
    assert 1 <= width <= size[0]
    assert 1 <= height <= size[1]
    assert width == size[0] or height == size[1]


@pytest.mark.parametrize("size", [(32, 32), (48, 16), (33, 47), (7, 3), (200, 300)])
def test_the_crop_is_that_of_pillow(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (61, 83, 3), np.uint8)
    picture = Image.fromarray(noise)
    expected = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(np.asarray(fitted(picture, size)), np.asarray(expected))


def test_bars_are_black_and_on_both_sides(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "white").save(tmp_path / "a.png")
    wide = read_picture(tmp_path / "a.png", (40, 40), "pad")
    assert wide[:, 0, 0].tolist() == [0] * 10 + [255] * 20 + [0] * 10
    tall = read_picture(tmp_path / "a.png", (80, 20), "pad")
    assert tall[0, :, 0].tolist() == [0] * 20 + [255] * 40 + [0] * 20
    # Bars are no part of a picture: what is transparent in it is white all the same.
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", (40, 40), "pad")[20, 20].tolist() == [255] * 3
    assert read_picture(tmp_path / "a.png", (40, 40), "pad")[0, 0].tolist() == [0] * 3


def test_stretching_shows_everything(tmp_path: Path) -> None:
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, 20:] = 255
    Image.fromarray(halves).save(tmp_path / "a.png")
    stretched = read_picture(tmp_path / "a.png", (10, 80), "stretch")
    assert stretched.shape == (80, 10, 3)
    assert stretched[40, [0, 9], 0].tolist() == [0, 255]
