"""`giffusion build` and `giffusion engines`, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from giffusion.engine.errors import (
    DeviceError,
    DeviceMemoryError,
    GiffusionError,
    RuntimeUnavailableError,
    SettingsError,
)
from giffusion.engine.places import CACHE, HOME
from giffusion.engine.runtimes.cuda.bindings import open_cuda
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.runtimes.tensorrt.store import EngineStore
from giffusion.models import find_model
from giffusion.server.cli import main
from giffusion.server.commands import engines
from tests.catalogue.slim import slim_model
from tests.server.conftest import Command

BUILD = "build mini --device sm89 --size 64x64 --batch 2"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the four engines of the bundled model, built for real."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE, str(folder))
        assert main(shlex.split(BUILD)) == 0
    return folder


@pytest.fixture
def command(cache: Path, monkeypatch: pytest.MonkeyPatch, program: Command) -> Command:
    monkeypatch.setenv(CACHE, str(cache))

    return program


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
    monkeypatch.setenv(CACHE, str(tmp_path))
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


def test_verify_passes_over_registered_models_that_are_broken(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, str(tmp_path / "data"))
    slim_model(tmp_path / "broken")
    assert command(f"models add {tmp_path / 'broken'} --name broken")[0] == 0
    before = command("engines verify")
    (tmp_path / "broken" / "denoise.onnx").write_bytes(b"")
    assert command("engines verify") == before
    assert before[0] == 0
    status, _, err = command(f"engines verify --model {tmp_path / 'broken'}")
    assert status == 2
    assert "denoise.onnx is not the file that was exported" in err


class Gpu:
    """Stands in for the runtime on the engines' own GPU, and keeps what it was opened with.

    Args:
        wrong_slot: the slot that renders another frame, if one does.
        failure: what opening it raises.
    """

    def __init__(
        self, wrong_slot: int | None = None, failure: GiffusionError | None = None
    ) -> None:
        self._wrong_slot = wrong_slot
        self._failure = failure
        self.opened: list[tuple[str, str]] = []
        self.engines: list[list[tuple[str, str]]] = []

    def __call__(self, name: str, precision: str, *, store: EngineStore) -> FakeRuntime:
        if self._failure is not None:
            raise self._failure
        self.opened.append((name, precision))
        self.engines.append([(e.manifest.made_for.stage, e.key) for e in store.engines()])
        return FakeRuntime() if self._wrong_slot is None else _Uneven(self._wrong_slot)


class _Uneven(FakeRuntime):
    def __init__(self, slot: int) -> None:
        super().__init__()
        self._slot = slot

    def load(self, path, spec, axes, feedback=None):  # type: ignore[no-untyped-def]
        graph = super().load(path, spec, axes, feedback)
        execute = graph._execute

        def uneven(inputs, outputs):  # type: ignore[no-untyped-def]
            execute(inputs, outputs)
            if spec.name == "denoise":
                outputs["next_state"][self._slot] += 1

        graph._execute = uneven  # type: ignore[method-assign]
        return graph


def denoise_key(command: Command) -> str:
    entries = json.loads(command("engines ls --json")[1])
    return str(next(entry["key"] for entry in entries if entry["stage"] == "denoise"))


def test_verify_renders_on_the_engines_own_gpu(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, gpu = denoise_key(command), Gpu()
    monkeypatch.setattr(engines, "TensorRtRuntime", gpu)
    status, out, _ = command("engines verify")
    assert status == 0
    rendered = f"{key}: the plan is the one that was built; every slot renders the same frame"
    assert rendered in out.splitlines()
    assert gpu.opened == [("tensorrt-rtx", "fp16")]


def test_verify_renders_with_the_engine_that_it_names(
    command: Command, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(CACHE, str(tmp_path))
    narrow = denoise_key(command)
    store = EngineStore()
    # One with more profiles, which a render would take instead.
    wide, _ = store.make(
        replace(store.get(narrow).manifest.made_for, batches=(2, 4)), lambda: memoryview(b"plan")
    )
    gpu = Gpu()
    monkeypatch.setattr(engines, "TensorRtRuntime", gpu)
    for key in (narrow, wide.key):
        assert command(f"engines verify {key}")[0] == 0
        assert [k for stage, k in gpu.engines[-1] if stage == "denoise"] == [key]
        assert len(gpu.engines[-1]) == 4


def test_verify_names_the_slots_that_render_another_frame(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = denoise_key(command)
    monkeypatch.setattr(engines, "TensorRtRuntime", Gpu(wrong_slot=1))
    status, out, err = command("engines verify")
    assert status == 2
    assert f"engine {key} at batch 2: slots 1 render another frame than slot 0 alone" in out
    assert err == "giffusion: 1 of 4 engines are broken: see above\n"


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeUnavailableError("no engine for this GPU"),
        SettingsError("precision 'bf16' is not available on sm75 with tensorrt-rtx: expected fp16"),
        DeviceMemoryError("the device's memory is used up"),
    ],
)
def test_an_engine_that_this_gpu_cannot_run_is_not_broken(
    command: Command, monkeypatch: pytest.MonkeyPatch, failure: GiffusionError
) -> None:
    monkeypatch.setattr(engines, "TensorRtRuntime", Gpu(failure=failure))
    status, out, err = command("engines verify")
    assert (status, err) == (0, "")
    assert f"the plan is the one that was built; not rendered: {failure}\n" in out


def test_a_device_that_fails_ends_verify(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "TensorRtRuntime", Gpu(failure=DeviceError("CUDA is broken")))
    assert command("engines verify")[::2] == (2, "giffusion: CUDA is broken\n")


def test_an_engine_of_a_model_that_is_not_found_is_not_rendered(
    command: Command, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engines, "TensorRtRuntime", Gpu())
    made_for = EngineStore().get(denoise_key(command)).manifest.made_for
    monkeypatch.setenv(CACHE, str(tmp_path))
    EngineStore().make(
        replace(made_for, digest="0" * 64, model="mine"), lambda: memoryview(b"plan")
    )
    status, out, _ = command("engines verify")
    assert status == 0
    assert out.endswith("; not rendered: give its model, 'mine', by --model\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_is_stopped_leaves_no_part_of_an_engine(
    tmp_path: Path, signum: signal.Signals
) -> None:
    command = [sys.executable, "-m", "giffusion.server", *shlex.split(BUILD), "--json"]
    environment = os.environ | {CACHE: str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("what", "").startswith("building denoise") and event["done"]:
                process.send_signal(signum)
                break
        last = process.stdout.read().splitlines()[-1]
        assert process.stderr.read() == "giffusion: interrupted\n"
    assert process.returncode == 128 + signum
    assert json.loads(last) == {"event": "error", "text": "interrupted"}
    assert [
        engine.manifest.made_for.stage for engine in EngineStore(tmp_path / "engines").engines()
    ] == ["text"]
    assert not list((tmp_path / "engines").glob(".part-*"))


def test_a_damaged_plan_is_found_and_can_be_removed(
    command: Command, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv(CACHE, str(tmp_path))
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


def test_a_package_that_is_missing_is_a_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
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
    monkeypatch.setenv(CACHE, str(tmp_path))
    status, _, err = command(BUILD)
    assert status == 2
    assert "cannot be used: Permission denied; set GIFFUSION_CACHE" in err


def test_the_bundled_model_is_found_by_its_folder_too(command: Command) -> None:
    status, out, _ = command(BUILD.replace("mini", shlex.quote(str(find_model("mini")))))
    assert status == 0
    assert out.count("there already") == 4
