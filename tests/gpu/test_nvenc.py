"""NVENC for real: arrays and frames in device memory become files that read back right."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from giffusion.engine.encode import check_output, choose_encoder, open_writer, read_metadata
from giffusion.engine.encode.nvenc import MAX_SESSIONS_VARIABLE, sessions
from giffusion.engine.encode.probe import probe_encoder
from giffusion.engine.errors import GiffusionError, RenderError
from giffusion.engine.frames import DeviceFrame

pytestmark = pytest.mark.gpu
WIDTH, HEIGHT = SIZE = (320, 192)
NUM_FRAMES = 40
FPS = Fraction(30000, 1001)
NVENC = {"h264_nvenc": "h264", "hevc_nvenc": "hevc", "av1_nvenc": "av1"}


@pytest.fixture(params=NVENC)
def encoder(request: pytest.FixtureRequest) -> str:
    """Each NVENC encoder in turn; skips with the reason where it does not work."""
    status = probe_encoder(request.param)
    if not status.works:
        pytest.skip(f"{status.name}: {status.reason}")
    return str(request.param)


def picture(index: int) -> NDArray[np.uint8]:
    """Returns one NV12 frame of a smooth moving picture, its two chroma planes unlike."""
    y, x = np.mgrid[0 : HEIGHT * 3 // 2, 0:WIDTH]
    frame = 127.5 + 90 * np.sin((x + 3 * index) / 40) * np.cos((y - 2 * index) / 30)
    frame[HEIGHT:, 0::2] = 90
    frame[HEIGHT:, 1::2] = 200
    return np.asarray(frame, np.uint8)


def on_device(array: NDArray[np.uint8]) -> DeviceFrame:
    """Copies a frame to the first GPU; the copy lives as long as somebody reads it."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch was built without CUDA, or finds no GPU")
    tensor = torch.from_numpy(array).cuda()
    torch.cuda.synchronize()
    frame: DeviceFrame = tensor
    return frame


def render(path: Path, encoder: str, *, device: bool) -> None:
    with open_writer(
        path,
        size=SIZE,
        fps=FPS,
        num_frames=NUM_FRAMES,
        metadata='{"a": 1}',
        encoder=encoder,
        on_device=device,
    ) as writer:
        assert writer.on_device is device
        for index in range(NUM_FRAMES):
            frame = picture(index)
            writer.write(index, on_device(frame) if device else frame)


@pytest.mark.parametrize("device", [False, True], ids=["host", "device"])
def test_a_file_reads_back_as_what_was_given(tmp_path: Path, encoder: str, device: bool) -> None:
    path = tmp_path / "a.mp4"
    check_output(path, force=False, fps=FPS, size=SIZE, encoder=encoder)
    render(path, encoder, device=device)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert read_metadata(path) == '{"a": 1}'
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert codec.codec.canonical_name == NVENC[encoder]
        assert stream.average_rate == FPS
        assert (codec.color_primaries, codec.color_trc, codec.colorspace) == (1, 1, 1)
        if encoder == "hevc_nvenc":
            assert codec.codec_tag == "hvc1"
        decoded = [frame.to_ndarray() for frame in container.decode(video=0)]
    assert len(decoded) == NUM_FRAMES
    chroma = WIDTH * HEIGHT // 4
    for index, planes in enumerate(decoded):
        flat, source = planes.reshape(-1), picture(index)
        assert _psnr(flat[: WIDTH * HEIGHT], source[:HEIGHT].reshape(-1)) > 35
        cb, cr = flat[WIDTH * HEIGHT : -chroma], flat[-chroma:]
        assert np.abs(cb.astype(int) - 90).max() <= 4
        assert np.abs(cr.astype(int) - 200).max() <= 4


def test_device_memory_and_host_memory_give_the_same_pictures(tmp_path: Path, encoder: str) -> None:
    render(tmp_path / "host.mp4", encoder, device=False)
    render(tmp_path / "device.mp4", encoder, device=True)
    assert _decoded(tmp_path / "host.mp4") == _decoded(tmp_path / "device.mp4")


def test_reruns_are_bit_identical(tmp_path: Path, encoder: str) -> None:
    render(tmp_path / "a.mp4", encoder, device=False)
    render(tmp_path / "b.mp4", encoder, device=False)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_several_encoders_share_the_device(tmp_path: Path, encoder: str) -> None:
    errors: list[Exception] = []

    def one(index: int) -> None:
        try:
            render(tmp_path / f"{index}.mp4", encoder, device=True)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({_decoded(tmp_path / f"{index}.mp4") for index in range(3)}) == 1


def test_auto_takes_nvenc_for_frames_on_the_device(encoder: str) -> None:
    choice, reason = choose_encoder(Path("a.mp4"), on_device=True, size=SIZE)
    assert (choice.name, choice.on_device) == ("h264_nvenc", True), reason


def test_a_session_too_many_is_refused(
    tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAX_SESSIONS_VARIABLE, "1")
    sessions.cache_clear()
    try:
        first = open_writer(
            tmp_path / "a.mp4", size=SIZE, fps=FPS, num_frames=1, metadata="", encoder=encoder
        )
        with pytest.raises(RenderError, match="1 NVENC encoders are open already"):
            render(tmp_path / "b.mp4", encoder, device=False)
        first.write(0, picture(0))
        first.close()
        render(tmp_path / "b.mp4", encoder, device=False)
    finally:
        sessions.cache_clear()


def test_a_picture_below_its_least_size_is_refused(encoder: str) -> None:
    with pytest.raises(GiffusionError, match="needs at least 145x145"):
        choose_encoder(Path("a.mp4"), encoder, size=(144, 160))


def _decoded(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(frame.to_ndarray().tobytes() for frame in container.decode(video=0))


def _psnr(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    error = np.mean((first.astype(np.float64) - second.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))
