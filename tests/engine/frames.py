"""The sink of tests that look at what was rendered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.frames import Frame, PixelFormat


class Frames:
    """Keeps the frames of a job."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []

    def write(self, index: int, frame: Frame) -> None:
        assert index == len(self.pictures)
        assert isinstance(frame, np.ndarray)
        self.pictures.append(frame)
