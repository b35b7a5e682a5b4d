"""NV12 as the decode graph makes it, against FFmpeg's own conversions and through the encoders."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from numpy.typing import NDArray

from giffusion.engine.encode.containers import MP4, open_video
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import RgbFrame, VideoSpec
from giffusion.engine.encode.video import Mp4Encoder
from giffusion.export.nv12 import nv12 as in_graph
from tests.engine.encode.pictures import HEIGHT, SIZE, WIDTH
from tests.engine.encode.pictures import rgb_picture as smooth

SOFTWARE = ("libx264", "libsvtav1")
Planes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
# swscale's SWS_ACCURATE_RND and SWS_FULL_CHR_H_INP, for which PyAV has no names: without them it
# rounds down and leaves every other pixel out of the chroma.
EXACT = 0x40000 | 0x4000


def reference(rgb: RgbFrame) -> Planes:
    """Returns Y, Cb and Cr, unrounded: ITU-R BT.709-6, section 3, chroma sited left."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64) / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    cb, cr = (blue - luma) / 1.8556, (red - luma) / 1.5748
    return 16 + 219 * luma, 128 + 224 * _sited_left(cb), 128 + 224 * _sited_left(cr)


def _sited_left(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    rows = (plane[0::2] + plane[1::2]) / 2
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    columns = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return np.asarray(columns[:, 0::2])


def nv12(rgb: RgbFrame) -> NDArray[np.uint8]:
    """Rounds the reference to a frame as the encoders take it."""
    luma, cb, cr = (np.floor(plane + 0.5).astype(np.uint8) for plane in reference(rgb))
    return np.concatenate([luma, np.stack([cb, cr], -1).reshape(len(cb), -1)])


def planes_of(picture: NDArray[np.uint8]) -> Planes:
    """Splits (H·3/2, W) of NV12 into Y, Cb and Cr."""
    height = len(picture) * 2 // 3
    chroma = picture[height:].astype(np.float64)
    return picture[:height].astype(np.float64), chroma[:, 0::2], chroma[:, 1::2]


def by_swscale(rgb: RgbFrame) -> Planes:
    """FFmpeg's default: chroma in the middle of its four pixels, not left."""
    picture = VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="nv12",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.MPEG,
        interpolation=int(Interpolation.BICUBIC) | EXACT,
    )
    return planes_of(picture.to_ndarray().astype(np.uint8, copy=False))


def by_filter(rgb: RgbFrame, kernel: str = "area") -> Planes:
    """The same with chroma sited left, which PyAV offers through libavfilter alone."""
    frame = VideoFrame.from_ndarray(rgb, format="rgb24")
    frame.pts = 0
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 24)
    )
    scale = graph.add(
        "scale",
        f"flags={kernel}+accurate_rnd+full_chroma_inp:out_chroma_loc=left:"
        "in_range=full:out_range=limited:out_color_matrix=bt709",
    )
    form, sink = graph.add("format", "pix_fmts=nv12"), graph.add("buffersink")
    for first, second in ((source, scale), (scale, form), (form, sink)):
        first.link_to(second)
    graph.configure()
    graph.push(frame)
    picture = graph.pull()
    assert isinstance(picture, VideoFrame)
    return planes_of(picture.to_ndarray().astype(np.uint8, copy=False))


def constant(rgb: tuple[int, int, int]) -> RgbFrame:
    return np.full((HEIGHT, WIDTH, 3), rgb, np.uint8)


def random(seed: int) -> RgbFrame:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


COLOURS = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "skin": (200, 130, 90),
    "sea": (7, 99, 180),
}
PICTURES = {
    **{name: constant(rgb) for name, rgb in COLOURS.items()},
    "smooth": smooth(0),
    "random": random(0),
    "random again": random(1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_decode_graphs_frame_is_the_rounded_reference(name: str) -> None:
    """So what is said of the reference below is said of the graph."""
    levels = torch.from_numpy(np.moveaxis(PICTURES[name], -1, 0)[None].copy())
    assert np.array_equal(in_graph(levels)[0].numpy(), nv12(PICTURES[name]))


@pytest.mark.parametrize("name", PICTURES)
def test_every_pixel_is_ffmpegs_own_where_its_kernel_is_the_same(name: str) -> None:
    """`scale` with area averaging and chroma left has our kernel, but for the first column.

    There it has no left neighbour to weigh and leaves that out, where ours repeats the edge. What
    it rounds to is within 0.01 of the nearest number.
    """
    for found, expected in zip(by_filter(PICTURES[name]), reference(PICTURES[name]), strict=True):
        assert np.abs(found - expected)[:, 1:].max() <= 0.51
    luma, *chroma = zip(by_filter(PICTURES[name]), reference(PICTURES[name]), strict=True)
    assert np.abs(luma[0] - luma[1]).max() <= 0.51
    if not name.startswith("random"):
        assert all(np.abs(found - expected).max() <= 1 for found, expected in chroma)


@pytest.mark.parametrize("name", PICTURES)
def test_luma_is_within_one_of_swscales(name: str) -> None:
    assert np.abs(by_swscale(PICTURES[name])[0] - nv12(PICTURES[name])[:HEIGHT]).max() <= 1


@pytest.mark.parametrize("name", COLOURS)
def test_the_chroma_of_a_colour_is_swscales(name: str) -> None:
    picture = PICTURES[name]
    for found, expected in zip(by_swscale(picture), planes_of(nv12(picture)), strict=True):
        assert np.array_equal(found, expected)


def test_swscale_sites_chroma_elsewhere_by_default() -> None:
    """Which is why it is no reference for pictures with edges, and was a fault of files before."""
    found, expected = by_swscale(PICTURES["random"])[1], reference(PICTURES["random"])[1]
    assert np.abs(found - expected).max() > 10


@pytest.mark.parametrize("encoder", SOFTWARE)
@pytest.mark.parametrize("name", COLOURS)
def test_a_colour_comes_back_as_it_was(tmp_path: Path, encoder: str, name: str) -> None:
    """A swapped plane, another range or another matrix would show."""
    decoded = round_trip(tmp_path, encoder, [nv12(constant(COLOURS[name]))])
    assert np.abs(decoded[0].astype(int) - COLOURS[name]).max() <= 4


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_pictures_come_back_in_order_and_alike(tmp_path: Path, encoder: str) -> None:
    sources = [smooth(index) for index in range(20)]
    decoded = round_trip(tmp_path, encoder, [nv12(source) for source in sources])
    assert len(decoded) == 20
    for index, picture in enumerate(decoded):
        assert psnr(picture, sources[index]) > 35
        assert psnr(picture, sources[index]) > psnr(picture, smooth(index + 1))


@pytest.mark.parametrize("encoder", SOFTWARE)
def test_what_is_decoded_is_the_nv12_that_was_given(tmp_path: Path, encoder: str) -> None:
    """In the encoder's own format, so that no conversion hides a fault."""
    source = nv12(smooth(0))
    write(tmp_path / "a.mp4", encoder, [source] * 3)
    with open_video(tmp_path / "a.mp4", MP4) as container:
        for frame in container.decode(video=0):
            found = frame.to_ndarray().reshape(-1)
            luma, cb, cr = np.split(found, [WIDTH * HEIGHT, WIDTH * HEIGHT * 5 // 4])
            for plane, expected in zip((luma, cb, cr), planes_of(source), strict=True):
                assert psnr(plane, expected.reshape(-1)) > 38


def write(path: Path, encoder: str, frames: list[NDArray[np.uint8]]) -> None:
    choice = EncoderChoice(ENCODERS[encoder])
    opened = Mp4Encoder(path, VideoSpec(SIZE, Fraction(24), len(frames), "", choice))
    for frame in frames:
        opened.write(frame)
    opened.finish()


def round_trip(folder: Path, encoder: str, frames: list[NDArray[np.uint8]]) -> list[RgbFrame]:
    write(folder / "a.mp4", encoder, frames)
    with open_video(folder / "a.mp4", MP4) as container:
        return [_rgb(frame) for frame in container.decode(video=0)]


def _rgb(frame: VideoFrame) -> RgbFrame:
    picture = frame.reformat(
        format="rgb24",
        src_colorspace=Colorspace.ITU709,
        dst_colorspace=Colorspace.ITU709,
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
    )
    return picture.to_ndarray().astype(np.uint8, copy=False)


def psnr(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))
