"""The way in: checks, whole files by real encoders, full disks, killed processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import Writer, check_output, open_writer, read_metadata
from giffusion.engine.encode.place import TEMP_SUFFIX
from giffusion.engine.errors import DiskFullError, InputError, OutputError, SettingsError
from giffusion.engine.frames import PixelFormat
from tests.engine.encode import files
from tests.engine.encode.pictures import SIZE, Pixels, nv12_picture, rgb_picture

FPS = Fraction(24)
FORMATS = (".mp4", ".gif", ".webm", ".webp", ".avif")


def picture(index: int, form: PixelFormat) -> Pixels:
    return rgb_picture(index) if form is PixelFormat.RGB24 else nv12_picture(index)


def noise(index: int, form: PixelFormat) -> Pixels:
    """Returns a frame that does not compress."""
    return np.random.default_rng(index).integers(0, 256, form.shape(SIZE), dtype=np.uint8)


render = partial(files.render, fps=FPS, frame=picture)


def write_and_raise(writer: Writer, num_frames: int, error: type[BaseException]) -> None:
    for index in range(num_frames):
        writer.write(index, picture(index, writer.pixel_format))
    raise error


@pytest.mark.parametrize("extension", FORMATS)
def test_a_render_leaves_the_file_and_nothing_else(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"out{extension}"
    check_output(path, force=False, fps=FPS, size=SIZE)
    render(path)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("extension", FORMATS)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, extension: str) -> None:
    first, second = tmp_path / f"a{extension}", tmp_path / f"b{extension}"
    render(first)
    render(second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("encoder", ["auto", "libx264", "libx265", "libsvtav1"])
def test_a_named_encoder_leaves_a_whole_file_too(tmp_path: Path, encoder: str) -> None:
    import av

    render(tmp_path / "a.mp4", encoder=encoder, metadata="{}")
    render(tmp_path / "b.mp4", encoder=encoder, metadata="{}")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert read_metadata(tmp_path / "a.mp4") == "{}"
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = {"libsvtav1": "av1", "libx265": "hevc"}.get(encoder, "h264")
        assert container.streams.video[0].codec_context.codec.canonical_name == codec
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_an_encoder_that_cannot_be_used_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot take size 96x64, it needs at least 145x145"):
        render(tmp_path / "a.mp4", encoder="h264_nvenc")
    with pytest.raises(SettingsError, match="unknown encoder 'x264': did you mean 'libx264'"):
        check_output(tmp_path / "a.mp4", force=False, fps=FPS, encoder="x264")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize(
    "text", ['{"prompt": "a corgi"}', '{"é": "\\n\\"' + "x" * 200_000 + '"}'], ids=["short", "long"]
)
def test_the_metadata_reads_back(tmp_path: Path, extension: str, text: str) -> None:
    path = tmp_path / f"out{extension}"
    render(path, 2, metadata=text)
    assert read_metadata(path) == text


@pytest.mark.parametrize("extension", FORMATS)
def test_a_file_without_metadata_reads_back_none(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"out{extension}"
    render(path, 2, metadata="")
    assert read_metadata(path) is None


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("content", [None, b"", b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n"])
def test_metadata_of_another_kind_of_file_is_refused(
    tmp_path: Path, extension: str, content: bytes | None
) -> None:
    path = tmp_path / f"in{extension}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as") as caught:
        read_metadata(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "fps", "size", "message"),
    [
        (
            "out.webmm",
            FPS,
            None,
            "extension '.webmm' is unknown: did you mean '.webm'. known: .avif, .gif, .mp4, .png, "
            ".webm, .webp",
        ),
        (
            "out",
            FPS,
            None,
            "the extension is missing: known: .avif, .gif, .mp4, .png, .webm, .webp",
        ),
        ("out.png", FPS, None, "expected a pattern, such as .*out/%05d.png"),
        ("out.gif", Fraction(51), None, "too fast for GIF: expected at most 50"),
        ("out.gif", Fraction(1, 1000), None, "too slow for GIF: expected at least 0.0015"),
        ("out.mp4", Fraction("23.976023976"), None, "too fine for MP4: .* such as 24000/1001"),
        ("out.mp4", FPS, (127, 64), "size 127x64 is odd: .* such as 128x64"),
        ("none/out.mp4", FPS, None, "folder .*none does not exist: create it"),
        ("taken.mp4", FPS, None, "taken.mp4 exists: give --force to replace it"),
        ("folder.mp4", FPS, None, "folder.mp4 is a folder: give the name of a file"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(
    tmp_path: Path, name: str, fps: Fraction, size: tuple[int, int] | None, message: str
) -> None:
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match=message) as caught:
        check_output(tmp_path / name, force=False, fps=fps, size=size)
    assert "\n" not in str(caught.value)


def test_a_writer_checks_its_output_itself(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        render(path)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("extension", FORMATS)
def test_force_replaces_only_when_the_file_is_finished(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"out{extension}"
    path.write_bytes(b"mine")
    with open_writer(path, size=SIZE, fps=FPS, num_frames=2, metadata="", force=True) as writer:
        writer.write(0, picture(0, writer.pixel_format))
        writer.write(1, picture(1, writer.pixel_format))
        assert path.read_bytes() == b"mine"
    assert path.stat().st_size > 100


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_render_that_ends_early_leaves_nothing(
    tmp_path: Path, extension: str, error: type[BaseException]
) -> None:
    writer = open_writer(
        tmp_path / f"out{extension}", size=SIZE, fps=FPS, num_frames=50, metadata=""
    )
    with pytest.raises(error), writer:
        write_and_raise(writer, 10, error)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("extension", FORMATS)
def test_the_frames_of_a_render_that_ends_early_can_be_kept(tmp_path: Path, extension: str) -> None:
    import av

    (tmp_path / f"out.partial{extension}").write_bytes(b"mine")
    writer = open_writer(
        tmp_path / f"out{extension}",
        size=SIZE,
        fps=FPS,
        num_frames=50,
        metadata='{"a": 1}',
        keep_partial=True,
    )
    with pytest.raises(KeyboardInterrupt), writer:
        write_and_raise(writer, 10, KeyboardInterrupt)
    kept = writer.partial_path
    assert kept == tmp_path / f"out.partial-2{extension}"
    assert sorted(os.listdir(tmp_path)) == sorted([f"out.partial{extension}", kept.name])
    assert (tmp_path / f"out.partial{extension}").read_bytes() == b"mine"
    assert read_metadata(kept) == '{"a": 1}'
    if extension in (".webp", ".avif"):
        with Image.open(kept) as animation:
            assert getattr(animation, "n_frames", 1) == 10
    else:
        with av.open(str(kept)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 10


def test_two_renders_to_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "out.gif"
    first, second = (
        open_writer(path, size=SIZE, fps=FPS, num_frames=1, metadata=name) for name in "ab"
    )
    for writer in (first, second):
        writer.write(0, picture(0, writer.pixel_format))
    first.close()
    with pytest.raises(OutputError, match=r"appeared during the render: .*out-2\.gif"):
        second.close()
    assert read_metadata(path) == "a"
    assert read_metadata(tmp_path / "out-2.gif") == "b"
    assert sorted(os.listdir(tmp_path)) == ["out-2.gif", "out.gif"]


def _fill(path: Path, num_frames: int) -> str:
    """Renders until the disk is full; returns where that showed, or `done`."""
    writer = open_writer(path, size=SIZE, fps=FPS, num_frames=num_frames, metadata="x" * 50_000)
    stage = "write"
    try:
        with writer:
            for index in range(num_frames):
                writer.write(index, noise(index, writer.pixel_format))
            stage = "close"
    except DiskFullError as error:
        message = str(error)
        assert message.startswith(f"no space left in {path.parent} after ")
        assert message.endswith("frames: No space left on device")
        return stage
    return "done"


@pytest.mark.parametrize("extension", FORMATS)
def test_a_full_disk_is_told_and_left_clean(
    small_disk: Callable[[int], Path], extension: str
) -> None:
    stages = set()
    # From a disk that does not take the first frames to one that lacks a little at the end.
    for num_kib in (16, 64, 300, 800, 1600, 2700, 4000, 5500, 20480):
        folder = small_disk(1024 * num_kib)
        stage = _fill(folder / f"out{extension}", 250)
        stages.add(stage)
        assert os.listdir(folder) == ([f"out{extension}"] if stage == "done" else [])
    # Where it shows depends on how much an encoder keeps back, and on how far ahead frames are.
    assert "done" in stages
    assert stages & {"write", "close"}


def test_an_mp4_that_fills_the_disk_in_its_trailer_leaves_nothing(
    tmp_path: Path, small_disk: Callable[[int], Path]
) -> None:
    whole = tmp_path / "out.mp4"
    assert _fill(whole, 20) == "done"
    page = 4096
    for missing in (1, 2, 10, 20):
        folder = small_disk(whole.stat().st_size // page * page - missing * page)
        assert _fill(folder / "out.mp4", 20) == "close"
        assert os.listdir(folder) == []


def run_script(script: str, folder: Path) -> subprocess.Popen[str]:
    """Starts a script in a process of its own, with this module's names and `folder`."""
    prelude = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from tests.engine.encode.test_encode import *
folder = Path({str(folder)!r})
"""
    return subprocess.Popen(
        [sys.executable, "-c", prelude + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("num_kib", [8, 120, 300])
def test_a_file_size_limit_is_told_and_leaves_nothing(
    tmp_path: Path, extension: str, num_kib: int
) -> None:
    process = run_script(
        f"""
import resource
limit = {num_kib} * 1024
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    render(folder / 'out{extension}', 60, frame=noise, metadata='x' * 50_000)
except DiskFullError as error:
    print(error)
""",
        tmp_path,
    )
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert f"no space left in {tmp_path} after" in said
    assert "File too large" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [*(f"out{extension}" for extension in FORMATS), "out/%d.png"])
@pytest.mark.parametrize("moment", ["writing", "finishing"])
def test_a_killed_process_leaves_no_file_at_the_path(
    tmp_path: Path, name: str, moment: str
) -> None:
    process = run_script(
        f"""
def told(*_):
    print('now', flush=True)
    time.sleep(60)
finishing = {moment == "finishing"}
writer = open_writer(
    folder / {name!r}, size=SIZE, fps=FPS, num_frames=100, metadata='')
for index in range(100 if finishing else 80):
    writer.write(index, noise(index, writer.pixel_format))
if not finishing:
    told()
from giffusion.engine.encode import folder as folders, output
output.sync = folders.sync = told
writer.close(told)
""",
        tmp_path,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    left = os.listdir(tmp_path)
    assert all(name.startswith(".") and name.endswith(TEMP_SUFFIX) for name in left), left


def test_checking_an_output_loads_no_encoder(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, giffusion.engine.encode, giffusion.engine.settings\n"
            "assert not {'av', 'PIL'} & set(sys.modules)",
        ],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
