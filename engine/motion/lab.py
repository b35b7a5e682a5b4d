"""sRGB to CIE L*a*b* and back, for the D65 white that sRGB itself has.

`color_match.py` compares colours here. The invariant: every 8-bit colour comes back as itself. Only
tables and float32 sums, products and quotients: the bits are the same on any machine.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]
_Matrix = tuple[tuple[float, float, float], ...]

# IEC 61966-2-1: linear red, green and blue to X, Y and Z, and back.
_TO_XYZ: Final[_Matrix] = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_FROM_XYZ: Final[_Matrix] = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_WHITE: Final = (0.95047, 1.0, 1.08883)
# CIE 15:2004, 8.2.1: below _KNEE the cube root gives way to a line of the same slope.
_DELTA: Final = 6 / 29
_KNEE: Final = _DELTA**3
_LINEAR_STEPS: Final = (1 << 16) - 1
_ROOT_STEPS: Final = (1 << 12) - 1


def to_lab(picture: NDArray[np.uint8]) -> Planes:
    """Converts sRGB.

    Args:
        picture: (H, W, 3).

    Returns:
        (3, H·W): L* in 0 … 100, a* and b* in about -128 … 127.
    """
    linear = _linear_table().take(picture.reshape(-1, 3).T)
    x, y, z = (_root(plane) for plane in _mixed(_scaled_rows(_TO_XYZ), linear))
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def from_lab(lab: Planes, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Converts to sRGB; what it cannot show becomes the nearest per channel.

    Args:
        lab: (3, H·W).
        shape: (H, W, 3) of the picture.
    """
    lightness, a, b = lab
    y = (lightness + 16) * np.float32(1 / 116)
    x, z = y + a * np.float32(1 / 500), y - b * np.float32(1 / 200)
    xyz = [_cube(root) * np.float32(white) for root, white in zip((x, y, z), _WHITE, strict=True)]
    places = [np.clip(plane, 0, 1) * _LINEAR_STEPS + 0.5 for plane in _mixed(_FROM_XYZ, xyz)]
    bytes_ = [_byte_table().take(place.astype(np.intp)) for place in places]
    return np.stack(bytes_, -1).reshape(shape)


def _mixed(matrix: _Matrix, planes: Planes | list[Planes]) -> list[Planes]:
    # Not a matrix product: BLAS may sum in another order on another machine.
    first, second, third = planes
    rows = [[np.float32(share) for share in row] for row in matrix]
    return [first * a + second * b + third * c for a, b, c in rows]


def _scaled_rows(matrix: _Matrix) -> _Matrix:
    """Divides by the white point, so that white is 1 in each row."""
    rows = zip(matrix, _WHITE, strict=True)
    return tuple((a / white, b / white, c / white) for (a, b, c), white in rows)


def _root(t: Planes) -> Planes:
    clipped = np.clip(t, _KNEE, 1)
    root = _root_table().take((clipped * _ROOT_STEPS + 0.5).astype(np.intp))
    third = np.float32(1 / 3)
    for _ in range(2):
        # Newton's step; the table is within 1 % and each step squares that.
        root = (2 * root + clipped / (root * root)) * third
    line = t * np.float32(1 / (3 * _DELTA**2)) + np.float32(4 / 29)
    return np.where(t > _KNEE, root, line)


def _cube(root: Planes) -> Planes:
    line = (root - np.float32(4 / 29)) * np.float32(3 * _DELTA**2)
    return np.where(root > _DELTA, root * root * root, line)


@cache
def _linear_table() -> Planes:
    values = [v / 255 for v in range(256)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return np.array(linear, np.float32)


@cache
def _byte_table() -> NDArray[np.uint8]:
    linear = np.arange(_LINEAR_STEPS + 1) / _LINEAR_STEPS
    curve = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    values: NDArray[np.uint8] = np.rint(curve * 255).astype(np.uint8)
    return values


@cache
def _root_table() -> Planes:
    return np.cbrt(np.arange(_ROOT_STEPS + 1) / _ROOT_STEPS).astype(np.float32)
