"""What a film is: its size, rate and length, without decoding more than its first frame.

Called by the front ends, and by whoever chooses a render's size and rate after a film. The
invariant: numbers are those that `video.py` reads frames by, so that what is told here is what a
render gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from giffusion.engine.media.decoding import FilmDecoder
from giffusion.engine.media.fitting import Size
from giffusion.engine.media.index import FilmIndex
from giffusion.engine.media.orientation import orientation_of

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class FilmInfo:
    """What a film is.

    Args:
        size: (width, height) in pixels as it is shown: turned, and its pixels made square.
        fps: frames a second, exact; the mean as a short fraction where it varies.
        variable: the rate varies.
        num_frames: frames that are shown.
        duration_s: seconds from the first frame's beginning to the last one's end.
        rotation: degrees clockwise by which what is stored is turned: 0, 90, 180 or 270.
        has_sound: it has sound too.
        num_missing: frames that the file says it has besides, and that are cut off.
    """

    size: Size
    fps: Fraction
    variable: bool
    num_frames: int
    duration_s: Fraction
    rotation: int
    has_sound: bool
    num_missing: int


def film_info(index: FilmIndex) -> FilmInfo:
    """Says what a film is, by the index of its frames; the first one alone is decoded.

    Raises:
        InputError: its first frame cannot be decoded.
    """
    decoder = FilmDecoder(index)
    try:
        frame, pixel_aspect = decoder.frame(0), decoder.pixel_aspect
        size, rotation = _shown_size(frame, pixel_aspect), orientation_of(frame).rotation
    finally:
        decoder.close()
    return FilmInfo(
        size=size,
        fps=index.fps,
        variable=index.variable,
        num_frames=index.num_frames,
        duration_s=index.duration_s,
        rotation=rotation,
        has_sound=index.has_sound,
        num_missing=index.num_missing,
    )


def _shown_size(frame: VideoFrame, pixel_aspect: Fraction) -> Size:
    """Makes pixels square by making the frame larger, never smaller, and turns it."""
    width, height = Fraction(frame.width), Fraction(frame.height)
    if pixel_aspect >= 1:
        width *= pixel_aspect
    else:
        height /= pixel_aspect
    return orientation_of(frame).size((round(width), round(height)))
