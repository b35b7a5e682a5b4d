"""The encoding thread: order, backlog, failures and endings, with an encoder told what to do."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.encode.encoders import EncoderChoice, EncoderInfo
from giffusion.engine.encode.formats import Progress, VideoSpec
from giffusion.engine.encode.output import OutputFile
from giffusion.engine.encode.writer import MAX_BACKLOG, Writer
from giffusion.engine.errors import DiskFullError, OutputError, RenderError
from giffusion.engine.frames import DeviceFrame, Frame, PixelFormat

FRAME = np.zeros((2, 4, 3), np.uint8)
RGB = EncoderChoice(EncoderInfo("raw", "a test", PixelFormat.RGB24))
NV12 = EncoderChoice(EncoderInfo("raw12", "a test", PixelFormat.NV12))
ON_DEVICE = EncoderChoice(NV12.info, on_device=True)


class OffHost:
    """A frame whose memory is not an array's, as one on a device is."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def __getitem__(self, rows: slice) -> DeviceFrame:
        return OffHost(self.array[rows])

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        return self.array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


class FakeEncoder:
    """Writes a frame's first value as a byte; can be held, can fail at a frame or the end."""

    def __init__(self, path: Path, *, fail_at: int | str | None = None) -> None:
        self.path = path
        self.frames: list[int] = []
        self.given: list[Frame] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail_at = fail_at
        self.error: BaseException = OSError(28, "No space left on device")
        self.num_discards = 0

    def write(self, frame: Frame) -> None:
        self.gate.wait(30)
        if self.fail_at == len(self.frames):
            raise self.error
        self.given.append(frame)
        self.frames.append(int(np.asarray(frame).flat[0]) if isinstance(frame, np.ndarray) else 0)

    def finish(self, progress: Progress | None = None) -> None:
        if self.fail_at == "finish":
            self.fail_at = None
            raise self.error
        self.path.write_bytes(bytes(self.frames))

    def discard(self) -> None:
        self.num_discards += 1


def start(
    folder: Path,
    num_frames: int = 20,
    *,
    fail_at: int | str | None = None,
    keep_partial: bool = False,
    choice: EncoderChoice = RGB,
) -> tuple[Writer, FakeEncoder]:
    output = OutputFile(folder / "out.raw", force=False)
    encoder = FakeEncoder(output.temp, fail_at=fail_at)
    spec = VideoSpec((4, 2), Fraction(24), num_frames, "", choice)
    return Writer(output, encoder, spec, keep_partial=keep_partial), encoder


def feed(writer: Writer, num_frames: int) -> None:
    for index in range(num_frames):
        writer.write(index, FRAME)


def num_encode_threads() -> int:
    return sum(thread.name == "encode" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> object:
    before = num_encode_threads()
    yield
    assert num_encode_threads() == before


def test_frames_arrive_in_order_and_a_reused_buffer_is_no_harm(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, 50)
    frame = FRAME.copy()
    with writer:
        for index in range(50):
            frame[:] = index
            writer.write(index, frame)
    assert (tmp_path / "out.raw").read_bytes() == bytes(range(50))
    assert os.listdir(tmp_path) == ["out.raw"]


def test_the_backlog_counts_frames_not_yet_encoded_and_is_bounded(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, MAX_BACKLOG + 20)
    encoder.gate.clear()
    feeder = threading.Thread(target=feed, args=(writer, MAX_BACKLOG + 20))
    feeder.start()
    feeder.join(0.3)
    assert feeder.is_alive()
    assert writer.backlog == writer.frames_written == MAX_BACKLOG + 1
    encoder.gate.set()
    feeder.join(30)
    writer.close()
    assert (writer.backlog, writer.frames_written) == (0, MAX_BACKLOG + 20)


@pytest.mark.parametrize("index", [1, -1, 3])
def test_a_frame_out_of_its_turn_is_a_bug(tmp_path: Path, index: int) -> None:
    writer, _ = start(tmp_path)
    with pytest.raises(RuntimeError, match="out of its turn"), writer:
        writer.write(index, FRAME)
    assert os.listdir(tmp_path) == []


def test_more_frames_than_announced_are_a_bug(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, 1)
    with pytest.raises(RuntimeError, match="frame 1 is out of its turn"), writer:
        feed(writer, 2)


@pytest.mark.parametrize(
    "frame",
    [FRAME[:1], FRAME[..., 0], FRAME.astype(np.float32), np.zeros((3, 4), np.uint8)],
    ids=["size", "grey", "float", "nv12"],
)
def test_a_frame_of_another_shape_or_type_is_a_bug(
    tmp_path: Path, frame: NDArray[np.uint8]
) -> None:
    writer, _ = start(tmp_path)
    with pytest.raises(RuntimeError, match=r"expected uint8\(2, 4, 3\), rgb24"), writer:
        writer.write(0, frame)


def test_a_writer_says_what_frames_it_takes(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, choice=RGB)
    assert (writer.pixel_format, writer.on_device) == (PixelFormat.RGB24, False)
    assert writer.encoder_name == "raw"
    writer.abort()
    writer, _ = start(tmp_path, choice=ON_DEVICE)
    assert (writer.pixel_format, writer.on_device) == (PixelFormat.NV12, True)
    writer.abort()


def test_nv12_has_a_shape_of_its_own(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1, choice=NV12)
    with writer:
        writer.write(0, np.full((3, 4), 7, np.uint8))
    assert encoder.frames == [7]
    writer, _ = start(tmp_path, 1, choice=NV12)
    with (
        pytest.raises(RuntimeError, match=r"uint8\(2, 4, 3\): expected uint8\(3, 4\), nv12"),
        writer,
    ):
        writer.write(0, FRAME)


def test_a_frame_in_device_memory_is_handed_on_as_it_is(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1, choice=ON_DEVICE)
    frame = OffHost(np.zeros((3, 4), np.uint8))
    with writer:
        writer.write(0, frame)
    assert encoder.given == [frame]


def test_a_frame_in_the_wrong_memory_is_a_bug(tmp_path: Path) -> None:
    array = np.zeros((3, 4), np.uint8)
    for choice, frame, place in (
        (ON_DEVICE, array, "in device memory"),
        (NV12, OffHost(array), "an array"),
    ):
        writer, _ = start(tmp_path, 1, choice=choice)
        with pytest.raises(RuntimeError, match=f"expected {place}"), writer:
            writer.write(0, frame)
    writer, _ = start(tmp_path, 1, choice=ON_DEVICE)
    with pytest.raises(RuntimeError, match=r"uint8\(2, 4\): expected uint8\(3, 4\)"), writer:
        writer.write(0, OffHost(array[:2]))


@pytest.mark.parametrize("keep_partial", [False, True])
def test_fewer_frames_than_announced_are_never_published(
    tmp_path: Path, keep_partial: bool
) -> None:
    writer, _ = start(tmp_path, keep_partial=keep_partial)
    with pytest.raises(RenderError, match="only 3 of 20 frames were written"), writer:
        feed(writer, 3)
    assert os.listdir(tmp_path) == (["out.partial.raw"] if keep_partial else [])


def test_a_failure_surfaces_in_write_once(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1000, fail_at=3)
    with pytest.raises(DiskFullError, match="after 3 frames: No space left on device"):
        feed(writer, 1000)
    assert os.listdir(tmp_path) == []
    assert encoder.num_discards == 1
    writer.close()
    assert writer.abort() is None
    with pytest.raises(RuntimeError, match="has ended"):
        writer.write(writer.frames_written, FRAME)


def test_a_failure_surfaces_in_close_once(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, 2, fail_at=1)
    feed(writer, 2)
    with pytest.raises(DiskFullError, match="after 1 frames"):
        writer.close()
    writer.close()
    assert os.listdir(tmp_path) == []


def test_a_writer_waiting_on_a_full_queue_is_freed_when_the_thread_fails(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1000, fail_at=0)
    encoder.gate.clear()
    threading.Timer(0.2, encoder.gate.set).start()
    with pytest.raises(DiskFullError):
        feed(writer, 1000)
    assert writer.frames_written >= MAX_BACKLOG


def test_a_failure_that_is_no_full_disk_says_what_it_was(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1, fail_at=0)
    encoder.error = ValueError("odd\nthing")
    writer.write(0, FRAME)
    with pytest.raises(RenderError, match="ValueError: odd thing") as caught:
        writer.close()
    assert not isinstance(caught.value, DiskFullError)
    assert caught.value.__cause__ is encoder.error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RenderError("unreadable")])
def test_a_file_that_cannot_be_finished_is_not_published(tmp_path: Path, error: Exception) -> None:
    writer, encoder = start(tmp_path, 1, fail_at="finish", keep_partial=True)
    encoder.error = error
    with pytest.raises(RenderError, match=r"Input/output error|unreadable"), writer:
        writer.write(0, FRAME)
    assert os.listdir(tmp_path) == []


def test_a_file_that_appeared_meanwhile_is_left_alone(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, 1)
    writer.write(0, FRAME)
    (tmp_path / "out.raw").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"the finished file is .*out-2\.raw"):
        writer.close()
    assert (tmp_path / "out.raw").read_bytes() == b"mine"
    assert (tmp_path / "out-2.raw").read_bytes() == b"\0"
    assert len(os.listdir(tmp_path)) == 2


def test_abort_drops_what_waits_and_removes_everything(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path)
    encoder.gate.clear()
    feed(writer, 6)
    threading.Timer(0.2, encoder.gate.set).start()
    assert writer.abort() is None
    assert len(encoder.frames) <= 1
    assert os.listdir(tmp_path) == []


def test_abort_can_keep_every_frame_that_was_taken(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, keep_partial=True)
    feed(writer, 6)
    kept = writer.abort()
    assert kept == writer.partial_path == tmp_path / "out.partial.raw"
    assert kept.read_bytes() == bytes(6)
    assert os.listdir(tmp_path) == ["out.partial.raw"]


def test_nothing_is_kept_of_no_frames(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, keep_partial=True)
    assert writer.abort() is None
    assert os.listdir(tmp_path) == []


def test_an_interrupted_finish_can_still_keep_the_frames(tmp_path: Path) -> None:
    writer, encoder = start(tmp_path, 1, fail_at="finish", keep_partial=True)
    encoder.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt), writer:
        writer.write(0, FRAME)
    assert os.listdir(tmp_path) == ["out.partial.raw"]


def test_frames_that_cannot_be_kept_do_not_hide_why_the_render_ended(tmp_path: Path) -> None:
    writer, _ = start(tmp_path, fail_at="finish", keep_partial=True)
    writer.write(0, FRAME)
    with pytest.raises(ZeroDivisionError) as caught, writer:
        raise ZeroDivisionError
    assert "no space left" in caught.value.__notes__[0]
    assert os.listdir(tmp_path) == []
