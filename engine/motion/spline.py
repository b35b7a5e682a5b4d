"""A picture between its pixels: interpolation by cubic B-splines.

`warp.py` reads moved pictures here. The invariants: at a pixel's place the value is that pixel's,
and no frequency ever grows, so that a picture that is moved hundreds of times neither rings nor
fades as it does with a local kernel. Only sums and products of float32 in a fixed order: the bits
are the same on any machine and any number of threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_POLE: Final = math.sqrt(3) - 2
_NOTHING: Final = 1e-12
"""A share of a sample that float32 does not show."""
# Coefficients before the first pixel and after the last one that a sample reads.
_BEFORE, _AFTER = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class Spline:
    """The cubic spline through a picture's pixels, mirrored at its outermost ones.

    P. Thevenaz, T. Blu, M. Unser, "Interpolation revisited", IEEE Transactions on Medical Imaging
    19 (2000); the recursive filter: M. Unser, A. Aldroubi, M. Eden, "B-spline signal processing:
    part II", IEEE Transactions on Signal Processing 41 (1993).

    Args:
        planes: (channels, H + 3, W + 3) float32, coefficients, mirrored.
    """

    planes: NDArray[np.float32]

    @classmethod
    def through(cls, picture: NDArray[np.uint8] | NDArray[np.float32]) -> Self:
        """Computes the spline through a picture (H, W, channels)."""
        # The axis that is filtered comes first, so that each step of the recursion is one row.
        columns = _filtered(np.ascontiguousarray(picture.transpose(0, 2, 1), np.float32))
        rows = _filtered(np.ascontiguousarray(columns.transpose(2, 1, 0)))
        return cls(_mirrored(rows.transpose(1, 2, 0)))

    def sample(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Reads the spline at n places.

        Args:
            x: (n,) in 0 … W - 1.
            y: (n,) in 0 … H - 1.

        Returns:
            (channels, n).
        """
        column, row = np.floor(x), np.floor(y)
        across, down = _weights(x - column), _weights(y - row)
        stride = self.planes.shape[2]
        place = row.astype(np.intp) * stride + column.astype(np.intp)
        flat = self.planes.reshape(len(self.planes), -1)
        return np.stack([_weighted(plane, place, stride, across, down) for plane in flat])


def _weighted(
    plane: NDArray[np.float32],
    place: NDArray[np.intp],
    stride: int,
    across: list[NDArray[np.float32]],
    down: list[NDArray[np.float32]],
) -> NDArray[np.float32]:
    total = np.zeros(place.shape, np.float32)
    for j, weight in enumerate(down):
        line = np.zeros(place.shape, np.float32)
        for k, share in enumerate(across):
            # A view that begins at the tap, so that all taps share one array of places.
            line += plane[j * stride + k :].take(place) * share
        total += line * weight
    return total


def _weights(fraction: NDArray[np.float64]) -> list[NDArray[np.float32]]:
    """Returns the cubic B-spline at the four coefficients about a place."""
    t = fraction.astype(np.float32)
    s = 1 - t
    sixth = np.float32(1 / 6)
    first, last = s * s * s * sixth, t * t * t * sixth
    second = (4 - 3 * t * t * (2 - t)) * sixth
    return [first, second, 1 - first - second - last, last]


def _filtered(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turns samples into coefficients along the first axis, in place."""
    length = len(values)
    if length == 1:
        return values
    values *= np.float32(6)
    _start(values)
    scratch = np.empty_like(values[0])
    pole = np.float32(_POLE)
    for i in range(1, length):
        values[i] += np.multiply(values[i - 1], pole, out=scratch)
    ends = values[-1] + pole * values[-2]
    values[-1] = np.float32(_POLE / (_POLE**2 - 1)) * ends
    for i in range(length - 2, -1, -1):
        np.subtract(values[i + 1], values[i], out=values[i])
        values[i] *= pole
    return values


def _start(values: NDArray[np.float32]) -> None:
    """Adds to the first sample what the mirrored ones before it leave there."""
    last = len(values) - 1
    total = np.zeros_like(values[0])
    for k, row in enumerate(values):
        power = _POLE**k + (_POLE ** (2 * last - k) if 0 < k < last else 0)
        if abs(power) < _NOTHING:
            break
        total += np.float32(power) * row
    np.multiply(total, np.float32(1 / (1 - _POLE ** (2 * last))), out=values[0])


def _mirrored(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    channels, height, width = planes.shape
    rows, columns = (_mirrored_places(length) for length in (height, width))
    wider = np.empty((channels, len(rows), len(columns)), np.float32)
    wider[:, _BEFORE:-_AFTER, _BEFORE:-_AFTER] = planes
    for place in (0, -2, -1):
        wider[:, _BEFORE:-_AFTER, place] = planes[:, :, columns[place]]
    for place in (0, -2, -1):
        wider[:, place] = wider[:, rows[place] + _BEFORE]
    return wider


def _mirrored_places(length: int) -> NDArray[np.intp]:
    return mirror(np.arange(-_BEFORE, length + _AFTER), length).astype(np.intp)


def mirror(places: NDArray[np.generic], length: int) -> NDArray[np.float64]:
    """Folds places into 0 … length - 1 as mirrors at the outermost pixels do.

    Args:
        places: any finite ones.
        length: number of pixels, at least 1.
    """
    if length == 1:
        return np.zeros(places.shape)
    last = length - 1
    folded: NDArray[np.float64] = np.mod(places.astype(np.float64), 2 * last)
    return np.subtract(last, np.abs(last - folded))
