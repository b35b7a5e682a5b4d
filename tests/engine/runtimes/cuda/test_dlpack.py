"""Frames in memory of our own, read by NumPy, PyTorch and FFmpeg, and given back every time."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from giffusion.engine.frames import PixelFormat
from giffusion.engine.runtimes.cuda import dlpack
from giffusion.engine.runtimes.cuda.dlpack import CPU, DlpackFrame

WIDTH, HEIGHT = 64, 48


class Owner:
    """Bytes that a frame is over; its end can be watched."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        generator = np.random.default_rng(7)
        self.bytes: NDArray[np.uint8] = generator.integers(0, 256, shape, np.uint8)

    def frame(self) -> DlpackFrame:
        return DlpackFrame(self.bytes.ctypes.data, self.bytes.shape, CPU, self)


@pytest.fixture(autouse=True)
def _nothing_stays_lent() -> Iterator[None]:
    gc.collect()
    before = set(dlpack._lent)
    yield
    gc.collect()
    assert set(dlpack._lent) == before


def alive(reference: weakref.ref[Owner]) -> bool:
    gc.collect()
    return reference() is not None


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_numpy_reads_it_in_place_and_keeps_the_owner(pixel_format: PixelFormat) -> None:
    owner = Owner(pixel_format.shape((WIDTH, HEIGHT)))
    expected, watched = owner.bytes.copy(), weakref.ref(owner)
    address = owner.bytes.ctypes.data
    array = np.from_dlpack(owner.frame())
    del owner
    assert alive(watched)
    assert array.ctypes.data == address
    np.testing.assert_array_equal(array, expected)
    part = array[3:5]
    del array
    assert alive(watched)
    np.testing.assert_array_equal(part, expected[3:5])
    del part
    assert not alive(watched)


def test_torch_reads_it_too() -> None:
    owner = Owner((6, 4, 3))
    expected, watched = owner.bytes.copy(), weakref.ref(owner)
    tensor = torch.utils.dlpack.from_dlpack(owner.frame())
    del owner
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert alive(watched)
    del tensor
    assert not alive(watched)


def nv12_planes(frame: DlpackFrame) -> tuple[DlpackFrame, DlpackFrame]:
    return frame[:HEIGHT], frame[HEIGHT:]


def test_ffmpeg_takes_both_planes_of_a_frame() -> None:
    owner = Owner(PixelFormat.NV12.shape((WIDTH, HEIGHT)))
    expected, watched = owner.bytes.copy(), weakref.ref(owner)
    picture = av.VideoFrame.from_dlpack(nv12_planes(owner.frame()), format="nv12")
    del owner
    assert (picture.width, picture.height, picture.format.name) == (WIDTH, HEIGHT, "nv12")
    assert alive(watched)
    np.testing.assert_array_equal(picture.to_ndarray(), expected)
    del picture
    assert not alive(watched)


def test_ffmpegs_own_threads_give_it_back(tmp_path: object) -> None:
    size = (256, 256)
    with av.open(f"{tmp_path}/out.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "nv12"
        watched = []
        for number in range(12):
            owner = Owner(PixelFormat.NV12.shape(size))
            frame = owner.frame()
            picture = av.VideoFrame.from_dlpack((frame[:256], frame[256:]), format="nv12")
            picture.pts = number
            watched.append(weakref.ref(owner))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    del owner, frame, picture, stream, container
    assert not [reference for reference in watched if alive(reference)]


def test_a_consumer_that_refuses_a_frame_gives_it_back() -> None:
    owner = Owner((HEIGHT, WIDTH))
    watched, frame = weakref.ref(owner), owner.frame()
    with pytest.raises(ValueError, match="plane 1 must have shape"):
        av.VideoFrame.from_dlpack((frame, frame), format="nv12")
    with pytest.raises(TypeError, match="DLPack capsule"):
        av.VideoFrame.from_dlpack((frame, object()), format="nv12")
    del owner, frame
    assert not alive(watched)


def test_a_capsule_that_nobody_reads_lets_go() -> None:
    owner = Owner((2, 4))
    watched = weakref.ref(owner)
    capsule = owner.frame().__dlpack__()
    del owner
    assert alive(watched)
    assert 'object "dltensor"' in repr(capsule)
    del capsule
    assert not alive(watched)


def test_it_may_be_given_back_from_another_thread() -> None:
    owner = Owner((2, 4))
    watched = weakref.ref(owner)
    held = [np.from_dlpack(owner.frame())]
    del owner
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert not alive(watched)


def test_slices_are_rows_over_the_same_memory() -> None:
    owner = Owner((6, 4, 3))
    frame = owner.frame()
    for rows in (slice(None), slice(2, 5), slice(-2, None), slice(4, 2)):
        part = frame[rows]
        assert part.shape == owner.bytes[rows].shape
        if part.shape[0]:
            np.testing.assert_array_equal(np.from_dlpack(part), owner.bytes[rows])
    np.testing.assert_array_equal(np.from_dlpack(frame[1:][1:]), owner.bytes[2:])
    with pytest.raises(ValueError, match="step 1: got 2"):
        frame[::2]


def test_copies_and_other_devices_are_refused() -> None:
    frame = Owner((2, 4)).frame()
    assert frame.__dlpack_device__() == CPU
    for asked in ({"copy": True}, {"dl_device": (2, 0)}):
        with pytest.raises(BufferError, match=r"where it is, on device \(1, 0\)"):
            frame.__dlpack__(**asked)
    assert frame.__dlpack__(stream=3, max_version=(1, 1), dl_device=CPU, copy=False) is not None
