"""RGB to NV12 inside the decode graph, so that only the encoder's own format leaves the device.

Whole numbers throughout, which makes the conversion exact: half precision would be wrong by a
level, and a sum in float32 would depend on the runtime's order of additions.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLACK, _GREY = 16, 128
# Y = 0.2126 R + 0.7152 G + 0.0722 B, whose range of 255 becomes 219: 219 / 255 of 1 / 10000.
_LUMA = (73 * 2126, 73 * 7152, 73 * 722)
_LUMA_DIVISOR = 85 * 10000
# Cb = (B - Y) / 1.8556 and Cr = (R - Y) / 1.5748, whose range of 255 becomes 224. The terms are
# divided by the 8 samples that a window counts for, and by what all have in common.
_CB, _CB_DIVISOR = (-14 * 1063, -14 * 3576, 14 * 4639), 255 * 4639
_CR, _CR_DIVISOR = (14 * 3937, -14 * 3576, -14 * 361), 255 * 3937


def nv12(levels: Tensor) -> Tensor:
    """Converts pictures to limited-range NV12 by the BT.709 matrix, correctly rounded.

    ITU-R BT.709-6, sections 3.2 to 3.5. Chroma is sited left, where H.264 and its successors
    expect it when a file does not say (ITU-T H.264, annex E, `chroma_loc_info_present_flag`): a
    sample is the mean of two rows, weighted 1:2:1 over the column it sits on and its neighbours.

    Args:
        levels: full-range RGB as whole numbers 0 … 255 of any type, (images, 3, H, W), H and W
            even.

    Returns:
        uint8, (images, H·3/2, W): H rows of luma, then H/2 rows of interleaved Cb and Cr.
    """
    channels = levels.to(torch.int32).unbind(1)
    windows = [_window_sum(channel) for channel in channels]
    luma = _scaled(channels, _LUMA, _LUMA_DIVISOR, _BLACK)
    cb = _scaled(windows, _CB, _CB_DIVISOR, _GREY)
    cr = _scaled(windows, _CR, _CR_DIVISOR, _GREY)
    chroma = torch.stack([cb, cr], dim=-1).flatten(2)
    # Float32 in between: TensorRT casts nothing else to bytes.
    return torch.cat([luma, chroma], dim=1).float().to(torch.uint8)


def _window_sum(channel: Tensor) -> Tensor:
    """(images, H, W) to (images, H/2, W/2): sums over windows that count for 8 samples."""
    rows = channel[:, 0::2] + channel[:, 1::2]
    even, odd = rows[:, :, 0::2], rows[:, :, 1::2]
    left = torch.cat([even[:, :, :1], odd[:, :, :-1]], dim=2)
    return left + 2 * even + odd


def _scaled(
    channels: tuple[Tensor, ...] | list[Tensor], weights: tuple[int, ...], divisor: int, offset: int
) -> Tensor:
    """Returns offset + Σ weight · channel / divisor, halves rounded up; never negative."""
    start = offset * divisor + divisor // 2
    red, green, blue = (w * c for w, c in zip(weights, channels, strict=True))
    total = red + green + blue + start
    quotient = torch.div(total, divisor, rounding_mode="trunc")
    # Some runtimes divide whole numbers in float32, which can be off by one.
    remainder = total - quotient * divisor
    above, below = (remainder >= divisor).to(total.dtype), (remainder < 0).to(total.dtype)
    return quotient + above - below
