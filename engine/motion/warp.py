"""A picture moved as a camera moves: translated, enlarged and turned about its centre.

The chain of frames calls it: frame i starts from frame i - 1, warped. The invariants: a motion that
moves nothing gives the same pixels, and one by whole pixels moves them exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.motion.spline import Spline, mirror
from giffusion.engine.settings import MOTION, PADDINGS, SCHEDULES
from giffusion.engine.values import one_of

_BAND_PIXELS = 1 << 14
"""Pixels that are computed at once: few enough that all of it stays in the cache."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How the picture before a frame is moved: translated first, then enlarged and turned.

    Args:
        zoom: factor by which it is enlarged about its centre, ((W - 1)/2, (H - 1)/2).
        angle: degrees by which it is turned about its centre, counter-clockwise as seen.
        translate_x: pixels by which it is moved to the right.
        translate_y: pixels by which it is moved down.

    Raises:
        SettingsError: a value is out of the range of its schedule.
    """

    zoom: float = MOTION["zoom"]
    angle: float = MOTION["angle"]
    translate_x: float = MOTION["translate_x"]
    translate_y: float = MOTION["translate_y"]

    def __post_init__(self) -> None:
        for name in MOTION:
            SCHEDULES[name].check(getattr(self, name), name)


def warp(picture: NDArray[np.uint8], motion: Motion, padding: str = "border") -> NDArray[np.uint8]:
    """Moves a picture.

    What Deforum's 2D animation does, but about the exact centre and with a cubic spline: a point p
    goes to c + zoom R (p + translation - c), with R a turn by `angle` and c the centre.

    Args:
        picture: (H, W, 3).
        motion: how.
        padding: what comes in from outside: `border`, the outermost pixels; `reflection`, the
            picture mirrored at them; `zeros`, black.

    Returns:
        The moved picture, of the same shape; a copy, also where nothing moves.

    Raises:
        SettingsError: `padding` is unknown.
    """
    one_of("padding", padding, PADDINGS)
    if motion == Motion():
        return picture.copy()
    source = _Source.of(picture, motion.zoom)
    moved = np.empty_like(picture)
    height, width, _ = picture.shape
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        band = moved[top : top + rows]
        x, y = _origins(motion, (width, height), top, len(band))
        values = source.read(x, y, padding)
        np.rint(np.clip(values, 0, 255, out=values), out=values)
        band[:] = values.T.reshape(band.shape)
    return moved


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """What a moved picture is read from: the picture's spline, or where it shrinks a smaller one's.

    Args:
        spline: through the picture's pixels, or through the means of squares of them.
        side: of such a square.
        size: (width, height) of the picture.
    """

    spline: Spline
    side: int
    size: tuple[int, int]

    @classmethod
    def of(cls, picture: NDArray[np.uint8], zoom: float) -> _Source:
        height, width, _ = picture.shape
        # Rounded first: 1/0.1 lies just below 10 for some zooms that mean a tenth.
        side = max(1, math.floor(round(1 / zoom, 9)))
        spline = Spline.through(picture if side == 1 else _reduced(picture, side))
        return cls(spline, side, (width, height))

    def read(
        self, x: NDArray[np.float64], y: NDArray[np.float64], padding: str
    ) -> NDArray[np.float32]:
        """Returns (3, n) values at n places, inside the picture or not."""
        width, height = self.size
        inside_x, inside_y = _inside(x, width, padding), _inside(y, height, padding)
        values = self.spline.sample(self._smaller(inside_x, width), self._smaller(inside_y, height))
        if padding == "zeros":
            values *= (_cover(x, width) * _cover(y, height)).astype(np.float32)
        return values

    def _smaller(self, places: NDArray[np.float64], length: int) -> NDArray[np.float64]:
        if self.side == 1:
            return places
        last = -(-length // self.side) - 1
        return np.clip((places + 0.5) / self.side - 0.5, 0, last)


def _origins(
    motion: Motion, size: tuple[int, int], top: int, rows: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns where the pixels of some rows come from."""
    centre_x, centre_y = ((length - 1) / 2 for length in size)
    right = np.arange(size[0]) - centre_x
    down = np.arange(top, top + rows)[:, None] - centre_y
    cos, sin = (f(math.radians(motion.angle)) / motion.zoom for f in (math.cos, math.sin))
    # The turn back. Rows count downwards, so that its signs are those of clockwise textbook axes.
    x = cos * right - sin * down + (centre_x - motion.translate_x)
    y = sin * right + cos * down + (centre_y - motion.translate_y)
    return x.reshape(-1), y.reshape(-1)


def _inside(places: NDArray[np.float64], length: int, padding: str) -> NDArray[np.float64]:
    if padding == "reflection":
        return mirror(places, length)
    return np.clip(places, 0, length - 1)


def _cover(places: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Returns how much of a pixel at a place is the picture's: a ramp one pixel wide."""
    return np.clip(np.minimum(places + 1, length - places), 0, 1)


def _reduced(picture: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """Averages squares of pixels: a shrunk picture shows them as one, not one pixel of them."""
    height, width, channels = picture.shape
    pad = ((0, -height % side), (0, -width % side), (0, 0))
    padded = np.pad(picture, pad, mode="edge").astype(np.float32)
    shape = (padded.shape[0] // side, side, padded.shape[1] // side, side, channels)
    means: NDArray[np.float32] = padded.reshape(shape).mean((1, 3))
    return means
