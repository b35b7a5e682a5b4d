"""The benchmarks run to their end with small settings; nothing here looks at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(name: str, output: Path, *more: str) -> dict[str, Any]:
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--output", str(output), *more],
        cwd=ROOT,
        check=True,
        timeout=250,
        stdout=subprocess.DEVNULL,
    )
    result: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return result


def test_cpu_compares_the_engine_with_diffusers(tmp_path: Path) -> None:
    result = run("cpu", tmp_path / "cpu.json", "--frames", "2", "--steps", "1")
    names = " ".join(result["tuning_frames_per_s"])
    assert all(name in names for name in ("giffusion onnxruntime fp32", "diffusers fp32"))
    assert result["encoder_frames_per_s"] > 0
    assert result["cold_start_s"]


def test_loop_keeps_rows_busy_and_repeats_its_bits(tmp_path: Path) -> None:
    result = run("loop", tmp_path / "loop.json")
    assert all(busy["while_waiting"] > 0.95 for busy in result["rows_busy"].values())
    assert all(result["same_bits"].values())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts VmHWM")
def test_memory_has_a_peak_for_every_format(tmp_path: Path) -> None:
    result = run("memory", tmp_path / "memory.json")
    assert result["peaks"].keys() == {"mp4", "gif"}


def test_results_name_the_machine_and_no_path(tmp_path: Path) -> None:
    result = run("memory", tmp_path / "memory.json")
    assert {"cpu", "features", "num_cores", "versions"} <= result["machine"].keys()
    assert str(tmp_path) not in json.dumps(result)
    assert str(ROOT) not in json.dumps(result)
