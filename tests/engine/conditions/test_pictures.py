"""Init pictures: what is read from files, what latents they become, and how they show in frames."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.conditions.pictures import (
    MAX_PICTURE_PIXELS,
    PictureEncoder,
    file_digest,
    read_picture,
)
from giffusion.engine.errors import InputError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from tests.conftest import OpenCpu

Pixels = NDArray[np.uint8]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE = (255, 255, 255)
SIZE = (256, 256)
"""The bundled model's."""
ORIENTATION = 0x0112


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_picture(path, (8, 8))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def smooth(width: int, height: int) -> Pixels:
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9), np.sin(y / 7), np.cos((x + y) / 11)]
    return (127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tiff", "gif"])
def test_a_picture_of_the_right_size_is_read_as_it_is(tmp_path: Path, kind: str) -> None:
    blocks = (
        np.array([RED, GREEN, BLUE, WHITE], np.uint8).reshape(2, 2, 3).repeat(8, 0).repeat(8, 1)
    )
    path = tmp_path / f"a.{kind}"
    Image.fromarray(blocks).save(path, lossless=True)  # which WebP alone has to be told
    read = read_picture(path, (16, 16))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, blocks)


@pytest.mark.parametrize("kind", ["jpg", "avif"])
def test_lossy_pictures_are_near(tmp_path: Path, kind: str) -> None:
    pixels = smooth(48, 32)
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", quality=95)
    error = read_picture(tmp_path / f"a.{kind}", (48, 32)).astype(float) - pixels
    assert np.abs(error).mean() < 6


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_every_kind_of_pixels_becomes_rgb(tmp_path: Path, mode: str) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(ramp.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(ramp).convert(mode).save(path)
    with Image.open(path) as file:
        assert file.mode == mode
    read = read_picture(path, (16, 16))
    expected = np.asarray(Image.fromarray(ramp).convert("1").convert("L")) if mode == "1" else ramp
    np.testing.assert_array_equal(read, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_as_its_camera_says(tmp_path: Path, orientation: int) -> None:
    """The upright picture is red above and blue below on the left, green on the right."""
    upright = np.zeros((24, 16, 3), np.uint8)
    upright[:12, :8], upright[12:, :8], upright[:, 8:] = RED, BLUE, GREEN
    # What a camera stores, from the meaning of the tag: where the first row and column are.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }
    image = Image.fromarray(np.ascontiguousarray(stored[orientation]))
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", (16, 24)), upright)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :2] = (*RED, 255)
    pixels[:2, 2:] = (*BLUE, 0)
    pixels[2:, 2:] = (0, 0, 0, 51)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png", (4, 4))
    assert {tuple(p) for p in read[:, :2].reshape(-1, 3)} == {RED}
    assert {tuple(p) for p in read[:2, 2:].reshape(-1, 3)} == {WHITE}
    # A fifth of black on white.
    assert {tuple(p) for p in read[2:, 2:].reshape(-1, 3)} == {(204, 204, 204)}
    palette = Image.fromarray(np.array([[0, 1]], np.uint8).repeat(2, 0), "P")
    palette.putpalette([*RED, *BLUE])
    palette.save(tmp_path / "a.gif", transparency=1)
    assert read_picture(tmp_path / "a.gif", (2, 2)).tolist() == [[[*RED], [*WHITE]]] * 2


@pytest.mark.parametrize(
    ("size", "is_wide"), [((32, 32), True), ((32, 32), False), ((32, 8), False)]
)
def test_a_picture_is_cut_about_its_centre(
    tmp_path: Path, size: tuple[int, int], is_wide: bool
) -> None:
    width, height = size
    pixels = np.zeros((height, 3 * width, 3), np.uint8)
    pixels[:] = BLUE
    pixels[:, width : 2 * width] = RED
    if not is_wide:
        pixels = np.zeros((3 * height, width, 3), np.uint8)
        pixels[:] = BLUE
        pixels[height : 2 * height] = RED
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert {tuple(p) for p in read_picture(tmp_path / "a.png", size).reshape(-1, 3)} == {RED}


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_picture_is_resized(tmp_path: Path, factor: int) -> None:
    large = Image.fromarray(smooth(64, 48)).resize(
        (64 * factor, 48 * factor), Image.Resampling.BICUBIC
    )
    large.save(tmp_path / "a.png")
    error = read_picture(tmp_path / "a.png", (64, 48)).astype(float) - smooth(64, 48)
    assert np.abs(error[2:-2, 2:-2]).mean() < 2
    assert read_picture(tmp_path / "a.png", (1, 1)).shape == (1, 1, 3)


def test_of_an_animation_the_first_picture_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], duration=100)
        read = read_picture(tmp_path / name, (8, 8)).reshape(-1, 3).astype(int)
        assert np.abs(read - RED).max() <= 8


@pytest.mark.parametrize("size", [(8193, 8192), (30_000, 30_000)])
def test_a_huge_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """The second is one that Pillow itself takes for an attack."""
    path = tmp_path / "a.png"
    Image.new("1", (8, 8)).save(path)
    content = path.read_bytes()
    header = b"IHDR" + b"".join(side.to_bytes(4, "big") for side in size) + content[24:29]
    checksum = zlib.crc32(header).to_bytes(4, "big")
    path.write_bytes(content[:12] + header + checksum + content[33:])
    assert str(path) in refusal(path)


def test_no_warning_is_shown_for_a_large_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert refusal(path) == (
            f"{path} is 10000x10000: expected a picture of at most {MAX_PICTURE_PIXELS} pixels; "
            "make it smaller"
        )
    assert not shown


def test_what_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.png"
    assert refusal(missing) == f"{missing} cannot be read: No such file or directory"
    assert refusal(tmp_path) == f"{tmp_path} is no file: expected a picture"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert refusal(pipe) == f"{pipe} is no file: expected a picture"
    assert refusal(Path("a\0.png")) == "'a\\x00.png' is no path: embedded null byte"
    text = tmp_path / "a.png"
    text.write_text("no picture")
    assert refusal(text).startswith(f"{text} cannot be read as a picture: cannot identify")
    # Formats that may run programs or open other files are not tried.
    post_script = tmp_path / "a.eps"
    Image.new("RGB", (4, 4)).save(post_script)
    assert refusal(post_script).startswith(f"{post_script} cannot be read as a picture")


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "avif", "bmp", "gif", "tiff"])
def test_a_picture_that_is_cut_off_is_told_in_a_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for share in (0.1, 0.3, 0.6):
        path.write_bytes(content[: int(len(content) * share)])
        assert refusal(path).startswith(f"{path} cannot be read as a picture: ")


def test_a_pictures_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"any bytes")
    assert file_digest(path) == hashlib.sha256(b"any bytes").hexdigest()
    with pytest.raises(InputError, match=r"none\.png cannot be read: No such file or directory"):
        file_digest(tmp_path / "none.png")
    with pytest.raises(InputError, match="is no file: expected a picture"):
        file_digest(tmp_path)
    with pytest.raises(InputError, match="is no file: expected a picture"):
        file_digest(Path("/dev/zero"))
    with pytest.raises(InputError, match="is no path: embedded null byte"):
        file_digest(Path("a\0b"))


def test_the_graph_is_loaded_at_the_first_picture(mini: Model) -> None:
    runtime = FakeRuntime()
    unused = PictureEncoder(mini, runtime, (32, 64))
    unused.close()
    encoder = PictureEncoder(mini, runtime, (32, 64))
    latents = [encoder.encode(np.full((64, 32, 3), grey, np.uint8)) for grey in (0, 128, 0)]
    encoder.close()
    assert [array.shape for array in latents] == [(4, 8, 4)] * 3
    assert [float(array.mean()) for array in latents] == [-4, 0, -4]
    assert runtime.num_runs["encode"] == 3


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return smooth(*SIZE)


@pytest.fixture(scope="module")
def encoder(mini: Model, open_cpu: OpenCpu) -> Iterator[PictureEncoder]:
    encoder = PictureEncoder(mini, open_cpu("onnxruntime", "fp32"), SIZE)
    yield encoder
    encoder.close()


def test_latents_are_those_of_diffusers(
    mini: Model, encoder: PictureEncoder, picture: Pixels
) -> None:
    vae = AutoencoderTiny.from_pretrained(mini.folder / "vae", low_cpu_mem_usage=False)
    pixels = torch.from_numpy(picture.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = vae.encode(pixels).latents[0] * vae.config.scaling_factor
    latents = encoder.encode(picture)
    assert latents.dtype == np.float32
    np.testing.assert_allclose(latents, expected.numpy(), rtol=0, atol=1e-4)


class Sink:
    """Keeps what it is given."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.frames: list[Pixels] = []

    def write(self, index: int, frame: Frame) -> None:
        assert isinstance(frame, np.ndarray)
        self.frames.append(frame)


def rendered(engine: Engine, text: str = "0: a dog", **values: object) -> Pixels:
    settings = replace(RenderSettings(steps=4, seed=3, guidance=2.0), **values)  # type: ignore[arg-type]
    sink = Sink()
    job = engine.submit("job", Timeline.from_text(text, settings), settings, sink)
    engine.run()
    assert job.error is None
    return sink.frames[0]


def psnr(picture: Pixels, other: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((picture.astype(float) - other) ** 2)))


@pytest.fixture(scope="module")
def engine(mini: Model, open_cpu: OpenCpu) -> Iterator[Engine]:
    with Engine(mini, open_cpu("onnxruntime", "fp32"), size=SIZE, batch=2) as engine:
        yield engine


@pytest.fixture(scope="module")
def drawn(engine: Engine) -> Pixels:
    """A picture of the kind that the model knows."""
    return rendered(engine, "0: a lion", steps=8, seed=11)


def test_latents_become_the_picture_again(
    mini: Model, open_cpu: OpenCpu, encoder: PictureEncoder, drawn: Pixels
) -> None:
    runtime = open_cpu("onnxruntime", "fp32")
    axes = {"images": 1, "h": SIZE[1] // 8, "w": SIZE[0] // 8}
    decode = runtime.load(mini.graph_path("decode"), mini.spec("decode"), axes)
    decode.write("latents", encoder.encode(drawn), 0)
    decode.run()
    assert psnr(decode.read("rgb", 0), drawn) > 25
    decode.close()


@pytest.mark.parametrize("sampler", ["dpm++2m", "euler_ads", "pndms", "lcm"])
def test_the_picture_shows_the_more_the_lower_the_strength(
    engine: Engine, drawn: Pixels, tmp_path: Path, sampler: str
) -> None:
    path = tmp_path / "drawn.png"
    Image.fromarray(drawn).save(path)
    frames = {
        strength: rendered(engine, image=str(path), strength=strength, sampler=sampler)
        for strength in (0.25, 0.5, 0.75, 1.0)
    }
    likeness = [psnr(drawn, frame) for frame in frames.values()]
    assert likeness[:3] == sorted(likeness[:3], reverse=True)
    # Measured: 13.9 to 14.5 at a quarter, and at most 10.2 at three quarters and from noise alone.
    assert likeness[0] > 13
    assert max(likeness[2:]) < 12
    np.testing.assert_array_equal(frames[1.0], rendered(engine, sampler=sampler))
    # Half is what a picture gets where nothing is said.
    unsaid = rendered(engine, image=str(path), sampler=sampler)
    np.testing.assert_array_equal(unsaid, frames[0.5])
