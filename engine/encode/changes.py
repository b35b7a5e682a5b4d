"""The part of a picture that has to be drawn over the one before.

Called by `gif.py` and `webp.py`. Pure: pictures in, a box out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # (left, top, right, bottom)


def changed_box(shown: NDArray[np.uint8] | None, picture: NDArray[np.uint8]) -> Box:
    """Returns the smallest box outside which two pictures are the same, never an empty one.

    Args:
        shown: (H, W) or (H, W, C), what is there; None for nothing.
        picture: of the same shape, what is to be there.
    """
    height, width = picture.shape[:2]
    if shown is None:
        return 0, 0, width, height
    differs = shown != picture
    if differs.ndim == 3:
        differs = differs.any(2)
    rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
    if not rows.size:
        # A frame that only lasts still has to be there: it is one pixel.
        return 0, 0, 1, 1
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
