"""A decoded frame's colours, whatever they are stored as, to RGB.

Called by `video.py`. FFmpeg's swscale converts: matrix and range as the file says them, chroma at
full resolution, in the arithmetic that is the same on every machine. Transfer curves are left
alone, so that HDR films look as flat as on a screen that knows no HDR. The invariant: frames of
8-bit RGB out, and white where they are transparent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame
    from av.video.reformatter import Colorspace, VideoReformatter
    from PIL import Image

_UNSPECIFIED = 2
_SD_HEIGHT, _SD_WIDTH = 576, 1024


class ColourConverter:
    """Converts frames of one film; keeps swscale's tables between them."""

    def __init__(self) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()
        self._flags = (
            Interpolation.BICUBIC
            | Interpolation.ACCURATE_RND
            | Interpolation.BITEXACT
            | Interpolation.FULL_CHR_H_INT
            | Interpolation.FULL_CHR_H_INP
        )

    def convert(self, frame: VideoFrame) -> Image.Image:
        """Returns a frame as a picture in RGB, of the frame's size."""
        from PIL import Image

        transparent = _is_transparent(frame.format)
        converted = self._reformatter.reformat(
            frame,
            format="rgba" if transparent else "rgb24",
            src_colorspace=_matrix(frame),
            interpolation=self._flags,
            threads=1,
        )
        pixels = np.ascontiguousarray(converted.to_ndarray(), np.uint8)
        picture = Image.fromarray(pixels)
        return on_white(picture) if transparent else picture


def on_white(picture: Image.Image) -> Image.Image:
    """Returns a picture in RGBA as it looks before white, in RGB."""
    from PIL import Image

    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _is_transparent(format: VideoFormat) -> bool:
    return format.has_palette or any(part.is_alpha for part in format.components)


def _matrix(frame: VideoFrame) -> Colorspace | None:
    """Returns the matrix of a frame that does not say its own, as players guess it; else None.

    BT.709 for high definition and BT.601 below.
    """
    from av.video.reformatter import Colorspace

    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    is_sd = frame.height <= _SD_HEIGHT and frame.width <= _SD_WIDTH
    return Colorspace.ITU601 if is_sd else Colorspace.ITU709
