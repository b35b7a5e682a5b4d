"""Moved pictures: known geometry, edges, what is left after many moves, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]  # it has no types

from giffusion.engine.errors import SettingsError
from giffusion.engine.motion.warp import Motion, warp
from giffusion.engine.settings import MOTION, PADDINGS, SCHEDULES

Pixels = NDArray[np.uint8]


def random(height: int, width: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def textured(height: int, width: int) -> Pixels:
    """A smooth picture with detail up to half the highest frequency, away from 0 and 255."""
    noise = np.random.default_rng(2).normal(size=(height, width, 3))
    smooth = ndimage.gaussian_filter(noise, (1.2, 1.2, 0), mode="mirror")
    values = 128 + 30 * smooth / smooth.std()
    picture: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return picture


def with_square(height: int, width: int, left: int, top: int, side: int) -> Pixels:
    picture = np.full((height, width, 3), 40, np.uint8)
    picture[top : top + side, left : left + side] = (200, 120, 60)
    return picture


def psnr(one: NDArray[np.generic], other: NDArray[np.generic]) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / error))


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_motion_that_moves_nothing_gives_a_copy(padding: str) -> None:
    picture = random(48, 64)
    moved = warp(picture, Motion(), padding)
    np.testing.assert_array_equal(moved, picture)
    assert not np.shares_memory(moved, picture)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("move", [(5, 0), (0, 7), (-4, 3), (6, -9)])
def test_a_square_lands_exactly(move: tuple[int, int], padding: str) -> None:
    right, down = move
    picture = with_square(48, 64, 20, 18, 10)
    moved = warp(picture, Motion(translate_x=right, translate_y=down), padding)
    expected = with_square(48, 64, 20 + right, 18 + down, 10)
    shown = (slice(10, 38), slice(10, 54))
    np.testing.assert_array_equal(moved[shown], expected[shown])


@pytest.mark.parametrize(("padding", "mode"), [("border", "edge"), ("reflection", "reflect")])
@pytest.mark.parametrize("move", [(3, -5), (-11, 8), (0, 1)])
def test_what_comes_in_at_the_edges(move: tuple[int, int], padding: str, mode: str) -> None:
    right, down = move
    picture = random(24, 20)
    wide = np.pad(picture, ((12, 12), (12, 12), (0, 0)), mode=mode)  # type: ignore[call-overload]
    moved = warp(picture, Motion(translate_x=right, translate_y=down), padding)
    expected = wide[12 - down : 36 - down, 12 - right : 32 - right]
    np.testing.assert_array_equal(moved, expected)


def test_black_comes_in_with_zeros() -> None:
    picture = np.full((6, 8, 3), 200, np.uint8)
    moved = warp(picture, Motion(translate_x=2.25, translate_y=-1), "zeros")
    # A quarter of a pixel more shows the outside.
    assert moved[0, :, 0].tolist() == [0, 0, 150, 200, 200, 200, 200, 200]
    assert not moved[-1].any()


@pytest.mark.parametrize("quarters", [1, 2, 3, -1, 5])
def test_quarter_turns_are_exact_and_counter_clockwise(quarters: int) -> None:
    picture = random(33, 33)
    moved = warp(picture, Motion(angle=90 * quarters))
    np.testing.assert_array_equal(moved, np.rot90(picture, quarters))


def test_a_half_turn_of_a_frame_that_is_not_square() -> None:
    picture = random(24, 40)
    np.testing.assert_array_equal(warp(picture, Motion(angle=180)), picture[::-1, ::-1])


def test_a_quarter_turn_of_a_wide_frame_is_about_its_centre() -> None:
    picture = random(24, 40)
    moved = warp(picture, Motion(angle=90), "zeros")
    np.testing.assert_array_equal(moved[:, 8:32], np.rot90(picture[:, 8:32]))
    assert not moved[:, :8].any()


def test_zoom_enlarges_about_the_centre() -> None:
    moved = warp(with_square(48, 64, 28, 20, 8), Motion(zoom=2))
    expected = with_square(48, 64, 24, 16, 16)
    # Its edges lie between pixels, before and after, and are half as bright as both there.
    np.testing.assert_array_equal(moved[..., 0] > 120, expected[..., 0] > 120)
    inside = (slice(18, 30), slice(26, 38))
    assert np.abs(moved[inside].astype(int) - expected[inside]).max() < 20
    np.testing.assert_array_equal(moved, moved[::-1, ::-1])


def test_a_shrunk_picture_shows_means() -> None:
    picture = random(64, 64)
    moved = warp(picture, Motion(zoom=0.25), "zeros")
    means = picture.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(moved[24:40, 24:40] - means).max() <= 0.51
    assert not moved[:23].any()


def test_translation_comes_before_zoom_and_turn() -> None:
    picture = with_square(49, 49, 22, 22, 5)
    # 6 to the right, which a turn takes up and the zoom to 12.
    moved = warp(picture, Motion(zoom=2, angle=90, translate_x=6))
    rows, columns = np.nonzero(moved[..., 0] > 120)
    assert rows.mean() == pytest.approx(24 - 12)
    assert columns.mean() == pytest.approx(24)


def test_it_is_the_affine_map_that_it_says() -> None:
    picture = textured(40, 56)
    motion = Motion(zoom=1.3, angle=20, translate_x=2.5, translate_y=-1.25)
    centre = np.array([27.5, 19.5])
    turn = np.radians(motion.angle)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    forward = motion.zoom * rotation
    y, x = np.mgrid[0:40, 0:56]
    there = np.stack([x.ravel(), y.ravel()]).T - centre
    origin = there @ np.linalg.inv(forward).T + centre - [motion.translate_x, motion.translate_y]
    for channel in range(3):
        values = ndimage.map_coordinates(
            picture[..., channel].astype(float), origin.T[::-1], order=3, mode="mirror"
        )
        moved = warp(picture, motion, "reflection")[..., channel].ravel()
        assert np.abs(moved - np.clip(values, 0, 255)).max() <= 0.51


def test_small_turns_make_a_large_one() -> None:
    picture = textured(96, 96)
    moved = picture
    for _ in range(18):
        moved = warp(moved, Motion(angle=5))
    middle = (slice(24, 72), slice(24, 72))
    assert psnr(moved[middle], np.rot90(picture)[middle]) > 38


def test_small_zooms_make_a_large_one() -> None:
    picture = textured(96, 96)
    moved = picture
    for _ in range(35):
        moved = warp(moved, Motion(zoom=1.02))
    once = warp(picture, Motion(zoom=1.02**35))
    assert psnr(moved, once) > 38


def test_detail_outlives_a_hundred_moves() -> None:
    picture = textured(64, 64)
    ours = bilinear = picture
    for i in range(100):
        right = 0.5 if i % 2 else -0.5
        ours = warp(ours, Motion(translate_x=right))
        image = Image.fromarray(bilinear)
        matrix = (1, 0, -right, 0, 1, 0)
        image = image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        bilinear = np.asarray(image)
    middle = (slice(8, 56), slice(8, 56))
    assert ours[middle].std() > 0.95 * picture[middle].std()
    assert bilinear[middle].std() < 0.7 * picture[middle].std()


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.01, 100),
    st.floats(-400, 400),
    st.floats(-60, 60),
    st.floats(-60, 60),
    st.sampled_from(PADDINGS),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_flat_picture_stays_flat(
    zoom: float, angle: float, right: float, down: float, padding: str, height: int, width: int
) -> None:
    picture = np.full((height, width, 3), (12, 130, 255), np.uint8)
    moved = warp(picture, Motion(zoom, angle, right, down), padding)
    assert moved.shape == picture.shape
    if padding == "zeros":
        assert (moved <= picture).all()
    else:
        np.testing.assert_array_equal(moved, picture)


def test_zooms_next_to_each_other_look_alike() -> None:
    picture = textured(48, 64)
    zooms = [1.0, 1.0005, 1.001, 1.0015]
    moved = [warp(picture, Motion(zoom)).astype(int) for zoom in zooms]
    assert max(np.abs(one - other).max() for one, other in pairwise(moved)) <= 4


def test_the_bits_do_not_depend_on_threads() -> None:
    code = (
        "import hashlib, numpy as np; from giffusion.engine.motion import ColorMatch, Motion, warp;"
        "p = np.random.default_rng(3).integers(0, 256, (96, 130, 3), np.uint8);"
        "m = ColorMatch(p).match(warp(p // 2, Motion(1.02, 3, 1.5, -2.25)));"
        "print(hashlib.sha256(m).hexdigest())"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("name", list(MOTION))
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9, -1e9])
def test_values_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError) as caught:
        Motion(**{name: value})
    shown = f"{value:.12g}" if abs(value) != 1e9 else str(int(value))
    assert str(caught.value) == f"{name} is {shown}: expected {SCHEDULES[name]}"


def test_no_zoom_of_nothing() -> None:
    with pytest.raises(SettingsError, match=r"^zoom is 0: expected 0\.01 to 100$"):
        Motion(zoom=0)


def test_an_unknown_padding_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"^unknown padding 'zero': did you mean 'zeros'\?"):
        warp(random(4, 4), Motion(), "zero")
