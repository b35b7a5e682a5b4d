"""The runtimes by name, and the choice of one.

Those that need no torch live here; others register a factory under the entry-point group
`giffusion.runtimes`. Each is imported only when it is opened or examined.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from giffusion.engine.errors import GiffusionError, RuntimeUnavailableError, SettingsError, nearest
from giffusion.engine.runtimes.base import Runtime

ENTRY_POINTS = "giffusion.runtimes"
PRECISIONS = ("fp32", "bf16", "fp16")
AUTO = "auto"
_GPU = {
    "tensorrt": "giffusion.engine.runtimes.tensorrt.runtime:tensorrt",
    "tensorrt-rtx": "giffusion.engine.runtimes.tensorrt.runtime:tensorrt_rtx",
}
_TORCH = "torch"
"""Registered by `giffusion.export`; on a GPU it is next to TensorRT, which is faster there."""
_CPU = {
    "openvino": "giffusion.engine.runtimes.openvino:OpenVinoRuntime",
    "onnxruntime": "giffusion.engine.runtimes.onnxruntime:OnnxRuntime",
}
_DRIVERS = ("libcuda.so.1", "nvcuda.dll")

Factory = Callable[[str | None], Runtime]


@dataclass(frozen=True, slots=True)
class RuntimeStatus:
    """Whether a runtime works on this machine.

    Args:
        name: its name.
        works: whether it can render here.
        detail: its version, its precision and its device, or why it does not work.
    """

    name: str
    works: bool
    detail: str


def runtime_names() -> tuple[str, ...]:
    """Returns the names of all runtimes, installed or not."""
    registered = (entry.name for entry in entry_points(group=ENTRY_POINTS))
    return tuple(sorted({*_GPU, *_CPU, *registered}))


def open_runtime(name: str, precision: str | None = None) -> Runtime:
    """Opens one runtime; there is no fall-back to another.

    Args:
        name: one of `runtime_names()`.
        precision: `fp32`, `bf16` or `fp16`; None for the runtime's own choice.

    Raises:
        SettingsError: the name or the precision is unknown.
        RuntimeUnavailableError: the runtime does not work on this machine.
    """
    if precision is not None and precision not in PRECISIONS:
        raise SettingsError(f"unknown precision '{precision}': {nearest(precision, PRECISIONS)}")
    return _factory(name)(precision)


def choose_runtime(precision: str | None = None) -> tuple[Runtime, str]:
    """Picks the fastest runtime that works here.

    The rule is a property of the machine, not a timing, so that two runs choose alike: where there
    is an NVIDIA GPU, TensorRT, if a package of it runs on that GPU, the one for RTX second, else
    torch, if it is installed and finds the GPU; OpenVINO (bf16 if the CPU has it, and in fp32 too
    it was the faster one in `benchmarks/cpu.py`), else ONNX Runtime.

    Returns:
        The runtime, and a sentence that says which and why.

    Raises:
        RuntimeUnavailableError: none works here.
        SettingsError: none works here at the precision asked for.
        DeviceError: there is a GPU, and it fails.
    """
    on_gpu, why = _choose_gpu_runtime(precision)
    if on_gpu is not None:
        return on_gpu, why
    try:
        runtime, reason = _choose_cpu_runtime(precision)
    except GiffusionError as error:
        if why:
            error.add_note(f"not the GPU: {why}")
        raise
    return runtime, f"{reason}; not the GPU: {why}" if why else reason


def _choose_gpu_runtime(precision: str | None) -> tuple[Runtime | None, str]:
    """Returns a runtime on the GPU and why it is that one, or None and why there is none."""
    driver = _nvidia_driver()
    if driver is None:
        return None, ""
    if not _num_gpus(driver):
        return None, "the NVIDIA driver finds none, see nvidia-smi and CUDA_VISIBLE_DEVICES"
    skipped: list[str] = []
    for name in (*_GPU, _TORCH):
        try:
            runtime = open_runtime(name, precision)
        except (RuntimeUnavailableError, SettingsError) as error:
            skipped.append(str(error))
            continue
        if runtime.numerics.get("device") == "cpu":
            skipped.append("runtime 'torch' finds no GPU: install a torch that has CUDA")
            continue
        # Where TensorRT is chosen, another package of it that is not installed is no news.
        mend = f"; not TensorRT: {'; '.join(skipped)}" if name == _TORCH else ""
        return runtime, f"{name} {runtime.precision} (it works on this GPU{mend})"
    return None, "; ".join(skipped)


def _choose_cpu_runtime(precision: str | None) -> tuple[Runtime, str]:
    try:
        runtime = open_runtime("openvino", precision)
    except RuntimeUnavailableError as error:
        fallback = open_runtime("onnxruntime", precision)
        return fallback, f"onnxruntime {fallback.precision} ({error})"
    reason = {
        "bf16": "this CPU computes in bfloat16",
        "fp16": "fp16 was asked for",
        "fp32": "faster than onnxruntime in fp32",
    }[runtime.precision]
    return runtime, f"openvino {runtime.precision} ({reason})"


def examine_runtimes() -> list[RuntimeStatus]:
    """Opens every runtime and says which of them work on this machine, and why not."""
    return [_examine(name) for name in runtime_names()]


def _examine(name: str) -> RuntimeStatus:
    try:
        runtime = open_runtime(name)
    except GiffusionError as error:
        return RuntimeStatus(name, False, str(error))
    device = runtime.numerics.get("device")
    where = f" on {device}" if device else ""
    return RuntimeStatus(name, True, f"{runtime.version} {runtime.precision}{where}")


def _nvidia_driver() -> ctypes.CDLL | None:
    """Looks before anything large is imported, since most machines that lack a GPU lack this."""
    for library in _DRIVERS:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(library)
    return None


def _num_gpus(driver: ctypes.CDLL) -> int:
    """Asks the driver itself: importing torch to hear that there is no GPU would take seconds."""
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _factory(name: str) -> Factory:
    target = (_GPU | _CPU).get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return cast(Factory, getattr(import_module(module), attribute))
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return _loaded(entry)
    raise SettingsError(f"unknown runtime '{name}': {nearest(name, (AUTO, *runtime_names()))}")


def _loaded(entry: EntryPoint) -> Factory:
    try:
        return cast(Factory, entry.load())
    except (ImportError, AttributeError) as error:
        own = entry.value.startswith("giffusion.export.")
        mend = "; pip install 'giffusion[export]'" if own else ""
        raise RuntimeUnavailableError(
            f"runtime '{entry.name}' does not work here: {error}{mend}"
        ) from None
