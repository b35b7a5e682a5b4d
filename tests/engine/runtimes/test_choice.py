"""What `auto` takes where there is an NVIDIA GPU: a driver, cards and packages of several kinds."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from giffusion.engine import runtimes
from giffusion.engine.errors import RuntimeUnavailableError, SettingsError
from giffusion.engine.runtimes import ENTRY_POINTS, choose_runtime, examine_runtimes
from giffusion.engine.runtimes.tensorrt import runtime as tensorrt
from giffusion.engine.runtimes.tensorrt.runtime import TensorRtRuntime
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda
from tests.engine.runtimes.tensorrt.simulated_tensorrt import SimulatedTensorRt

OpenTensorRt = Callable[[str | None], TensorRtRuntime]
NO_TENSORRT = "runtime 'tensorrt' does not work here: "


@dataclass
class Driver:
    """The two functions of `libcuda` that are asked."""

    num_gpus: int = 1
    failure: int = 0

    def cuInit(self, flags: int) -> int:
        return self.failure

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.num_gpus
        return 0


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """A driver that has one GPU; `tensorrt` is not installed, and no CUDA package either."""
    made = Driver()
    monkeypatch.setattr(runtimes, "_nvidia_driver", lambda: made)
    for package in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, package, None)
    return made


def install_torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str | None = "a toy card"
) -> None:
    """Registers, before the real one, a runtime `torch` that finds a GPU, or does not load."""
    metadata = folder / "toy_torch-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-torch\nVersion: 1.0\n")
    target = f"{'toy_torch_for_tests' if name else 'no_such_module_here'}:Toy"
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ntorch = {target}\n")
    (folder / "toy_torch_for_tests.py").write_text(
        "class Toy:\n"
        "    name, version = 'torch', '1.0'\n"
        "    def __init__(self, precision=None):\n"
        "        self.precision = precision or 'fp16'\n"
        f"        self.numerics = {{'device': {name!r}}}\n"
    )
    monkeypatch.syspath_prepend(folder)


def install_tensorrt(name: str, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives one of the two packages a simulated GPU to work on."""
    cuda = SimulatedCuda()
    cuda.compute_capability = capability
    # Its types and names of devices are the real package's.
    monkeypatch.delitem(sys.modules, "tensorrt_rtx")
    simulated = SimulatedTensorRt(cuda, name)

    def opened(precision: str | None = None) -> TensorRtRuntime:
        return TensorRtRuntime(
            name, precision, open_package=lambda _: simulated.package, open_device=lambda: cuda
        )

    monkeypatch.setattr(tensorrt, name.replace("-", "_"), opened)


def test_tensorrt_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(tmp_path, monkeypatch)
    install_tensorrt("tensorrt-rtx", "sm89", monkeypatch)
    assert choose_runtime()[1] == "tensorrt-rtx fp16 (it works on this GPU)"
    install_tensorrt("tensorrt", "sm89", monkeypatch)
    runtime, reason = choose_runtime("bf16")
    assert (runtime.name, reason) == ("tensorrt", "tensorrt bf16 (it works on this GPU)")


def test_torch_is_the_next_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(tmp_path, monkeypatch)
    runtime, reason = choose_runtime()
    assert runtime.numerics["device"] == "a toy card"
    assert reason.startswith(
        f"torch fp16 (it works on this GPU; not TensorRT: {NO_TENSORRT}import of tensorrt halted"
    )
    assert "pip install 'giffusion[tensorrt-rtx]'" in reason
    assert "\n" not in reason


def test_torch_takes_what_tensorrt_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_torch(tmp_path, monkeypatch)
    install_tensorrt("tensorrt-rtx", "sm90", monkeypatch)
    runtime, reason = choose_runtime()
    assert runtime.name == "torch"
    assert "runtime 'tensorrt-rtx' does not work on this GPU, sm90: version" in reason
    (status,) = (each for each in examine_runtimes() if each.name == "tensorrt-rtx")
    assert not status.works
    assert status.detail in reason
    install_tensorrt("tensorrt-rtx", "sm75", monkeypatch)
    runtime, reason = choose_runtime("fp32")
    assert runtime.name == "torch"
    assert "'fp32' is not available on sm75 with tensorrt-rtx" in reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a GPU here")
def test_torch_that_finds_no_gpu_is_left_aside() -> None:
    runtime, reason = choose_runtime("fp32")
    assert runtime.name == "openvino"
    assert reason.startswith("openvino fp32 (faster than onnxruntime in fp32); not the GPU: ")
    assert reason.endswith("; runtime 'torch' finds no GPU: install a torch that has CUDA")


def test_without_anything_for_the_gpu_the_cpu_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_torch(tmp_path, monkeypatch, None)
    runtime, reason = choose_runtime("fp32")
    assert runtime.name == "openvino"
    for name in ("tensorrt", "tensorrt-rtx", "torch"):
        assert f"runtime '{name}' does not work here: " in reason
    # A precision that the CPU lacks is not the whole story of a machine with a GPU.
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingsError, match="'fp16' is not available on runtime 'onnx") as caught:
        choose_runtime("fp16")
    (note,) = caught.value.__notes__
    assert note.startswith(f"not the GPU: {NO_TENSORRT}")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="pip install onnxruntime"):
        choose_runtime()


@pytest.mark.parametrize("driver_of_none", [Driver(num_gpus=0), Driver(failure=100)])
def test_a_driver_without_a_gpu_is_said(
    monkeypatch: pytest.MonkeyPatch, driver_of_none: Driver
) -> None:
    monkeypatch.setattr(runtimes, "_nvidia_driver", lambda: driver_of_none)
    runtime, reason = choose_runtime("fp32")
    assert runtime.name == "openvino"
    assert reason.endswith(
        "; not the GPU: the NVIDIA driver finds none, see nvidia-smi and CUDA_VISIBLE_DEVICES"
    )


@pytest.mark.parametrize("num_gpus", [None, 0])
def test_torch_is_not_imported_where_there_is_no_gpu(num_gpus: int | None) -> None:
    program = (
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from giffusion.engine import runtimes\n"
        "driver = SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGetCount=lambda count: 0)\n"
        f"runtimes._nvidia_driver = lambda: {'None' if num_gpus is None else 'driver'}\n"
        "print(runtimes.choose_runtime('fp32')[0].name, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("openvino False\n", "")


def test_the_driver_is_found_by_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(runtimes, "_DRIVERS", ("no-such-driver.so", ctypes.util.find_library("c")))
    assert runtimes._nvidia_driver() is not None
    monkeypatch.setattr(runtimes, "_DRIVERS", ("no-such-driver.so",))
    assert runtimes._nvidia_driver() is None
