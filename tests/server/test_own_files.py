"""What a render reads is never replaced by what it writes, whatever `--force` says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.server.conftest import Command

FILES = ("film.txt", "start.png", "in.mp4", "song.wav", "maps/00003.png", "a.toml")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("maps").mkdir()
    Path("model").mkdir()
    for name in (*FILES, "model/giffusion.json"):
        Path(name).write_text(f"of {name}")
    Path("film.txt").write_text("0: a dog\n")
    Path("film.gif").symlink_to("film.txt")
    Path("a.toml").write_text("schema = 1\n[prompts]\nfile = 'film.txt'\n")


def contents() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if not path.is_dir()}


@pytest.mark.parametrize(
    ("words", "replaced"),
    [
        ("film.txt --save-config film.txt -o o.gif", "film.txt"),
        ("film.txt --save-config ./model/../film.txt -o o.gif", "film.txt"),
        ("film.txt --save-config start.png --image start.png -o o.gif", "start.png"),
        ("film.txt --save-config in.mp4 --video in.mp4 -o o.gif", "in.mp4"),
        ("film.txt --save-config song.wav --audio song.wav -o o.gif", "song.wav"),
        ("film.txt --save-config maps/00003.png --control maps/%05d.png -o o.gif", "maps/%05d.png"),
        ("film.txt --video in.mp4 -o in.mp4", "in.mp4"),
        ("film.txt --video ./in.mp4 -o in.mp4", "in.mp4"),
        ("film.txt --audio in.mp4 -o in.mp4", "in.mp4"),
        ("film.gif -o film.gif", "film.gif"),
        ("film.txt -o film.gif", "film.txt"),
        ("film.txt --image maps/00003.png -o maps/%05d.png", "maps/00003.png"),
        ("film.txt --control maps/%05d.png -o maps/%05d.png", "maps/%05d.png"),
        ("film.txt --control maps/%05d.png -o ./maps/%d.png", "maps/%05d.png"),
        ("--config a.toml -o a.gif --save-config film.txt", "film.txt"),
    ],
)
def test_a_file_that_is_read_stays(words: str, replaced: str, program: Command) -> None:
    before = contents()
    status, out, err = program(f"render {words} --force")
    assert (status, out) == (2, "")
    assert f" would replace {replaced}, which the render reads: give " in err
    assert err.count("\n") == 1
    assert contents() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o o.gif --save-config o.gif", "o.gif is the output as well"),
        ("-o o.gif --save-config ./o.gif", "o.gif is the output as well"),
        ("-o new/%05d.png --save-config new/00000.png", "new/00000.png is the output as well"),
        (
            "-o maps/%05d.png --save-config maps/b.toml",
            "would lie among the pictures of the output",
        ),
        (
            "-o o.gif --model ./model --save-config model/giffusion.json",
            "model/giffusion.json would replace a file of the model: give --save-config another",
        ),
    ],
)
def test_saved_settings_get_in_nothings_way(words: str, message: str, program: Command) -> None:
    before = contents()
    status, _, err = program(f"render film.txt {words} --force")
    assert status == 2
    assert message in err
    assert contents() == before


def test_settings_may_be_saved_to_where_they_were_read(program: Command) -> None:
    line = "render --config a.toml --save-config a.toml -o o.gif --frames 1 --steps 1 --size 64x64"
    status, _, err = program(f"{line} --runtime onnxruntime")
    assert (status, "a.toml exists: give --force to replace it" in err) == (2, True)
    assert program(f"{line} --runtime onnxruntime --force")[0] == 0
    assert "frames = 1" in Path("a.toml").read_text()
    assert program("render --config a.toml -o a.toml --force")[0] == 2


def test_another_file_in_the_same_folder_is_no_source(program: Command) -> None:
    line = "render film.txt --frames 1 --steps 1 --size 64x64 --runtime onnxruntime --force"
    os.unlink("film.gif")
    Path("film.gif").write_text("an older output")
    assert program(f"{line} -o film.gif --save-config new.toml")[0] == 0
    assert Path("film.gif").read_bytes().startswith(b"GIF89a")
