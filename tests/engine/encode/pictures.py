"""Smooth moving pictures, no two of them alike, for whoever encodes and compares them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = SIZE = (96, 64)


def nv12_picture(index: int) -> Pixels:
    """Returns a frame of shape (H·3/2, W)."""
    y, x = np.mgrid[0 : HEIGHT * 3 // 2, 0:WIDTH]
    waves = np.sin((x + 3 * index) / 20) * np.cos((y - 2 * index) / 15)
    return np.asarray(127.5 + 100 * waves, np.uint8)


def rgb_picture(index: int, amplitude: float = 127.5) -> Pixels:
    """Returns a frame of shape (H, W, 3), whose levels are within the amplitude of 127.5."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [np.sin((x + 3 * index) / 20), np.sin((y - 2 * index) / 15), np.cos((x + y) / 30)]
    return (127.5 + amplitude * np.stack(waves, -1)).astype(np.uint8)


def square_error(first: Pixels, second: Pixels) -> float:
    """Returns the mean of the squared differences of two frames of one shape."""
    return float(np.mean((first.astype(np.float64) - second) ** 2))
