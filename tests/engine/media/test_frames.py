"""Frames of films as pixels: colours, depth, transparency, turns, pixels that are not square."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.conditions.pictures import read_picture
from giffusion.engine.media.index import film_index
from giffusion.engine.media.probe import film_info
from giffusion.engine.media.video import FilmCut, FilmReader
from tests.engine.media.films import write_film

Pixels = NDArray[np.uint8]
COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [200, 120, 40], [255, 255, 255],
     [128, 128, 128], [0, 0, 0]],
    np.uint8,
)  # fmt: skip
# Kr and Kb: ITU-R BT.601, BT.709, BT.2020.
WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
# AVColorSpace of ITU-T H.273.
TAGS = {"601": 6, "709": 1, "2020": 9, None: 2}
BLOCK = 16


def first(path: Path, size: tuple[int, int], resize: str = "crop") -> Pixels:
    reader = FilmReader(FilmCut(path, resize=resize), size, Fraction(24))
    try:
        return reader.read(0)
    finally:
        reader.close()


def components(weights: str, depth: int, full: bool) -> NDArray[np.int64]:
    """Returns Y, Cb, Cr of `COLOURS`, (8, 3), by the formula of H.273."""
    kr, kb = WEIGHTS[weights]
    r, g, b = COLOURS.T / 255
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale = 1 << (depth - 8)
    if full:
        top = (1 << depth) - 1
        parts = y * top, cb * top + 128 * scale, cr * top + 128 * scale
    else:
        parts = (219 * y + 16) * scale, (224 * cb + 128) * scale, (224 * cr + 128) * scale
    rounded = np.clip(np.rint(np.stack(parts, -1)), 0, (1 << depth) - 1)
    return np.asarray(rounded, np.int64)


def colour_film(
    path: Path, *, weights: str, tag: str | None, depth: int = 8, full: bool = False, scale: int = 1
) -> Path:
    """Makes a film of the colours in blocks, side by side, without a converter of FFmpeg's."""
    name = "yuv420p" if depth == 8 else "yuv420p10le"
    width, height = BLOCK * len(COLOURS) * scale, BLOCK * scale
    frame = av.VideoFrame(width, height, name)
    dtype = np.uint8 if depth == 8 else np.uint16
    for plane, values in zip(frame.planes, components(weights, depth, full).T, strict=True):
        row = np.repeat(values.astype(dtype), plane.width // len(COLOURS))
        line = np.zeros(plane.line_size // np.dtype(dtype).itemsize, dtype)
        line[: plane.width] = row
        plane.update(np.tile(line, (plane.height, 1)).tobytes())

    def set_up(stream: VideoStream) -> None:
        context = stream.codec_context
        context.colorspace = TAGS[tag]
        context.color_range = ColorRange.JPEG if full else ColorRange.MPEG

    frame.colorspace = TAGS[tag]
    frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG
    return write_film(path, [frame], codec="ffv1", pixel_format=name, set_up=set_up)


def blocks(pixels: Pixels) -> NDArray[np.int64]:
    centres = [(2 * k + 1) * pixels.shape[1] // (2 * len(COLOURS)) for k in range(len(COLOURS))]
    return pixels[pixels.shape[0] // 2, centres].astype(np.int64)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("weights", ["601", "709", "2020"])
def test_colours_are_those_that_the_file_says(
    tmp_path: Path, weights: str, depth: int, full: bool
) -> None:
    path = colour_film(tmp_path / "a.mkv", weights=weights, tag=weights, depth=depth, full=full)
    found = blocks(first(path, (BLOCK * len(COLOURS), BLOCK)))
    np.testing.assert_allclose(found, COLOURS, rtol=0, atol=2)


@pytest.mark.parametrize(("scale", "weights"), [(1, "601"), (10, "709")])
def test_colours_are_guessed_by_the_size_where_nothing_is_said(
    tmp_path: Path, scale: int, weights: str
) -> None:
    path = colour_film(tmp_path / "a.mkv", weights=weights, tag=None, scale=scale)
    found = blocks(first(path, (BLOCK * len(COLOURS), BLOCK)))
    np.testing.assert_allclose(found, COLOURS, rtol=0, atol=2)


@pytest.mark.parametrize(
    ("pixel_format", "codec"),
    [
        *((name, "ffv1") for name in ("gray", "yuv444p", "yuv422p", "bgr0")),
        ("rgb24", "png"),
        ("rgb24", "libx264rgb"),
        ("monob", "png"),
    ],
)
def test_other_kinds_of_pixels(tmp_path: Path, pixel_format: str, codec: str) -> None:
    picture = np.full((16, 32, 3), 255 if pixel_format == "monob" else 200, np.uint8)
    if pixel_format not in ("gray", "monob"):
        picture[:, 16:] = (200, 40, 90)
    frame = av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixel_format)
    name = "a.mkv" if codec == "ffv1" else "a.mov"
    path = write_film(tmp_path / name, [frame], codec=codec, pixel_format=pixel_format)
    found = first(path, (32, 16)).astype(int)
    np.testing.assert_allclose(found[:, :14], picture[:, :14], rtol=0, atol=3)
    np.testing.assert_allclose(found[:, 18:], picture[:, 18:], rtol=0, atol=3)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    picture = np.zeros((16, 48, 4), np.uint8)
    picture[:, :16] = (255, 0, 0, 255)
    picture[:, 16:32] = (0, 0, 255, 0)
    picture[:, 32:] = (0, 0, 0, 51)
    frame = av.VideoFrame.from_ndarray(picture, "rgba")
    path = write_film(tmp_path / "a.mov", [frame], codec="qtrle", pixel_format="argb")
    found = first(path, (48, 16))
    assert [tuple(found[8, x].tolist()) for x in (8, 24, 40)] == [
        (255, 0, 0),
        (255, 255, 255),
        (204, 204, 204),
    ]
    path = tmp_path / "a.gif"
    palette = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(8, 0).repeat(8, 1), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(path, save_all=True, append_images=[palette], transparency=1, duration=100)
    assert first(path, (16, 8))[4, [4, 12]].tolist() == [[255, 0, 0], [255, 255, 255]]


def corners() -> Pixels:
    """Draws what looks different however it is turned or mirrored, 48 x 32."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:], pixels[16:, :24] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    return pixels


UPRIGHT = corners()
TURNS: dict[tuple[int, bool], Callable[[Pixels], Pixels]] = {
    (0, False): lambda p: p,
    (90, False): lambda p: np.rot90(p, 1),
    (180, False): lambda p: np.rot90(p, 2),
    (270, False): lambda p: np.rot90(p, 3),
    (0, True): lambda p: p[:, ::-1],
}


@pytest.mark.parametrize(("degrees", "mirrored"), TURNS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_film_stands_as_its_camera_says(
    tmp_path: Path, name: str, degrees: int, mirrored: bool
) -> None:
    """PyAV's angle is counter-clockwise."""

    def set_up(stream: VideoStream) -> None:
        stream.set_display_rotation(degrees, hflip=mirrored)

    frame = av.VideoFrame.from_ndarray(UPRIGHT, "rgb24")
    path = write_film(
        tmp_path / name, [frame], options={"qp": "1"}, pixel_format="yuv444p", set_up=set_up
    )
    expected = np.ascontiguousarray(TURNS[degrees, mirrored](UPRIGHT))
    info = film_info(film_index(path))
    assert info.size == (expected.shape[1], expected.shape[0])
    assert info.rotation == -degrees % 360
    error = first(path, info.size).astype(int) - expected
    assert np.abs(error).mean() < 4


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(2), (96, 32)), (Fraction(1, 2), (48, 64)), (Fraction(4, 3), (64, 32))],
)
def test_pixels_that_are_not_square(
    tmp_path: Path, aspect: Fraction, size: tuple[int, int]
) -> None:
    def set_up(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    path = write_film(tmp_path / "a.mp4", [UPRIGHT], options={"qp": "1"}, set_up=set_up)
    assert film_info(film_index(path)).size == size
    # In its own shape nothing is cut off and no bar is added.
    whole = np.asarray(Image.fromarray(UPRIGHT).resize(size, Image.Resampling.LANCZOS)).astype(int)
    for resize in ("crop", "pad", "stretch"):
        assert np.abs(first(path, size, resize) - whole).mean() < 10


def test_pixels_that_are_not_square_are_turned_too(tmp_path: Path) -> None:
    def set_up(stream: VideoStream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(90)

    path = write_film(tmp_path / "a.mp4", [UPRIGHT], options={"qp": "1"}, set_up=set_up)
    assert film_info(film_index(path)).size == (32, 96)
    expected = np.rot90(np.repeat(UPRIGHT, 2, axis=1)).astype(int)
    assert np.abs(first(path, (32, 96), "pad") - expected).mean() < 10


@pytest.mark.parametrize("resize", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 32), (40, 24), (7, 9)])
def test_a_film_fits_as_a_picture_does(tmp_path: Path, resize: str, size: tuple[int, int]) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    frame = av.VideoFrame.from_ndarray(UPRIGHT, "rgb24")
    path = write_film(tmp_path / "a.mov", [frame], codec="png", pixel_format="rgb24")
    expected = read_picture(tmp_path / "a.png", size, resize)
    np.testing.assert_array_equal(first(path, size, resize), expected)


def test_a_frame_of_the_right_size_is_not_filtered(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    frame: Any = av.VideoFrame.from_ndarray(noise, "rgb24")
    path = write_film(tmp_path / "a.mov", [frame], codec="png", pixel_format="rgb24")
    np.testing.assert_array_equal(first(path, (48, 32)), noise)
