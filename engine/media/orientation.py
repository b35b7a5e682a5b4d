"""How a film is to be turned to be seen as its camera held it.

Called by `video.py` and `probe.py`. Pure: a display matrix in, quarter turns and mirrors out. The
invariant: every matrix means one of the eight ways in which a rectangle stands upright.

Source: ISO/IEC 14496-12, 8.3.2, the matrix of a track header, as FFmpeg's `libavutil/display.h`
hands it on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Orientation:
    """First the sides are swapped, then what was left or top may become right or bottom.

    Args:
        swaps: rows become columns.
        mirrors_x: left and right are then swapped.
        mirrors_y: top and bottom are then swapped.
    """

    swaps: bool = False
    mirrors_x: bool = False
    mirrors_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise by which it is turned: 0, 90, 180 or 270, besides any mirroring."""
        if not self.swaps:
            return 180 if self.mirrors_y else 0
        return 270 if self.mirrors_y else 90

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the (width, height) of what has a size before it is turned, or back."""
        return (size[1], size[0]) if self.swaps else size

    def turn(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turns pixels, (H, W, 3)."""
        turned = pixels.swapaxes(0, 1) if self.swaps else pixels
        turned = turned[:, ::-1] if self.mirrors_x else turned
        turned = turned[::-1] if self.mirrors_y else turned
        return np.ascontiguousarray(turned)


def orientation_of(frame: VideoFrame) -> Orientation:
    """Returns how a decoded frame is to be turned, to the nearest quarter turn.

    Args:
        frame: its display matrix, if it has one, is nine 32-bit numbers by which (x, y) becomes
            (a x + c y, b x + d y); a and b are the first two, c and d the fourth and fifth.
    """
    data = cast("Mapping[str, SideData]", frame.side_data)
    matrix = data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)
