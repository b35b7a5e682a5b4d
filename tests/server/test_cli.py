"""The command line as a user meets it: refusals in a line, whole renders, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import read_metadata
from giffusion.engine.model import load_model
from giffusion.models import find_model
from giffusion.server.cli import main
from tests.engine.audio.sounds import write_wav
from tests.engine.media.films import numbered_film

PROMPTS = "0: a dog\n4: a lion"
FAST = ["--steps", "2", "--runtime", "onnxruntime", "--size", "64x96"]
GIFFUSION = [sys.executable, "-m", "giffusion.server"]


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GIFFUSION, *arguments],
        input=stdin.decode("utf-8", "surrogateescape"),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=120,
    )


def events(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompts", ""], "--prompts:1:1: no key frame"),
        (["--prompts", "# nothing"], "no key frame"),
        (["--prompts", "a dog"], "--prompts:1:1: "),
        (["--prompts", "0: a\n0: b"], "--prompts:2:1: key frame 0 stands on line 1"),
        (["--prompts", "1000000000: a dog"], "expected 0 to 999999"),
        (["--prompts", "-5: a dog"], "--prompts:1:1: "),
        (["--prompts", "0:"], "--prompts:1:"),
        (
            ["--prompts", "0: a", "--sampler", "eulr"],
            "unknown sampler 'eulr': did you mean 'euler'",
        ),
        (["--prompts", "0: a", "--model", "minni"], "unknown model 'minni': did you mean 'mini'"),
        (
            ["--prompts", "0: a", "--size", "100x96"],
            "expected multiples of 32 pixels, such as 96x96",
        ),
        (["--prompts", "0: a", "--size", "big"], "size 'big' is not a size: expected WIDTHxHEIGHT"),
        (["--prompts", "0: a", "--size", "64000x64000"], "size 64000 is out of range"),
        (["--prompts", "0: a", "--fps", "0"], "fps 0 is out of range"),
        (["--prompts", "0: a", "--fps", "1/0"], "fps '1/0' is not a frame rate"),
        (["--prompts", "0: a", "--steps", "0"], "steps is 0: expected 1 to 1000"),
        (["--prompts", "0: a", "--steps", "x"], "unknown name 'x'"),
        (["--prompts", "0: a", "--steps", "1000", "--sampler", "dpm"], "steps do not fit"),
        (["--prompts", "0: a", "--guidance", "nan"], "unknown name 'nan'"),
        (["--prompts", "0: a", "--guidance", "inf"], "unknown name 'inf'"),
        (["--prompts", "0: a", "--seed", "-1"], "seed"),
        (["--prompts", "0: a", "--frames", "0"], "frames 0 is out of range"),
        (["--prompts", "0: a", "--frames", "1000000000"], "frames 1000000000 is out of range"),
        (["--prompts", "0: a", "--latents", "cubic"], "unknown latents 'cubic'"),
        (["--prompts", "0: a", "--runtime", "tensorflow"], "unknown runtime 'tensorflow'"),
        (["--prompts", "0: a", "--precision", "int8"], "unknown precision 'int8'"),
        (
            ["--prompts", "0: a", "--runtime", "onnxruntime", "--precision", "bf16"],
            "expected fp32",
        ),
        (["--prompts", "0: a", "--batch", "0"], "batch 0 is out of range"),
        (["--prompts", "0: a", "--batch", "1"], "expected --batch 2 or more"),
        (
            ["--prompts", "0: a", "--stepz", "3"],
            "unknown option '--stepz': did you mean",
        ),
        (["--prompts", "0: a", "nothing.txt"], "either in a file or by --prompts"),
        ([], "either in a file or by --prompts"),
        (["nothing.txt"], "nothing.txt cannot be read: No such file"),
    ],
)
def test_a_wrong_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["render", "-o", "out.mp4", *arguments])
    except SystemExit as stop:  # argparse's own way out
        code = int(str(stop.code))
    out, err = capfd.readouterr()
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("giffusion: ")
    assert out == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/out.mp4", "none does not exist"),
        ("out.avi", "extension '.avi' is unknown: did you mean '.avif'?"),
        ("out", "extension is missing"),
        ("folder.mp4", "is a folder"),
        ("taken.mp4", "taken.mp4 exists: give --force to replace it"),
    ],
)
def test_an_unusable_output_is_refused_before_rendering(
    name: str, message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "taken.mp4").write_bytes(b"mine")
    code = main(["render", "--prompts", "0: a dog", "-o", str(tmp_path / name)])
    err = capfd.readouterr().err
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert (tmp_path / "taken.mp4").read_bytes() == b"mine"


def test_gif_faster_than_its_clock_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = str(tmp_path / "out.gif")
    assert main(["render", "--prompts", "0: a dog", "-o", output, "--fps", "120"]) == 2
    assert "fps" in capfd.readouterr().err


def test_help_and_errors_load_nothing_heavy() -> None:
    heavy = ["numpy", "av", "PIL", "onnxruntime", "openvino", "tokenizers", "tqdm"]
    script = (
        "import sys\n"
        "from giffusion.server.cli import main\n"
        "try:\n    main(['render', '--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == "[]"
    assert "--guidance G" in done.stdout
    assert "default: 3.0" in done.stdout
    assert "with motion as many of them as its chains fill" in " ".join(done.stdout.split())


def test_a_video_and_a_gif_are_rendered_and_carry_their_plan(tmp_path: Path) -> None:
    for extension in ("mp4", "gif"):
        output = tmp_path / f"out.{extension}"
        options = ["--fps", "20", "--seed", "7", "--json", *FAST]
        done = run("render", "--prompts", PROMPTS, "-o", str(output), *options)
        assert done.returncode == 0, done.stderr
        last = events(done.stdout)[-1]
        assert (last["event"], last["num_frames"], last["size"]) == ("done", 5, [64, 96])
        text = read_metadata(output)
        assert text is not None
        plan = json.loads(text)
        assert plan["prompts"].splitlines() == PROMPTS.splitlines()
        assert plan["settings"]["seed"] == 7
        assert plan["numerics"]["runtime"] == "onnxruntime"
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert video.streams.video[0].average_rate == 20
        assert sum(1 for _ in video.decode(video=0)) == 5
    with Image.open(tmp_path / "out.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 5
        assert gif.info["duration"] == 50


def test_reruns_are_bit_identical_and_a_seed_matters(tmp_path: Path) -> None:
    files = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        output = tmp_path / f"{name}.mp4"
        done = run("render", "--prompts", PROMPTS, "-o", str(output), "--seed", seed, *FAST)
        assert done.returncode == 0, done.stderr
        with av.open(str(output)) as video:
            files.append([frame.to_ndarray().tobytes() for frame in video.decode(video=0)])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_prompts_come_from_a_file_or_standard_input(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    from_file = run("plan", str(tmp_path / "prompts.txt"), "--json")
    from_stdin = run("plan", "-", "--json", stdin=PROMPTS.encode())
    from_option = run("plan", "--prompts", PROMPTS, "--json")
    assert from_file.stdout == from_stdin.stdout == from_option.stdout
    assert len(events(from_file.stdout)) == 5


def test_text_that_is_not_utf8_is_told() -> None:
    done = run("plan", "-", stdin=b"0: caf\xe9")
    assert done.returncode == 2
    assert (
        done.stderr
        == "giffusion: <stdin> is not UTF-8 text: byte 6 cannot be read; save it as UTF-8\n"
    )


def test_plan_prints_one_object_a_frame(capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--fps", "30000/1001", "--guidance", "4", "--negative", "blurry", "--steps", "9"]
    assert main(["plan", "--prompts", PROMPTS, "--json", *options]) == 0
    plans = events(capfd.readouterr().out)
    assert [plan["frame"] for plan in plans] == [0, 1, 2, 3, 4]
    assert plans[2] == {
        "frame": 2,
        "time_s": 2 * 1001 / 30000,
        "from": 0,
        "to": 4,
        "weight": 0.5,
        "guidance": 4.0,
        "steps": 9,
        "strength": 1.0,
        "noise": 1.0,
        "seed_weight": 0.5,
        "control_scale": 0.0,
        "zoom": 1.0,
        "angle": 0.0,
        "translate_x": 0.0,
        "translate_y": 0.0,
        "follows": None,
        "seed": [plans[0]["seed"][0], plans[4]["seed"][0]],  # type: ignore[index]
        "rows": [
            {"prompt": ["blurry", "blurry"], "weight": -3.0},
            {"prompt": ["a dog", "a lion"], "weight": 4.0},
        ],
    }


def test_plan_for_reading_names_keys_and_prompts(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--prompts", PROMPTS]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "0→4" in lines[1]
    assert "'a dog' → 'a lion'" in lines[1]


def test_plan_for_reading_shows_what_is_not_at_rest(capfd: pytest.CaptureFixture[str]) -> None:
    motion = ["--zoom", "1+t/100", "--angle", "2", "--strength", "0.4", "--noise", "1.1"]
    assert main(["plan", "--prompts", PROMPTS, *motion]) == 0
    first, _, third, *_ = capfd.readouterr().out.splitlines()
    assert "←" not in first
    assert "strength" not in first
    assert "  ← 1, strength 0.4, noise 1.1, zoom 1.02, angle 2  -2 × ''" in third
    assert main(["plan", "--prompts", PROMPTS]) == 0
    assert "  0→4  0.500  -2 × '' + 3 × 'a dog' → 'a lion'" in capfd.readouterr().out


def test_plan_says_what_it_takes_from_films_and_hears_of_sounds(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    film = numbered_film(tmp_path / "in.mp4", 12)
    assert main(["plan", "--prompts", "0: a dog", "--video", str(film), "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == f"giffusion: {film}: 12 frames at 24 a second\n"
    assert len(events(out)) == 12
    sound = write_wav(tmp_path / "silence.wav", np.zeros(22050, np.float32))
    heard = ["plan", "--prompts", PROMPTS, "--audio", str(sound)]
    assert main(heard) == 0
    assert capfd.readouterr().err == ""
    assert main([*heard, "--interpolation", "audio"]) == 0
    assert capfd.readouterr().err == f"giffusion: {sound}: only silence is heard\n"


def test_a_render_says_what_it_decided_in_the_programs_name(tmp_path: Path) -> None:
    done = run("render", "--prompts", "0: a dog", "-o", str(tmp_path / "a.gif"), "--steps", "1")
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert any(line.startswith("giffusion: runtime auto: ") for line in lines)


def test_plan_needs_no_model_and_no_numpy() -> None:
    script = (
        "import sys\nsys.modules['numpy'] = None\n"
        "from giffusion.server.cli import main\n"
        f"sys.exit(main(['plan', '--prompts', {PROMPTS!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [*GIFFUSION, "plan", "--prompts", "0: a dog\n20000: a lion", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_cut_prompt_is_shown(tmp_path: Path) -> None:
    prompt = "a dog " + "and a cat " * 12 + "in a red house"
    output = str(tmp_path / "out.mp4")
    done = run("render", "--prompts", f"0: {prompt}", "-o", output, *FAST)
    assert done.returncode == 0
    warning = done.stderr.splitlines()[0]
    assert warning.startswith("giffusion: warning: prompt 'a dog and a cat")
    assert warning.endswith("and a cat and a cat in a red house'")


def test_force_replaces(tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    output.write_bytes(b"old")
    done = run("render", "--prompts", "0: a dog", "-o", str(output), "--force", *FAST)
    assert done.returncode == 0, done.stderr
    assert output.stat().st_size > 1000


@pytest.mark.parametrize(
    ("signum", "options", "kept"),
    [
        (signal.SIGINT, [], []),
        (signal.SIGTERM, [], []),
        (signal.SIGINT, ["--keep-partial"], ["out.partial.mp4"]),
    ],
)
def test_a_stopped_render_leaves_nothing_or_a_partial_file(
    signum: signal.Signals, options: list[str], kept: list[str], tmp_path: Path
) -> None:
    output = str(tmp_path / "out.mp4")
    command = [*GIFFUSION, "render", "--prompts", "0: a dog\n9999: a lion", "-o", output, "--json"]
    with subprocess.Popen(
        [*command, *FAST, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while json.loads(process.stdout.readline()).get("done", 0) < 10:
            pass
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert err.startswith("giffusion: interrupted")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == kept
    for name in kept:
        assert name in err
        with av.open(str(tmp_path / name)) as video:
            assert sum(1 for _ in video.decode(video=0)) >= 10


def test_models_lists_the_bundled_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert capfd.readouterr().out.startswith("mini ")
    assert main(["models", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)["mini"]
    width, height = load_model(find_model("mini")).manifest.size
    assert (facts["size"], facts["prediction"]) == (f"{width}x{height}", "v_prediction")


def test_doctor_says_what_works_and_why_not(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    listed = json.loads(capfd.readouterr().out)["findings"]
    findings = {(f["kind"], f["name"]): f for f in listed}
    assert len(findings) == len(listed)
    for runtime in ("onnxruntime", "openvino", "torch", "auto"):
        assert findings["runtime", runtime]["works"]
    for encoder in ("libx264", "libsvtav1", "gif", "auto"):
        assert findings["encoder", encoder]["works"]
    for kind, name in (("runtime", "tensorrt-rtx"), ("encoder", "h264_nvenc")):
        finding = findings[kind, name]
        assert finding["works"] or "no NVIDIA driver" in finding["detail"]
    assert main(["doctor"]) == 0
    assert "onnxruntime" in capfd.readouterr().out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full here")
def test_a_full_standard_output_is_a_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*GIFFUSION, "models"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert done.returncode == 2
    assert done.stderr == ("giffusion: standard output cannot be written: no space is left there\n")


def test_encoders_that_cannot_be_used_are_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    render = ["render", "--prompts", "0: a", "-o", "never.mp4", "--encoder"]
    assert main([*render, "x264"]) == 2
    assert "unknown encoder 'x264': did you mean 'libx264'" in capfd.readouterr().err
    assert main([*render, "gif"]) == 2
    assert "encoder gif does not write MP4: expected auto or libx264" in capfd.readouterr().err
