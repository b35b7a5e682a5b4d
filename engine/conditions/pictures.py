"""Pictures that frames are made from: a file to pixels, and pixels to latents.

A render reads it before a runtime is opened, the engine where a job brings none, and it is encoded
on the thread that makes conditions. The invariant: a picture is read as what it is, bounded in
size, or refused in a line.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import InputError, reason_of
from giffusion.engine.media.colours import on_white
from giffusion.engine.media.files import check_file
from giffusion.engine.media.files import file_digest as digest_of
from giffusion.engine.media.fitting import fitted
from giffusion.engine.model import Model, latent_size
from giffusion.engine.runtimes.base import Graph, Runtime

if TYPE_CHECKING:
    from PIL import Image

MAX_PICTURE_PIXELS = 1 << 26
"""8192 pixels square, as the largest frames; more is taken for a decompression bomb."""
_EXPECTED = "a picture"
_KINDS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "GIF", "TIFF")


def read_picture(path: Path, size: tuple[int, int], resize: str = "crop") -> NDArray[np.uint8]:
    """Reads a picture, turned as its camera says and brought to a size.

    What is transparent becomes white.

    Args:
        path: the file; of an animation the first picture is read.
        size: (width, height) to bring it to.
        resize: what is done where its shape is another.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: it is missing, is no picture, or has more than `MAX_PICTURE_PIXELS`.
    """
    from PIL import ImageOps

    check_file(path, _EXPECTED)
    try:
        with _opened(path) as opened:
            if opened.width * opened.height > MAX_PICTURE_PIXELS:
                raise InputError(
                    f"{path} is {opened.width}x{opened.height}: expected a picture of at most "
                    f"{MAX_PICTURE_PIXELS} pixels; make it smaller"
                )
            turned = _as_rgba(ImageOps.exif_transpose(opened))
    except InputError:
        raise
    except Exception as error:  # what broken files raise differs from kind to kind
        reason = reason_of(error)
        raise InputError(f"{path} cannot be read as a picture: {reason}") from error
    return np.asarray(fitted(on_white(turned), size, resize), np.uint8)


def file_digest(path: Path) -> str:
    """Returns a file's sha256, by which a plan says which picture it was made from.

    Raises:
        InputError: the file cannot be read.
    """
    return digest_of(path, _EXPECTED)


def _opened(path: Path) -> Image.Image:
    from PIL import Image

    with warnings.catch_warnings():
        # Ours is the smaller limit, and the warning would be a line of its own.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=_KINDS)


def _as_rgba(picture: Image.Image) -> Image.Image:
    from PIL import Image

    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off above 8
        grey = np.asarray(picture).clip(0, 0xFFFF) / 0x101
        picture = Image.fromarray(grey.round().astype(np.uint8))
    return picture.convert("RGBA")


class PictureEncoder:
    """Pictures to what a model has for them, by a graph of it that is loaded at the first.

    Args:
        model: the model.
        runtime: what runs the graph.
        size: (width, height) of the pictures.
        stage: whose graph it is: `encode`, of which come latents, or `control`.
        batch: pictures of a run.
    """

    def __init__(
        self,
        model: Model,
        runtime: Runtime,
        size: tuple[int, int],
        stage: str = "encode",
        *,
        batch: int = 1,
    ) -> None:
        self._model, self._runtime, self._size, self._stage = model, runtime, size, stage
        self.batch = batch

    def encode(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Returns the latents, (4, h, w), of a picture, (H, W, 3) RGB."""
        return self.encode_together({0: picture})[0]

    def encode_together(
        self, pictures: Mapping[int, NDArray[np.uint8]]
    ) -> dict[int, NDArray[np.float32]]:
        """Returns the latents, (4, h, w) each, of the pictures of one run, (H, W, 3) RGB.

        Args:
            pictures: by their places in it, each below `batch`.
        """
        graph = self._run(pictures)
        return {place: graph.read("latents", place) for place in pictures}

    def run(self, picture: NDArray[np.uint8]) -> Graph:
        """Runs the graph on a picture, (H, W, 3) RGB; what comes of it is its output's entry 0."""
        return self._run({0: picture})

    def _run(self, pictures: Mapping[int, NDArray[np.uint8]]) -> Graph:
        for place, picture in pictures.items():
            self._graph.write("rgb", picture, place)
        self._graph.run()
        return self._graph

    def close(self) -> None:
        """Frees the graph."""
        if "_graph" in self.__dict__:
            self._graph.close()

    @cached_property
    def _graph(self) -> Graph:
        height, width = latent_size(self._size)
        path = self._model.graph_path(self._stage, self._runtime.graph_dtype)
        axes = {"images": self.batch, "h": height, "w": width}
        return self._runtime.load(path, self._model.spec(self._stage), axes)
