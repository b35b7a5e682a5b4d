"""NVENC where there is none: the words for its failures, and the count of those that are open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from giffusion.engine.encode import nvenc, video
from giffusion.engine.encode.encoders import ENCODERS, EncoderChoice
from giffusion.engine.encode.formats import VideoSpec
from giffusion.engine.encode.nvenc import MAX_SESSIONS_VARIABLE, NvencError, Sessions, explained
from giffusion.engine.encode.probe import probe_encoder
from giffusion.engine.encode.video import Mp4Encoder
from giffusion.engine.errors import GiffusionError, RenderError, SettingsError


@pytest.fixture
def _fresh_count() -> Iterator[None]:
    nvenc.sessions.cache_clear()
    yield
    nvenc.sessions.cache_clear()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (["Cannot load libcuda.so.1"], "no NVIDIA driver was found: Cannot load libcuda.so.1"),
        (
            [
                "Cannot load libnvidia-encode.so.1",
                "The minimum required Nvidia driver for nvenc is 570.0 or newer",
            ],
            "the NVIDIA driver came without its encoder, libnvidia-encode: in a container",
        ),
        (
            [
                "Driver does not support the required nvenc API version. Required: 13.0 "
                "Found: 12.1",
                "The minimum required Nvidia driver for nvenc is 570.0 or newer",
            ],
            "the NVIDIA driver is too old: Driver does not support the required nvenc API version.",
        ),
        (
            [
                "OpenEncodeSessionEx failed: unsupported device (2): (no details)",
                "No capable devices found",
            ],
            "this GPU has no NVENC, as H100, H200 and A100 have none, or the driver hides it ",
        ),
        (
            [
                "OpenEncodeSessionEx failed: no encode device (1): (no details)",
                "No capable devices found",
            ],
            "this GPU has no NVENC, as H100, H200 and A100 have none, or the driver hides it ",
        ),
        (
            [
                "OpenEncodeSessionEx failed: out of memory (10): (no details)",
                "No capable devices found",
            ],
            "the driver opens no more sessions: ",
        ),
        (["Codec not supported", "No capable devices found"], "this GPU's NVENC does not have the"),
        (
            ["cu->cuInit(0) failed -> CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"],
            "no NVIDIA GPU was found: ",
        ),
        (["Something new", "and more"], "Something new; and more"),
        ([], "no NVIDIA driver was found"),
    ],
)
def test_a_failure_is_said_in_words(told: list[str], expected: str) -> None:
    said = nvenc.reason(told, PermissionError(1, "Operation not permitted"))
    assert said.startswith(expected)
    assert "\n" not in said


def test_a_failure_that_nothing_was_logged_of_is_said_as_it_is() -> None:
    assert nvenc.reason([], ValueError("odd\nthing")) == "odd thing"


@pytest.mark.parametrize(
    ("line", "passing"),
    [
        ("OpenEncodeSessionEx failed: out of memory (10): (no details)", True),
        ("OpenEncodeSessionEx failed: incompatible client key (21): (no details)", True),
        ("OpenEncodeSessionEx failed: unsupported device (2): (no details)", False),
    ],
)
def test_only_a_lack_of_sessions_may_pass(line: str, passing: bool) -> None:
    def fail() -> None:
        with explained():
            av.logging.log(av.logging.ERROR, "h264_nvenc", line)
            raise OSError(38, "Function not implemented")

    for _ in range(2):  # the same line twice is two lines
        with pytest.raises(NvencError) as caught:
            fail()
        assert caught.value.passing is passing
        assert line in str(caught.value)
    assert av.logging.get_level() is None


def test_threads_that_listen_at_once_leave_the_log_as_it_was() -> None:
    """Each would otherwise restore the level that the other had set, and leave the log on."""
    entered, first_is_out = threading.Event(), threading.Event()

    def second() -> None:
        with explained():
            entered.set()
            first_is_out.wait(30)

    thread = threading.Thread(target=second)
    with explained():
        thread.start()
        assert not entered.wait(0.2)
    first_is_out.set()
    thread.join(30)
    assert entered.is_set()
    assert av.logging.get_level() is None
    assert av.logging.get_skip_repeated()


def test_errors_of_our_own_pass_unchanged() -> None:
    with pytest.raises(SettingsError, match="mine"), explained():
        raise SettingsError("mine")


def test_one_session_too_many_is_refused_at_once_and_not_waited_for() -> None:
    count = Sessions(2)
    count.take("h264_nvenc")
    count.take("hevc_nvenc")
    refused: list[str] = []

    def one_more() -> None:
        try:
            count.take("av1_nvenc")
        except RenderError as error:
            refused.append(str(error))

    thread = threading.Thread(target=one_more, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert refused[0].startswith("av1_nvenc cannot start: 2 NVENC encoders are open already")
    assert MAX_SESSIONS_VARIABLE in refused[0]
    count.give_back()
    count.take("av1_nvenc")


def open_nvenc(path: Path) -> Mp4Encoder:
    choice = EncoderChoice(ENCODERS["h264_nvenc"])
    return Mp4Encoder(path, VideoSpec((256, 256), Fraction(24), 2, "", choice))


@pytest.mark.usefixtures("_fresh_count")
def test_an_encoder_holds_its_session_until_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV opens the hardware at the first frame, so this needs none."""
    monkeypatch.setenv(MAX_SESSIONS_VARIABLE, "1")
    for index in range(3):
        encoder = open_nvenc(tmp_path / f"{index}.mp4")
        with pytest.raises(RenderError, match="1 NVENC encoders are open already"):
            open_nvenc(tmp_path / "b.mp4")
        encoder.discard()
        encoder.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_fresh_count")
def test_an_encoder_that_cannot_be_made_holds_no_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setenv(MAX_SESSIONS_VARIABLE, "1")
    monkeypatch.setattr(video, "configure", fail)
    for _ in range(2):
        with pytest.raises(OSError, match="no such luck"):
            open_nvenc(tmp_path / "a.mp4")


@pytest.mark.usefixtures("_fresh_count")
def test_an_encoder_that_fails_at_its_first_frame_says_why(tmp_path: Path) -> None:
    if probe_encoder("h264_nvenc").works:
        pytest.skip("this machine has NVENC")
    encoder = open_nvenc(tmp_path / "a.mp4")
    with pytest.raises(RenderError, match="h264_nvenc cannot start: ") as caught:
        encoder.write(np.full((384, 256), 128, np.uint8))
    assert probe_encoder("h264_nvenc").reason in str(caught.value)
    encoder.discard()


@pytest.mark.usefixtures("_fresh_count")
@pytest.mark.parametrize("text", ["0", "-1", "many", "", "1.5"])
def test_a_limit_that_is_no_number_is_told(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_SESSIONS_VARIABLE, text)
    with pytest.raises(GiffusionError, match="is no number of sessions: expected 1 or more"):
        nvenc.sessions()
