"""NVIDIA's two packages, `tensorrt` and `tensorrt_rtx`, behind one class.

The only module that imports either, when a package is opened. Everything in which TensorRT 10,
TensorRT 11 and TensorRT for RTX differ while building stands here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from giffusion.engine.errors import RuntimeUnavailableError, SettingsError, nearest, one_line
from giffusion.engine.runtimes import PRECISIONS

CURRENT = "current"
"""The device at hand, whatever it is."""
_RTX = "tensorrt-rtx"
PACKAGES = ("tensorrt", _RTX)
MAX_ERRORS = 100
_FIRST_WITH_BF16 = 80
_FIRST_WITH_FP32_PRODUCTS = 80
# Where in TensorRT's own source an error arose says nothing to anyone else.
_NOISE = re.compile(r" ?\(?\bIn \w+ at /[\w/.]+:\d+\b| at /_src/[\w/.]+:\d+")


class TensorRtPackage:
    """One of the two packages, imported.

    Args:
        name: the runtime's name, one of `PACKAGES`.

    Raises:
        SettingsError: the name is neither.
        RuntimeUnavailableError: the package is not installed, or does not load here.
    """

    def __init__(self, name: str) -> None:
        if name not in PACKAGES:
            raise SettingsError(f"unknown runtime '{name}': {nearest(name, PACKAGES)}")
        self.name = name
        self.trt: Any = _import(name)
        self.version: str = self.trt.__version__
        self.logger: Any = _logger(name)

    @property
    def devices(self) -> tuple[str, ...]:
        """Devices that it builds for on any machine; a package without any builds for `current`."""
        if self.name != _RTX:
            return ()
        names = (name.lower() for name in dir(self.trt.ComputeCapability) if name.startswith("SM"))
        return tuple(sorted(names, key=_capability))

    @property
    def has_timing_cache(self) -> bool:
        """Whether builds time kernels, so that a later build can reuse what was timed."""
        return self.name != _RTX

    @property
    def compiles_on_device(self) -> bool:
        """Whether an engine's kernels are compiled where it is loaded."""
        return self.name == _RTX

    def check_devices(self, names: Sequence[str]) -> None:
        """Checks the names of devices to build for, as a user gives them.

        Raises:
            SettingsError: a name is unknown or repeated, or they do not go together.
        """
        for name in names:
            if name not in (*self.devices, CURRENT):
                known = f"{self.name} builds for the GPU at hand: give {CURRENT}"
                if self.devices:
                    known = nearest(name, (*self.devices, CURRENT))
                raise SettingsError(f"device '{name}' is not one of {self.name}'s: {known}")
        _check_once("device", names)
        if CURRENT in names and len(names) > 1:
            raise SettingsError(f"device '{CURRENT}' stands alone: name the others' builds apart")

    def check_gpu(self, device: str) -> None:
        """Checks that engines for a GPU that is here would load on it.

        TensorRT for RTX builds for the GPU at hand whatever it is, and refuses the engine as it is
        loaded if the GPU is none of `devices`.

        Args:
            device: its architecture, such as `sm90`.

        Raises:
            RuntimeUnavailableError: the package does not run on it.
        """
        if self.devices and device not in self.devices:
            raise RuntimeUnavailableError(
                f"runtime '{self.name}' does not work on this GPU, {device}: version "
                f"{self.version} runs on {', '.join(self.devices)}; choose runtime 'tensorrt' or "
                "'torch' instead"
            )

    def check_precision(self, precision: str, devices: Sequence[str]) -> None:
        """Checks that graphs of a precision can be built for devices.

        Args:
            precision: one of `PRECISIONS`.
            devices: architectures such as `sm89`.

        Raises:
            SettingsError: the precision is unknown, or one of the devices does not have it.
        """
        if precision not in PRECISIONS:
            raise SettingsError(
                f"unknown precision '{precision}': {nearest(precision, PRECISIONS)}"
            )
        first = {
            "bf16": _FIRST_WITH_BF16,
            "fp32": _FIRST_WITH_FP32_PRODUCTS if self.name == _RTX else 0,
            "fp16": 0,
        }[precision]
        old = [device for device in devices if _capability(device) < first]
        if old:
            raise SettingsError(
                f"precision '{precision}' is not available on {', '.join(old)} with {self.name}: "
                "expected fp16"
            )

    def create_network(self, builder: Any) -> Any:
        """Returns an empty network whose tensors have the types that the ONNX file gives them."""
        flag = self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return builder.create_network(1 << int(flag))

    def set_devices(self, config: Any, devices: Sequence[str]) -> None:
        """Makes a build's configuration one for devices.

        Args:
            config: the `IBuilderConfig`.
            devices: architectures, each one of `devices`; a package without any takes none.
        """
        if self.name != _RTX:
            return
        targets = [getattr(self.trt.ComputeCapability, name.upper()) for name in devices]
        config.num_compute_capabilities = len(targets)
        for index, target in enumerate(targets):
            config.set_compute_capability(target, index)

    def clear_errors(self) -> None:
        """Forgets the errors so far: called before something that may fail."""
        self.logger.errors.clear()

    def first_error(self) -> str:
        """Returns the first error since `clear_errors`, in one line without its place of origin."""
        errors = self.logger.errors
        return one_line(_NOISE.sub("", errors[0])) if errors else "it gave no reason"


def _capability(device: str) -> int:
    return int(device.removeprefix("sm"))


def _check_once(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"{what} '{name}' is given {names.count(name)} times: give it once")


def _import(name: str) -> Any:
    try:
        if name == _RTX:
            import tensorrt_rtx as trt
        else:
            import tensorrt as trt
    # A package whose libraries are missing or too new raises OSError or RuntimeError.
    except (ImportError, OSError, RuntimeError) as error:
        raise RuntimeUnavailableError(
            f"runtime '{name}' does not work here: {one_line(error)}; "
            f"pip install 'giffusion[{name}]'"
        ) from None
    return trt


@cache
def _logger(name: str) -> Any:
    """Returns a process's one logger: TensorRT ignores a second while the first is in use."""
    trt = _import(name)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Collects errors, and prints nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._lock = threading.Lock()

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.ERROR:
                with self._lock:
                    if len(self.errors) < MAX_ERRORS:
                        self.errors.append(message)

    return Logger()
