"""Pictures as whole numbers to the bytes that a sink takes, for the peers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from giffusion.engine.frames import PixelFormat
from giffusion.export.nv12 import nv12


def to_bytes(levels: Tensor, pixel_format: PixelFormat) -> NDArray[np.uint8]:
    """Converts on the pictures' device, and brings them to the CPU.

    Args:
        levels: whole numbers 0 … 255 of any type, (images, 3, H, W).
        pixel_format: of the sink.

    Returns:
        (images, ...), each frame's shape as `PixelFormat` says.
    """
    rgb = pixel_format is PixelFormat.RGB24
    pictures = levels.to(torch.uint8).permute(0, 2, 3, 1) if rgb else nv12(levels)
    return np.asarray(pictures.contiguous().cpu().numpy())
