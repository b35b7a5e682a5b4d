"""Frames become FFmpeg's pictures through DLPack: the same bytes, in the same memory."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.pictures import PictureMaker
from giffusion.engine.encode.probe import probe_encoder
from giffusion.engine.encode.video import Mp4Encoder
from giffusion.engine.errors import RenderError
from giffusion.engine.frames import Frame
from giffusion.engine.runtimes.cuda import bindings
from giffusion.engine.runtimes.cuda.dlpack import CPU, DlpackFrame

WIDTH, HEIGHT = SIZE = (48, 32)


def noise(seed: int = 0) -> NDArray[np.uint8]:
    shape = (HEIGHT * 3 // 2, WIDTH)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Owner(np.ndarray):
    """An array whose end can be seen."""


def owned(seed: int = 0) -> Owner:
    return noise(seed).view(Owner)


def lent(array: NDArray[np.uint8], device: tuple[int, int] = CPU) -> DlpackFrame:
    """Returns an array as a device's frames are: rows that are lent through DLPack alone."""
    return DlpackFrame(array.ctypes.data, array.shape, device, array)


def makers(encoder: str) -> PictureMaker:
    return PictureMaker(EncoderChoice(ENCODERS[encoder]), SIZE)


@pytest.mark.parametrize("as_given", [noise, lambda: lent(noise())], ids=["array", "lent"])
def test_nv12_through_dlpack_is_the_picture_that_a_copy_makes(
    as_given: Callable[[], Frame],
) -> None:
    frame = noise()
    found = makers("libx264").picture(as_given())
    expected = VideoFrame.from_ndarray(frame, format="nv12")
    assert (found.format.name, found.width, found.height) == ("nv12", WIDTH, HEIGHT)
    assert np.array_equal(found.to_ndarray(), expected.to_ndarray())


def test_nothing_is_copied() -> None:
    frame = noise()
    picture = makers("libx264").picture(frame)
    frame[:] = 255 - frame
    assert np.array_equal(picture.to_ndarray(), frame)


def test_planar_chroma_is_split_by_its_columns() -> None:
    frame = noise()
    found = makers("libsvtav1").picture(frame)
    expected = VideoFrame.from_ndarray(frame, format="nv12").reformat(format="yuv420p")
    assert found.format.name == "yuv420p"
    assert np.array_equal(found.to_ndarray(), expected.to_ndarray())


@pytest.mark.parametrize("wrap", [lambda array: array, lent], ids=["array", "lent"])
def test_a_picture_keeps_its_memory_and_gives_it_back(
    wrap: Callable[[NDArray[np.uint8]], Frame],
) -> None:
    frame = owned()
    copy, watched = np.array(frame), weakref.ref(frame)
    picture = makers("libx264").picture(wrap(frame))
    del frame
    gc.collect()
    assert watched() is not None
    assert np.array_equal(picture.to_ndarray(), copy)
    del picture
    gc.collect()
    assert watched() is None


def test_an_encoder_lets_go_of_every_frame(tmp_path: Path) -> None:
    choice = EncoderChoice(ENCODERS["libx264"])
    encoder = Mp4Encoder(tmp_path / "a.mp4", VideoSpec(SIZE, Fraction(24), 30, "", choice))
    frames = [owned(seed) for seed in range(30)]
    watched = [weakref.ref(frame) for frame in frames]
    for frame in frames:
        encoder.write(lent(frame))
    del frames, frame
    encoder.finish()
    gc.collect()
    assert [reference() for reference in watched] == [None] * 30


def test_a_frame_on_a_device_needs_its_context_current_in_the_thread_that_encodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a driver it ends in FFmpeg's refusal, with the frame given back."""
    if probe_encoder("h264_nvenc").works:
        pytest.skip("this machine has NVENC, which `tests/gpu` tries")
    current: list[tuple[int, int]] = []

    class Device:
        def __init__(self, ordinal: int) -> None:
            self.ordinal = ordinal

        def make_current(self) -> None:
            current.append((self.ordinal, threading.get_ident()))

    monkeypatch.setattr(bindings, "open_cuda", Device)
    frame = owned()
    watched = weakref.ref(frame)
    choice = EncoderChoice(ENCODERS["h264_nvenc"], on_device=True)
    encoder = Mp4Encoder(tmp_path / "a.mp4", VideoSpec(SIZE, Fraction(24), 1, "", choice))
    with pytest.raises(RenderError, match="h264_nvenc cannot start: ") as caught:
        encoder.write(lent(frame, (2, 1)))
    encoder.discard()
    assert current == [(1, threading.get_ident())]
    del frame, caught
    gc.collect()
    assert watched() is None


@pytest.mark.parametrize(
    ("encoder", "on_device", "expected"),
    [
        ("libx264", False, "nv12"),
        ("libsvtav1", False, "yuv420p"),
        ("h264_nvenc", False, "nv12"),
        ("h264_nvenc", True, "cuda"),
    ],
)
def test_an_encoder_is_opened_for_the_format_of_its_pictures(
    encoder: str, on_device: bool, expected: str
) -> None:
    choice = EncoderChoice(ENCODERS[encoder], on_device=on_device)
    assert PictureMaker(choice, SIZE).format == expected
