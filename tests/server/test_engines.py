"""`giffusion build` and `giffusion engines`, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from giffusion.engine.errors import RuntimeUnavailableError
from giffusion.engine.runtimes.cuda.bindings import open_cuda
from giffusion.engine.runtimes.tensorrt.store import ENVIRONMENT
from giffusion.models import find_model
from giffusion.server.cli import main

BUILD = "build mini --device sm89 --size 64x64 --batch 2"
Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the four engines of the bundled model, built for real."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(folder))
        assert main(shlex.split(BUILD)) == 0
    return folder


@pytest.fixture
def command(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv(ENVIRONMENT, str(cache))

    def run(line: str) -> tuple[int, str, str]:
        try:
            status = main(shlex.split(line))
        except SystemExit as ended:  # what argparse refuses
            status = int(str(ended.code))
        out, err = capfd.readouterr()
        return status, out, err

    return run


def has_gpu() -> bool:
    try:
        open_cuda()
    except RuntimeUnavailableError:
        return False
    return True


def test_what_was_built_is_listed(command: Command, cache: Path) -> None:
    status, out, _ = command("engines ls")
    assert status == 0
    *lines, total = out.splitlines()
    assert len(lines) == 4
    for stage, at in (
        ("text", ""),
        ("denoise", " 64x64"),
        ("decode", " 64x64"),
        ("encode", " 64x64"),
    ):
        pattern = rf"[0-9a-f]{{16}}  mini {stage} fp16{at} batch [0-9,]+ for sm89, tensorrt-rtx "
        assert any(re.match(pattern, line) for line in lines)
    assert re.fullmatch(rf"4 engines, \d+ MiB, in {re.escape(str(cache / 'engines'))}", total)


def test_a_second_build_finds_everything_there(command: Command) -> None:
    status, out, _ = command(BUILD)
    assert status == 0
    assert [line.rsplit(", ", 1)[1] for line in out.splitlines()] == ["there already"] * 4
    status, out, _ = command(BUILD + " --json")
    events = [json.loads(line) for line in out.splitlines()]
    assert [(event["event"], event["stage"], event["built"]) for event in events] == [
        ("engine", stage, False) for stage in ("text", "denoise", "decode", "encode")
    ]


def test_a_build_in_json_tells_how_far_it_is(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    status, out, _ = command(BUILD + " --json")
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    builds = [event for event in events if event["event"] == "build"]
    assert {event["what"] for event in builds} == {
        f"building {stage}.fp16 for sm89" for stage in ("text", "denoise", "decode", "encode")
    }
    assert [event["built"] for event in events if event["event"] == "engine"] == [True] * 4


def test_verify_reads_every_plan(command: Command, cache: Path) -> None:
    status, out, _ = command("engines verify")
    assert status == 0
    assert out.count("the plan is the one that was built") == 4
    if not has_gpu():
        assert out.count("not rendered: no NVIDIA driver is loaded here") == 1


def test_a_damaged_plan_is_found_and_can_be_removed(
    command: Command, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    entries = json.loads(command("engines ls --json")[1])
    key = next(entry["key"] for entry in entries if entry["stage"] == "encode")
    plan = tmp_path / "engines" / key / "engine.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    status, out, err = command("engines verify")
    assert status == 2
    assert f"engine {key}: engine.plan is not the one that was built" in out
    assert err == "giffusion: 1 of 4 engines are broken: see above\n"
    assert command(f"engines rm {key}") == (0, f"removed {key}\n", "")
    assert command("engines verify")[0] == 0
    assert command("engines rm --all")[0] == 0
    assert command("engines ls --json") == (0, "[]\n", "")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("build minni", "unknown model 'minni': did you mean 'mini'"),
        ("build mini --runtime tensor", "unknown runtime 'tensor': did you mean 'tensorrt'"),
        ("build mini --runtime openvino", "unknown runtime 'openvino': known: tensorrt, tensorr"),
        ("build mini --device sm98", "device 'sm98' is not one of tensorrt-rtx's: did you mean "),
        ("build mini --device sm89,sm89", "device 'sm89' is given 2 times: give it once"),
        ("build mini --device sm89,current", "device 'current' stands alone"),
        ("build mini --device sm75 --precision bf16", "'bf16' is not available on sm75 with"),
        ("build mini --device sm89 --precision int8", "unknown precision 'int8'"),
        ("build mini --device sm89 --size 100x64", "expected multiples of 32 pixels"),
        ("build mini --device sm89 --batch 0", "batch '0' is no list of batches: expected numbe"),
        ("build mini --device sm89 --batch 2,x", "batch '2,x' is no list of batches"),
        ("build mini --device sm89 --batch 2,2", "batch '2,2' names a number twice"),
        ("build mini --device sm89 --batch 2000", "expected numbers from 1 to 1024"),
        ("build", "the following arguments are required: MODEL"),
        ("engines", "the following arguments are required: ACTION"),
        ("engines rm", "expected the keys of engines, or --all: give one of both"),
        ("engines rm abc", "unknown engine 'abc': known: "),
        ("engines verify abc", "unknown engine 'abc': known: "),
        ("engines verify --model nowhere", "unknown model 'nowhere'"),
    ],
)
def test_wrong_use_is_a_line(command: Command, line: str, message: str) -> None:
    status, out, err = command(line)
    assert status == 2
    assert out == ""
    assert err.startswith("giffusion: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_package_that_is_missing_is_a_line(command: Command) -> None:
    status, _, err = command("build mini --runtime tensorrt")
    assert status == 2
    assert "pip install 'giffusion[tensorrt]'" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
@pytest.mark.parametrize(
    "line",
    [
        "build mini",
        "render --prompts '0: a dog' -o never.mp4 --runtime tensorrt-rtx",
    ],
)
def test_a_missing_driver_is_a_line(command: Command, line: str) -> None:
    status, _, err = command(line)
    assert status == 2
    assert re.fullmatch(
        r"giffusion: no NVIDIA driver is loaded here: CUDA \d+ needs driver \d+ or newer\n", err
    )
    assert not Path("never.mp4").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_cache_that_cannot_be_written(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    status, _, err = command(BUILD)
    assert status == 2
    assert "cannot be used: Permission denied; set GIFFUSION_CACHE" in err


def test_the_bundled_model_is_found_by_its_folder_too(command: Command) -> None:
    status, out, _ = command(BUILD.replace("mini", shlex.quote(str(find_model("mini")))))
    assert status == 0
    assert out.count("there already") == 4
