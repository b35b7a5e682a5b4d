"""How a picture of one shape becomes a frame of another.

Called by the readers of pictures and of films, which so treat both alike. Pure: a picture and a
size in, a picture out. The invariant: a picture is filtered once, and one that has the size
already comes out as it went in.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

RESIZES = ("crop", "pad", "stretch")
"""Fill the frame and cut off what is over, show all with black bars, or change the proportions."""
Size = tuple[int, int]
Box = tuple[float, float, float, float]


def fitted(
    picture: Image.Image,
    size: Size,
    resize: str = "crop",
    pixel_aspect: Fraction = Fraction(1),
) -> Image.Image:
    """Brings a picture to a size, with Pillow's Lanczos filter over three lobes.

    Args:
        picture: of any size and mode that Pillow filters.
        size: (width, height) of the result.
        resize: one of `RESIZES`, where the shapes differ; cut or added about the centre.
        pixel_aspect: width of a pixel of the picture as it is shown, over its height.

    Returns:
        A picture of the size.
    """
    from PIL import Image

    lanczos = Image.Resampling.LANCZOS
    if resize == "crop":
        return picture.resize(size, lanczos, box=covering_box(picture.size, size, pixel_aspect))
    if resize == "stretch":
        return picture.resize(size, lanczos)
    inner = contained_size(picture.size, size, pixel_aspect)
    padded = Image.new(picture.mode, size)
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    padded.paste(picture.resize(inner, lanczos), (left, top))
    return padded


def covering_box(source: Size, size: Size, pixel_aspect: Fraction = Fraction(1)) -> Box:
    """Returns the largest part of a source, about its centre, that has the shape of a size."""
    shape = Fraction(*size) / pixel_aspect
    width, height = Fraction(source[0]), Fraction(source[1])
    if width / height >= shape:
        width = shape * height
    else:
        height = width / shape
    left, top = (source[0] - width) / 2, (source[1] - height) / 2
    return float(left), float(top), float(left + width), float(top + height)


def contained_size(source: Size, size: Size, pixel_aspect: Fraction = Fraction(1)) -> Size:
    """Returns the largest size within another that has the shape of a source; at least 1x1."""
    width = source[0] * pixel_aspect
    scale = min(size[0] / width, Fraction(size[1], source[1]))
    return max(1, round(width * scale)), max(1, round(source[1] * scale))
