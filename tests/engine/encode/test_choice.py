"""Which encoder a file gets, and the line that says why another cannot be had."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from giffusion.engine.encode import choice as choice_module
from giffusion.engine.encode import open_writer, probe
from giffusion.engine.encode.choice import choose_encoder
from giffusion.engine.encode.encoders import ENCODERS, EncoderInfo
from giffusion.engine.encode.probe import EncoderStatus, probe_encoder, probe_encoders
from giffusion.engine.errors import OutputError, SettingsError
from giffusion.engine.frames import PixelFormat

MP4, GIF = Path("out.mp4"), Path("out.gif")
LARGE, SMALL = (512, 512), (128, 128)
NO_NVENC = not probe_encoder("h264_nvenc").works
without_nvenc = pytest.mark.skipif(not NO_NVENC, reason="this machine has NVENC")


def let(monkeypatch: pytest.MonkeyPatch, *, work: bool, reason: str = "it is Monday") -> None:
    """Lets every encoder's probe end in one way."""
    monkeypatch.setattr(
        choice_module,
        "probe_encoder",
        lambda name: EncoderStatus(name, work, "" if work else reason),
    )


@pytest.mark.parametrize("name", [*ENCODERS, "auto"])
def test_what_is_probed_is_every_encoder_of_the_table(name: str) -> None:
    found = {status.name: status for status in probe_encoders()}
    assert found.keys() == ENCODERS.keys()
    if name != "auto" and not ENCODERS[name].on_nvidia:
        assert found[name].works, found[name].reason


@without_nvenc
@pytest.mark.parametrize("name", ["h264_nvenc", "hevc_nvenc", "av1_nvenc"])
def test_nvenc_that_is_not_here_says_why_in_a_sentence(name: str) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver, whose reason is another")
    reason = probe_encoder(name).reason
    assert reason.startswith("no NVIDIA driver was found: Cannot load ")
    with pytest.raises(SettingsError) as caught:
        choose_encoder(MP4, name, size=LARGE)
    assert str(caught.value) == (
        f"encoder {name} does not work here, {reason}: give --encoder auto or --encoder libx264"
    )


def test_an_encoder_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_known", {})
    tried: list[str] = []

    def once(info: EncoderInfo) -> EncoderStatus:
        tried.append(info.name)
        return EncoderStatus(info.name, False, "for now", passing=info.name == "av1_nvenc")

    monkeypatch.setattr(probe, "_probe", once)
    for name in ("h264_nvenc", "h264_nvenc", "av1_nvenc", "av1_nvenc"):
        probe_encoder(name)
    assert tried == ["h264_nvenc", "av1_nvenc", "av1_nvenc"]


@pytest.mark.parametrize(
    ("path", "on_device", "work", "size", "expected", "reason"),
    [
        (MP4, False, True, LARGE, "libx264", "libx264 (the usual one for MP4)"),
        (MP4, True, True, LARGE, "h264_nvenc", "h264_nvenc (frames stay on the GPU)"),
        (MP4, True, True, None, "h264_nvenc", "h264_nvenc (frames stay on the GPU)"),
        (
            MP4,
            True,
            False,
            LARGE,
            "libx264",
            "libx264 (h264_nvenc does not work here, it is Monday)",
        ),
        (
            MP4,
            True,
            True,
            SMALL,
            "libx264",
            "libx264 (h264_nvenc cannot take size 128x128, it needs at least 145x145)",
        ),
        (GIF, False, True, LARGE, "gif", "gif (the usual one for GIF)"),
        (GIF, True, True, LARGE, "gif", "gif (NVENC does not write GIF)"),
    ],
)
def test_auto_chooses_and_says_why(
    path: Path,
    on_device: bool,
    work: bool,
    size: tuple[int, int] | None,
    expected: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let(monkeypatch, work=work)
    chosen, said = choose_encoder(path, on_device=on_device, size=size)
    assert (chosen.name, said) == (expected, reason)
    assert chosen.on_device is (expected == "h264_nvenc")
    assert chosen.pixel_format is (PixelFormat.RGB24 if path is GIF else PixelFormat.NV12)


@pytest.mark.parametrize(
    ("name", "on_device", "takes_on_device"),
    [
        ("libx264", True, False),
        ("libsvtav1", True, False),
        ("hevc_nvenc", True, True),
        ("hevc_nvenc", False, False),
        ("av1_nvenc", True, True),
    ],
)
def test_a_named_encoder_is_that_one(
    name: str, on_device: bool, takes_on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    let(monkeypatch, work=True)
    chosen, said = choose_encoder(MP4, name, on_device=on_device, size=LARGE)
    assert (chosen.name, chosen.on_device) == (name, takes_on_device)
    assert said == f"{name} (it was asked for)"


@pytest.mark.parametrize(
    ("path", "name", "size", "fps", "message"),
    [
        (
            MP4,
            "h264nvenc",
            LARGE,
            "24",
            "unknown encoder 'h264nvenc': did you mean 'h264_nvenc'? known: auto, av1_nvenc, "
            "h264_nvenc, hevc_nvenc, libsvtav1, libx264, libx265",
        ),
        (GIF, "libx266", LARGE, "24", "unknown encoder 'libx266': known: auto, gif"),
        (
            GIF,
            "libx264",
            LARGE,
            "24",
            "encoder libx264 does not write GIF: expected auto or gif",
        ),
        (MP4, "gif", LARGE, "24", "encoder gif does not write MP4: expected auto or libx264 or "),
        (
            MP4,
            "hevc_nvenc",
            SMALL,
            "24",
            "encoder hevc_nvenc cannot take size 128x128, it needs at least 145x145: give "
            "--encoder auto or --encoder libx264",
        ),
        (MP4, "av1_nvenc", (512, 144), "24", "cannot take size 512x144, it needs at least 145x145"),
        (
            MP4,
            "libsvtav1",
            LARGE,
            "241",
            "encoder libsvtav1 cannot take fps 241, it needs at most 240: give --encoder auto or ",
        ),
        (MP4, "libx264", LARGE, "24", "does not work here, it is Monday: give --encoder auto"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    path: Path,
    name: str,
    size: tuple[int, int],
    fps: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    let(monkeypatch, work=False)
    with pytest.raises(SettingsError) as caught:
        choose_encoder(path, name, on_device=True, size=size, fps=Fraction(fps))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_format_that_is_unknown_is_told_before_its_encoder() -> None:
    with pytest.raises(OutputError, match=r"extension '\.avi' is unknown"):
        choose_encoder(Path("out.avi"), "libx264")


@without_nvenc
@pytest.mark.parametrize("name", ["auto", "libx264", "libsvtav1"])
def test_a_device_without_nvenc_is_asked_for_arrays(tmp_path: Path, name: str) -> None:
    """A runtime on a device then copies NV12 to the host, where it is encoded all the same."""
    with open_writer(
        tmp_path / "a.mp4",
        size=LARGE,
        fps=Fraction(24),
        num_frames=1,
        metadata="",
        encoder=name,
        on_device=True,
    ) as writer:
        assert (writer.pixel_format, writer.on_device) == (PixelFormat.NV12, False)
        assert writer.encoder_name == ("libx264" if name == "auto" else name)
        writer.write(0, np.full((768, 512), 128, np.uint8))
    assert (tmp_path / "a.mp4").stat().st_size > 500


def test_auto_on_the_host_tries_nothing_and_loads_nothing() -> None:
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from giffusion.engine.encode import choose_encoder\n"
        "print(choose_encoder(Path('out.mp4'))[1], choose_encoder(Path('out.gif'))[0].name)\n"
        "assert not {'av', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "libx264 (the usual one for MP4) gif\n"
