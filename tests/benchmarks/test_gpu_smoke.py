"""The GPU benchmark with small shapes on the CPU; nothing here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
COLUMNS = ("eager", "torch", "torch-launched", "compile", "onnxruntime")
CUDA = "import torch, sys; sys.exit(torch.cuda.is_available())"
FIGURES = ("denoise", "decode", "device", "file")
TORCH, EAGER, ONNX = "giffusion torch", "diffusers eager", "giffusion onnxruntime"

# On a GPU the same command measures the GPU, and compiles for minutes.
pytestmark = pytest.mark.skipif(
    subprocess.run([sys.executable, "-c", CUDA]).returncode != 0, reason="there is a GPU"
)


def run(output: Path, *options: str) -> dict[str, Any]:
    subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--quick", "--output", str(output), *options],
        cwd=ROOT,
        check=True,
        timeout=280,
        stdout=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return result


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("gpu") / "gpu.json"
    return run(output, "--rows", "sd15", "sdxl", "--columns", *COLUMNS)


def test_every_column_is_measured_or_says_why_not(result: dict[str, Any]) -> None:
    measured = {key: set(row["contestants"]) for key, row in result["rows"].items()}
    batches = (1, 2)
    assert measured == {
        "sd15": {f"{column}, batch {n}" for column in (EAGER, TORCH, ONNX) for n in batches},
        "sdxl": {f"{column}, batch {n}" for column in (EAGER, TORCH) for n in batches},
    }
    skipped = result["rows"]["sd15"]["skipped"]
    assert skipped.keys() == {
        "giffusion torch, no CUDA graphs, batch 1",
        "diffusers torch.compile, batch 1",
    }
    assert all(skipped.values())
    reasons = result["rows"]["sdxl"]["skipped"]
    assert "pooled" in reasons[f"{TORCH}, batch 2: device, file"]
    assert "pooled" in reasons[f"{ONNX}, batch 1"]


def test_figures_have_a_value_a_repeat_and_their_operations(result: dict[str, Any]) -> None:
    row = result["rows"]["sd15"]
    assert row["flop"]["frame"] == 3 * 2 * row["flop"]["row"] + row["flop"]["frame_decode"]
    for figure in FIGURES:
        assert row["figures"][figure].keys() == row["contestants"].keys()
        for found in row["figures"][figure].values():
            assert len(found["values"]) == result["settings"]["repeats"] == 2
            assert 0 < found["low"] <= found["median"] <= found["high"]
            operations = {"denoise": "row", "decode": "frame_decode"}.get(figure, "frame")
            expected = found["median"] * row["flop"][operations] / 1e12
            assert found["tflops"] == pytest.approx(expected, abs=1e-4)
            assert found["share_of_limit"] is None
    assert row["ratios"]["file at best batch"].keys() == {"torch", "onnxruntime"}


def test_contestants_make_the_same_pictures(result: dict[str, Any]) -> None:
    found = result["rows"]["sd15"]["agreement"]
    assert found.keys() == result["rows"]["sd15"]["contestants"].keys()
    assert all(agreement["mean_levels"] < 0.1 for agreement in found.values())


def test_the_result_says_what_it_is_of(result: dict[str, Any], tmp_path: Path) -> None:
    assert result["machine"]["gpu"] is None
    assert result["settings"]["weights"] == "random in every row"
    assert {row["weights"] for row in result["rows"].values()} == {"random"}
    assert str(ROOT) not in json.dumps(result)


def test_what_there_is_no_time_for_says_how_to_run_it(tmp_path: Path) -> None:
    run(tmp_path / "gpu.json", "--rows", "turbo", "--budget-s", "0")
    result = run(tmp_path / "gpu.json", "--rows", "lcm", "--budget-s", "0")
    # The rows of the run before are kept: the table can be measured in parts.
    assert [*result["rows"]] == ["turbo", "lcm"]
    row = result["rows"]["lcm"]
    assert "figures" not in row
    assert [*row["skipped"]] == [f"{EAGER}, batch 1", f"{TORCH}, batch 1"]
    reason = row["skipped"][f"{TORCH}, batch 1"]
    assert reason.endswith("python -m benchmarks.gpu --rows lcm --columns torch")


def test_without_a_gpu_the_real_shapes_are_refused_in_a_line() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("or give --quick for small shapes")


def test_operations_are_those_of_published_tables() -> None:
    """UNet a row and decoder a frame, in 10^12, as counted elsewhere for these models."""
    code = """
import json
from dataclasses import asdict
from benchmarks.gpu.networks import Networks
from benchmarks.gpu.rows import ROWS
print(json.dumps({row.key: asdict(Networks(row, "fp16", "cpu").cost()) for row in ROWS}))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=250)
    costs = json.loads(done.stdout.splitlines()[-1])
    found = {key: (cost["row"] / 1e12, cost["frame_decode"] / 1e12) for key, cost in costs.items()}
    assert found["turbo"] == pytest.approx((0.804, 0.141), abs=0.001)
    assert found["lcm"] == pytest.approx((0.803, 0.141), abs=0.001)
    assert found["sd15"] == pytest.approx((0.803, 2.515), abs=0.001)
    assert found["sdxl"] == pytest.approx((6.761, 10.47), abs=0.001)


def test_a_compiled_peer_is_compiled_once_for_all_its_figures() -> None:
    code = """
import tempfile
from pathlib import Path
import torch
from torch._dynamo.utils import counters
compile = torch.compile
torch.compile = lambda f, mode, **rest: compile(f, backend="eager", **rest)
from benchmarks.gpu.contest import make_job
from benchmarks.gpu.networks import Networks
from benchmarks.gpu.peers import Peer, Pipeline
from benchmarks.gpu.rows import QUICK_ROWS
from benchmarks.workload import Keep
row = next(row for row in QUICK_ROWS if row.key == "sd15")
with tempfile.TemporaryDirectory() as name:
    job = make_job(row, Networks(row, "fp32", "cpu"), Path(name))
    peer = Peer(Pipeline(job, compiled=True), "compile", 2)
    peer.to_device(2)
    peer.denoise_rate(0.01)
    peer.decode_rate(0.01)
    kept = Keep()
    peer.render(kept, 3)
    print(len(kept.frames), counters["stats"]["unique_graphs"])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=250)
    # The UNet and the decoder.
    assert done.stdout.split() == [b"3", b"2"]


def test_a_compilation_without_an_end_is_given_up_and_closed() -> None:
    code = """
import time
from benchmarks.gpu.columns import COMPILE, SkipError, opened
class Endless:
    figures, frames = ("device",), 1
    def to_device(self, num_frames):
        while True:
            time.sleep(0.01)
    def close(self):
        print("closed")
try:
    opened(COMPILE, lambda held: Endless(), 1, time.perf_counter(), 1.0)
except SkipError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=250)
    expected = ["closed", "TimeoutError: it took more than the 1 s that were left"]
    assert done.stdout.decode().splitlines() == expected
