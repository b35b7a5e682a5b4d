"""A decoded frame: its pixel format, and the memory that it lies in.

The decode graph makes every picture in each format; a job's sink says which one it takes, and
whether on the device, and only that one is copied.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class PixelFormat(StrEnum):
    """Pixel formats of frames, by FFmpeg's names.

    `RGB24` is (H, W, 3), full range. `NV12` is (H·3/2, W): H rows of luma, then H/2 rows of
    interleaved Cb and Cr, BT.709 in limited range, chroma sited left as H.264 assumes.
    """

    RGB24 = "rgb24"
    NV12 = "nv12"

    @property
    def tensor(self) -> str:
        """Name of the decode graph's output in this format."""
        return {"rgb24": "rgb", "nv12": "nv12"}[self]

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Returns the shape of a frame of (width, height) pixels, both even for NV12."""
        width, height = size
        return (height, width, 3) if self is PixelFormat.RGB24 else (height * 3 // 2, width)


class DeviceFrame(Protocol):
    """A frame in device memory, uint8, which others read through DLPack without a copy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, as `PixelFormat` states it."""

    def __getitem__(self, rows: slice) -> DeviceFrame:
        """Returns some of its rows, over the same memory."""

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        """Returns a DLPack capsule that keeps the memory alive."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Returns DLPack's device type and number."""


Frame = NDArray[np.uint8] | DeviceFrame
