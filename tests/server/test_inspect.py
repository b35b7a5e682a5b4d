"""`giffusion inspect`: the plan of every kind of file, and the file once more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from giffusion.server.cli import main

PROMPTS = (
    '{"0": "a (red:1.2) house | a storm::0.5 --ease in", "0.1s": "a lion --neg fog --hold 0.2"}'
)
RENDER = (
    *("render", "--prompts", PROMPTS, "--runtime", "onnxruntime", "--sampler", "unipc"),
    *("--size", "64x96"),
    *(
        "--guidance",
        "0:(4), 3:(4+2*sin(t))",
        "--steps",
        "0:(2), 3:(4)",
        "--loop",
        "--head",
        "a toy,",
    ),
)
FILES = ("out.mp4", "out.webm", "out.gif", "out.webp", "out.avif", "out/%03d.png")

PLAIN = json.dumps(
    {"giffusion": "0.0.1", "prompts": "0: a dog", "settings": {"steps": 1}, "numerics": {}}
)

Capture = pytest.CaptureFixture[str]


def refused(*words: str) -> bool:
    return main(words) == 2


def contents(path: Path) -> list[bytes]:
    if path.suffix == ".png":
        return [picture.read_bytes() for picture in sorted(path.parent.iterdir())]
    return [path.read_bytes()]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_rendered_again_bit_for_bit(tmp_path: Path, name: str, capfd: Capture) -> None:
    path = tmp_path / name
    again = tmp_path / name.replace("out", "again")
    assert main([*RENDER, "-o", str(path)]) == 0
    assert main(["inspect", str(path), "--again", "-o", str(again)]) == 0
    assert contents(again) == contents(path)
    assert "other numerics" not in capfd.readouterr().err


def test_the_plan_is_shown_for_people_and_programs(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "out.webp"
    assert main([*RENDER, "-o", str(path), "--quality", "60"]) == 0
    capfd.readouterr()
    assert main(["inspect", str(path)]) == 0
    shown = capfd.readouterr().out
    assert "0: a toy, a (red:1.2) house | a toy, a storm::0.5 --ease in\n" in shown
    assert "2: a toy, a lion --neg fog --hold 0.2\n" in shown
    assert "\nguidance: 0:(4), 3:(4+2*sin(t))\n" in shown
    assert "\nsampler: unipc\n" in shown
    assert "\nquality: 60\n" in shown
    assert "fps:" not in shown, "what is the default is left out"
    assert main(["inspect", str(path), "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["settings"]["steps"] == "0:(2), 3:(4)"
    assert record["settings"]["head"] == ""
    assert record["numerics"]["runtime"] == "onnxruntime"


def test_another_runtime_or_batch_is_said(tmp_path: Path, capfd: Capture) -> None:
    path, again = tmp_path / "out.gif", tmp_path / "again.gif"
    assert main([*RENDER, "-o", str(path)]) == 0
    words = ["inspect", str(path), "--again", "-o", str(again), "--batch", "8"]
    assert main([*words, "--runtime", "openvino", "--precision", "fp32"]) == 0
    said = capfd.readouterr().err
    assert "other numerics than before: batch was 16, is 8\n" in said
    assert "other numerics than before: runtime was onnxruntime, is openvino\n" in said


def test_an_init_picture_has_to_be_the_same_one(tmp_path: Path, capfd: Capture) -> None:
    picture, path, again = (tmp_path / name for name in ("in.png", "out.gif", "again.gif"))
    ramp = np.linspace(0, 255, 128 * 128 * 3).reshape(128, 128, 3).astype(np.uint8)
    Image.fromarray(ramp).save(picture)
    image = ["--image", str(picture), "--strength", "0:(0.5), 3:(1)"]
    assert main([*RENDER, "-o", str(path), *image]) == 0
    words = ["inspect", str(path), "--again", "-o", str(again)]
    assert main(words) == 0
    assert again.read_bytes() == path.read_bytes()
    Image.fromarray(255 - ramp).save(picture)
    assert refused(*words, "--force")
    assert "is not the picture that the file was made from" in capfd.readouterr().err
    picture.unlink()
    assert refused(*words, "--force")
    assert f"{picture} cannot be read: No such file or directory" in capfd.readouterr().err


def test_another_model_has_to_be_named(tmp_path: Path, capfd: Capture) -> None:
    from giffusion.engine.encode import read_metadata
    from tests.server.files import write_gif

    path, again = tmp_path / "out.gif", tmp_path / "again.gif"
    assert main([*RENDER, "-o", str(path)]) == 0
    record = json.loads(read_metadata(path) or "")
    record["numerics"]["fingerprint"] = "0" * 16
    write_gif(path, json.dumps(record))
    words = ["inspect", str(path), "--again", "-o", str(again)]
    capfd.readouterr()
    assert refused(*words)
    said = capfd.readouterr().err
    assert "was made by another model 'mini', 0000000000000000, than the one here" in said
    assert said.count("\n") == 1
    assert main([*words, "--model", "mini"]) == 0
    assert "another model than before: it was 0000000000000000" in capfd.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["", "a comment of somebody's", "[]", "{}", '{"giffusion": 1}', "[" * 100_000],
)
def test_files_without_a_plan_are_a_line(tmp_path: Path, capfd: Capture, text: str) -> None:
    from tests.server.files import write_gif

    path = tmp_path / "out.gif"
    write_gif(path, text)
    assert refused("inspect", str(path))
    said = capfd.readouterr().err
    assert said.startswith(f"giffusion: {path}")
    assert said.count("\n") == 1


def test_again_and_its_output_go_together(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "out.gif"
    assert main([*RENDER, "-o", str(path)]) == 0
    assert refused("inspect", str(path), "--again")
    assert "give -o FILE" in capfd.readouterr().err
    assert refused("inspect", str(path), "-o", str(tmp_path / "b.gif"))
    assert "without --again" in capfd.readouterr().err
    assert refused("inspect", str(tmp_path / "none.gif"))
    assert "none.gif cannot be read as GIF: No such file" in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--batch=3", "--model=mini", "--force", "--runtime=nosuch"])
def test_what_only_a_render_takes_needs_again(tmp_path: Path, capfd: Capture, option: str) -> None:
    from tests.server.files import write_gif

    write_gif(tmp_path / "out.gif", PLAIN)
    assert refused("inspect", str(tmp_path / "out.gif"), option)
    said = capfd.readouterr().err
    assert said == f"giffusion: {option.replace('=', ' ')} without --again: give both, or neither\n"


def test_other_code_than_before_is_said(tmp_path: Path, capfd: Capture) -> None:
    from tests.server.files import write_gif

    path, again = tmp_path / "out.gif", tmp_path / "again.gif"
    write_gif(path, PLAIN)
    words = ["inspect", str(path), "--again", "-o", str(again), "--model", "mini"]
    assert main([*words, "--runtime", "onnxruntime"]) == 0
    assert "other code than before: giffusion was 0.0.1, is " in capfd.readouterr().err


def test_letters_that_a_terminal_lacks_are_shown_by_number(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "giffusion.server", "plan", "--prompts", "0: \u00e4"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr
    assert "'\\xe4'" in done.stdout


def test_pingpong_is_the_frames_and_then_backwards(tmp_path: Path) -> None:
    there, both = tmp_path / "a" / "%d.png", tmp_path / "b" / "%d.png"
    words = [*RENDER[:-3], "--frames", "5"]
    assert main([*words, "-o", str(there)]) == 0
    assert main([*words, "-o", str(both), "--pingpong"]) == 0
    shown = [np.asarray(Image.open(both.parent / f"{n}.png")).tobytes() for n in range(8)]
    once = [np.asarray(Image.open(there.parent / f"{n}.png")).tobytes() for n in range(5)]
    assert shown == once + once[3:0:-1]
    assert len(list(both.parent.iterdir())) == 8


@pytest.mark.parametrize(
    "change",
    [{"batch": "16"}, {"runtime": 1}, {"precision": []}, {"encoder": {}}, {"model": None}],
)
def test_damaged_numerics_are_a_line(
    tmp_path: Path, capfd: Capture, change: dict[str, object]
) -> None:
    from giffusion.engine.encode import read_metadata
    from tests.server.files import write_gif

    path, again = tmp_path / "out.gif", tmp_path / "again.gif"
    assert main([*RENDER, "-o", str(path)]) == 0
    record = json.loads(read_metadata(path) or "")
    record["numerics"] |= change
    write_gif(path, json.dumps(record))
    capfd.readouterr()
    assert refused("inspect", str(path), "--again", "-o", str(again))
    said = capfd.readouterr().err
    assert "its plan is damaged" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", ["--batch", "--quality"])
def test_a_zero_is_no_option_left_out(tmp_path: Path, capfd: Capture, option: str) -> None:
    path, again = tmp_path / "out.webp", tmp_path / "again.webp"
    assert main([*RENDER, "-o", str(path)]) == 0
    assert refused("inspect", str(path), "--again", "-o", str(again), option, "0")
    assert f"{option[2:]} 0 is out of range" in capfd.readouterr().err


def test_a_registered_model_is_found_by_what_it_is(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is called now: by its fingerprint, past models that are broken."""
    from giffusion.engine.places import HOME
    from tests.catalogue.slim import slim_model

    monkeypatch.setenv(HOME, str(tmp_path / "data"))
    for name in ("first", "other"):
        slim_model(tmp_path / name)
        assert main(["models", "add", str(tmp_path / name), "--name", name]) == 0
    (tmp_path / "first" / "denoise.onnx").unlink()
    path, again = tmp_path / "out.gif", tmp_path / "again.gif"
    assert main([*RENDER, "-o", str(path), "--model", "other"]) == 0
    assert main(["models", "rm", "other"]) == 0
    words = ["inspect", str(path), "--again", "-o", str(again)]
    capfd.readouterr()
    # The model calls itself mini, and the bundled one of that name is another.
    assert refused(*words)
    assert "was made by another model 'mini', " in capfd.readouterr().err
    assert main(["models", "add", str(tmp_path / "other"), "--name", "renamed"]) == 0
    assert main(words) == 0
    assert again.read_bytes() == path.read_bytes()
    assert "another model than before" not in capfd.readouterr().err
