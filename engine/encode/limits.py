"""What each kind of file can express of a rate and a size, and how long it shows a frame.

Called by the table of formats and by the encoders. Pure arithmetic on exact rates. The invariant:
times are rounded from the exact ones, each for itself, so that rounding never adds up.
"""

from __future__ import annotations

import math
from fractions import Fraction

# Browsers show a frame for a tenth of a second that a GIF gives less than 2 hundredths of one,
# and a WebP or AVIF 10 thousandths or less.
_MIN_GIF_DELAY_CS = 2
_MIN_STILL_MS = 11
_MAX_GIF_DELAY_CS = 0xFFFF
_MAX_WEBP_DURATION_MS = 2**24 - 1
_MAX_WEBP_SIDE = 16383
_MIN_AVIF_SIDE = 4
# FFmpeg keeps a rate as a fraction of two C ints.
_MAX_RATE_TERM = 2**31 - 1
_WEBM_TICKS = 1000


def start_of(index: int, fps: Fraction, ticks: int) -> int:
    """Returns when a frame begins, rounded to `ticks` a second."""
    return round(ticks * index / fps)


def delay_cs(index: int, fps: Fraction) -> int:
    """Returns how long a GIF shows a frame, in hundredths of a second."""
    return start_of(index + 1, fps, 100) - start_of(index, fps, 100)


def duration_ms(index: int, fps: Fraction) -> int:
    """Returns how long a WebP shows a frame, in thousandths of a second."""
    return start_of(index + 1, fps, 1000) - start_of(index, fps, 1000)


def gif_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says what GIF cannot express, or None."""
    fastest, slowest = Fraction(100, _MIN_GIF_DELAY_CS), Fraction(100, _MAX_GIF_DELAY_CS)
    if fps > fastest:
        return f"fps {fps} is too fast for GIF: expected at most {fastest}, or write .mp4"
    if fps < slowest:
        return f"fps {fps} is too slow for GIF: expected at least {float(slowest):.4f}"
    return None


def mp4_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says what MP4 cannot express, or None."""
    return _too_fine("MP4", fps) or _odd("MP4", size)


def webm_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says what WebM cannot express, or None."""
    if fps > _WEBM_TICKS:
        return f"fps {fps} is too fast for WebM: expected at most {_WEBM_TICKS}, or write .mp4"
    return _too_fine("WebM", fps) or _odd("WebM", size)


def webp_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says what WebP cannot express, or None."""
    slowest = Fraction(1000, _MAX_WEBP_DURATION_MS)
    if fps < slowest:
        return f"fps {fps} is too slow for WebP: expected at least {float(slowest):.6f}"
    if size is not None and max(size) > _MAX_WEBP_SIDE:
        return f"size {size[0]}x{size[1]} is too large for WebP: expected sides to {_MAX_WEBP_SIDE}"
    return _too_fast_for_browsers("WebP", fps)


def avif_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says what AVIF cannot express, or None."""
    if size is not None and min(size) < _MIN_AVIF_SIDE:
        least = f"{_MIN_AVIF_SIDE}x{_MIN_AVIF_SIDE}"
        return f"size {size[0]}x{size[1]} is too small for AVIF: expected at least {least}"
    return _too_fast_for_browsers("AVIF", fps) or _too_fine("AVIF", fps) or _odd("AVIF", size)


def png_problem(fps: Fraction, size: tuple[int, int] | None) -> str | None:
    """Says nothing: pictures have any size, and their rate is only in the plan that they carry."""
    return None


def _too_fast_for_browsers(kind: str, fps: Fraction) -> str | None:
    fastest = 1000 // _MIN_STILL_MS
    if fps <= fastest:
        return None
    return f"fps {fps} is too fast for {kind}: expected at most {fastest}, or write .mp4"


def _too_fine(kind: str, fps: Fraction) -> str | None:
    if max(fps.numerator, fps.denominator) <= _MAX_RATE_TERM:
        return None
    near = fps.limit_denominator(1001)
    return f"fps {fps} is too fine for {kind}: expected a shorter fraction, such as {near}"


def _odd(kind: str, size: tuple[int, int] | None) -> str | None:
    if size is None or not (size[0] % 2 or size[1] % 2):
        return None
    even = "x".join(str(2 * math.ceil(side / 2)) for side in size)
    return f"size {size[0]}x{size[1]} is odd: {kind} expects even numbers, such as {even}"
