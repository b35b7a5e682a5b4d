"""Every kind of file that a render can be: pictures, times, quality, read back by real decoders."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import check_output, choose_encoder, open_writer, read_metadata
from giffusion.engine.encode.encoders import ENCODERS
from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.encode.place import TEMP_SUFFIX
from giffusion.engine.errors import OutputError, SettingsError
from giffusion.engine.frames import PixelFormat
from giffusion.export.nv12 import nv12
from tests.engine.encode import files
from tests.engine.encode.pictures import SIZE, Pixels, rgb_picture

NUM_FRAMES = 14
FILES = ("a.mp4", "a.webm", "a.gif", "a.webp", "a.avif", "a/%04d.png")
ANIMATIONS = ("a.gif", "a.webp", "a.avif")
QUALITIES = [
    (path, encoder)
    for path in FILES
    for encoder in FORMATS[Path(path).suffix].encoders
    if ENCODERS[encoder].quality and not ENCODERS[encoder].on_nvidia
]
# A plan with what is awkward in XML, in JSON and in chunks of text; larger than any block of them.
PLAN = '{"prompts": "0: <a> & \\"ü\\" 🦁\\n", "long": "' + "x" * 1_000_000 + '"}'


# Short of the strongest colours, of which a palette and halved chroma lose more.
picture = partial(rgb_picture, amplitude=100)


def in_format(index: int, form: PixelFormat) -> Pixels:
    import torch

    pixels = picture(index)
    if form is PixelFormat.RGB24:
        return pixels
    planes = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))
    converted: Pixels = nv12(planes)[0].numpy()
    return converted


render = partial(files.render, num_frames=NUM_FRAMES, frame=in_format)


def frames_of(path: Path) -> Iterator[Pixels]:
    """The pictures of a file, by FFmpeg for video and by Pillow for the rest."""
    if path.suffix == ".png":
        for name in sorted(os.listdir(path.parent)):
            yield np.asarray(Image.open(path.parent / name).convert("RGB"))
    elif path.suffix in (".mp4", ".webm"):
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    else:
        yield from files.decode_animation(path)[0]


def psnr(path: Path) -> float:
    """Of a file's pictures against those that were written, in dB."""
    pairs = list(zip(frames_of(path), map(picture, range(NUM_FRAMES)), strict=True))
    error = float(np.mean([(a.astype(float) - b) ** 2 for a, b in pairs]))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def num_bytes(path: Path) -> int:
    if path.suffix == ".png":
        return sum(entry.stat().st_size for entry in path.parent.iterdir())
    return path.stat().st_size


@pytest.mark.parametrize("name", FILES)
def test_pictures_come_back_and_nothing_else_is_left(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    check_output(path, force=False, fps=Fraction(24), size=SIZE)
    render(path)
    assert os.listdir(tmp_path) == ["a" if path.suffix == ".png" else name]
    quality = psnr(path)
    print(f"{name}: {quality:.1f} dB, {num_bytes(path)} bytes")
    # GIF has 256 colours; PNG loses nothing.
    assert quality >= {".gif": 28, ".png": 80}.get(path.suffix, 33)


@pytest.mark.parametrize("name", FILES)
def test_the_same_frames_give_the_same_bytes_anywhere(tmp_path: Path, name: str) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    cores = os.sched_getaffinity(0)
    render(first / name)
    try:
        os.sched_setaffinity(0, {min(cores)})
        render(second / name)
    finally:
        os.sched_setaffinity(0, cores)
    ones = sorted(path for path in first.rglob("*") if path.is_file())
    twos = sorted(path for path in second.rglob("*") if path.is_file())
    assert [path.read_bytes() for path in ones] == [path.read_bytes() for path in twos]
    assert len(ones) == (NUM_FRAMES if "%" in name else 1)


@pytest.mark.parametrize("name", FILES)
def test_a_plan_of_any_text_and_length_reads_back(tmp_path: Path, name: str) -> None:
    render(tmp_path / name, metadata=PLAN, num_frames=2)
    assert read_metadata(tmp_path / name) == PLAN
    if "%" in name:
        assert read_metadata(tmp_path / "a") == PLAN
        assert read_metadata(tmp_path / "a" / "0001.png") == PLAN


@pytest.mark.parametrize(("name", "encoder"), QUALITIES)
def test_more_quality_is_more_bytes_and_nearer_pictures(
    tmp_path: Path, name: str, encoder: str
) -> None:
    seen = []
    for quality in (10, 50, 90):
        path = tmp_path / f"{quality}{Path(name).suffix}"
        render(path, encoder=encoder, quality=quality)
        seen.append((num_bytes(path), psnr(path)))
    print(encoder, seen)
    assert seen == sorted(seen)
    assert seen[2][1] > seen[0][1] + 3


@pytest.mark.parametrize("name", ["a.gif", "a/%d.png"])
def test_what_has_no_quality_says_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="has no quality to choose: leave --quality out"):
        check_output(tmp_path / name, force=False, fps=Fraction(24), quality=50)


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_quality_has_a_range(tmp_path: Path, quality: int) -> None:
    with pytest.raises(SettingsError, match=f"quality {quality} is out of range: expected at"):
        check_output(tmp_path / "a.mp4", force=False, fps=Fraction(24), quality=quality)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(12), Fraction(50)])
@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_frame_times_of_video_are_exact_or_rounded_by_themselves(
    tmp_path: Path, name: str, fps: Fraction
) -> None:
    render(tmp_path / name, fps=fps)
    with av.open(str(tmp_path / name)) as container:
        tick = container.streams.video[0].time_base
        assert tick is not None
        times = [(frame.pts or 0) * tick for frame in container.decode(video=0)]
    for index, time in enumerate(times):
        exact = index / fps
        if name == "a.mp4":
            assert time == exact
        else:  # Matroska counts in milliseconds
            assert abs(time - exact) <= Fraction(1, 2000)


@pytest.mark.parametrize("fps", [Fraction(24), Fraction(30000, 1001), Fraction(7)])
@pytest.mark.parametrize("name", ANIMATIONS)
def test_frame_times_of_animations_do_not_drift(tmp_path: Path, name: str, fps: Fraction) -> None:
    render(tmp_path / name, fps=fps)
    if name == "a.avif":
        # Pillow rounds each time to milliseconds; the file itself has them exactly.
        with av.open(str(tmp_path / name)) as container:
            assert container.streams.video[-1].average_rate == fps
            assert container.streams.video[-1].frames == NUM_FRAMES
        return
    with Image.open(tmp_path / name) as animation:
        assert animation.info["loop"] == 0
    _, times = files.decode_animation(tmp_path / name)
    tick = 10 if name == "a.gif" else 1
    assert sum(times) == tick * round(1000 / tick * NUM_FRAMES / fps)
    assert max(times) - min(times) <= tick


def test_a_sequence_is_a_folder_that_is_whole_or_not_there(tmp_path: Path) -> None:
    writer = open_writer(
        tmp_path / "a/%d.png", size=SIZE, fps=Fraction(24), num_frames=20, metadata=""
    )
    writer.write(0, picture(0))
    (hidden,) = os.listdir(tmp_path)
    assert hidden.endswith(TEMP_SUFFIX)
    assert hidden.startswith(".")
    writer.abort()
    assert os.listdir(tmp_path) == []
    render(tmp_path / "a/%d.png")
    assert sorted(os.listdir(tmp_path / "a")) == sorted(f"{n}.png" for n in range(NUM_FRAMES))


def test_force_replaces_a_sequence_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a/%03d.png"
    render(path)
    with pytest.raises(OutputError, match="give --force"):
        check_output(path, force=False, fps=Fraction(24))
    render(path, force=True, num_frames=3)
    assert sorted(os.listdir(tmp_path / "a")) == ["000.png", "001.png", "002.png"]
    (tmp_path / "a" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError) as caught:
        check_output(path, force=True, fps=Fraction(24))
    assert "notes.txt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "a" / "notes.txt").read_text() == "mine"


def test_a_sequence_that_ends_early_can_be_kept(tmp_path: Path) -> None:
    writer = open_writer(
        tmp_path / "a/%d.png",
        size=SIZE,
        fps=Fraction(24),
        num_frames=20,
        metadata="{}",
        keep_partial=True,
    )
    for index in range(5):
        writer.write(index, picture(index))
    kept = writer.abort()
    assert kept is not None
    assert len(os.listdir(kept)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == [kept.name]


@pytest.mark.parametrize("name", ["a.png", "a/b.png", "a/%d-%d.png"])
def test_a_png_without_one_number_is_refused_with_the_right_spelling(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(OutputError, match=r"expected a pattern, such as .*%05d\.png"):
        check_output(tmp_path / name, force=False, fps=Fraction(24))


def test_odd_sizes_are_for_rgb_formats_only(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.webm", "a.avif"):
        with pytest.raises(OutputError, match="odd"):
            check_output(tmp_path / name, force=False, fps=Fraction(24), size=(97, 64))
    for name in ("a.gif", "a.webp", "a/%d.png"):
        check_output(tmp_path / name, force=False, fps=Fraction(24), size=(97, 63))


@pytest.mark.parametrize("name", [name for name in FILES if name != "a.gif"])
def test_memory_does_not_grow_with_the_frames(tmp_path: Path, name: str) -> None:
    """GIF's, with its two passes, is in its own tests."""
    script = f"""
import resource, shutil
from fractions import Fraction
from pathlib import Path
import numpy as np
from giffusion.engine.encode import open_writer

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def render(folder, num_frames):
    path = Path({str(tmp_path)!r}, folder, {name!r})
    path.parents[{name.count("/")}].mkdir()
    with open_writer(
        path, size=(128, 128), fps=Fraction(25), num_frames=num_frames, metadata='{{}}'
    ) as writer:
        noise = np.random.default_rng(0).integers(0, 256, (128, 256, 3), dtype=np.uint8)
        frame = np.empty(writer.pixel_format.shape((128, 128)), np.uint8)
        for index in range(num_frames):
            shown = noise[:, index % 128:][:, :128]
            frame[:] = shown if frame.ndim == 3 else shown.reshape(-1, 128)[:192]
            writer.write(index, frame)

render('first', 150)
before = peak_mib()
render('second', 1050)
print(peak_mib() - before)
shutil.rmtree(Path({str(tmp_path)!r}, 'first'))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size = num_bytes(tmp_path / "second" / name)
    grown = float(done.stdout)
    # As frames the second render is 44 MiB more, or 22 in NV12.
    print(f"{name}: {size / 2**20:.1f} MiB written, {grown:.1f} MiB grown")
    assert grown < 3


def test_auto_is_each_formats_first() -> None:
    chosen = {name: choose_encoder(Path(name))[0].name for name in FILES}
    assert list(chosen.values()) == [
        "libx264",
        "libvpx-vp9",
        "gif",
        "libwebp",
        "libsvtav1",
        "png",
    ]
