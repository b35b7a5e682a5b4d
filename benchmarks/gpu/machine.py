"""What a GPU result says of its machine, and the rate that it is a share of."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import RESULTS, cpu_name, machine

LIMITS_TFLOPS = {"H100 80GB HBM3": 790.0, "H200": 790.0}
"""10^12 operations a second of large bf16 matrix products, as measured on an H200; the H100 with
HBM3 has the same processors. Other GPUs have none here."""
_PACKAGES = ("triton", "cuda-python", "tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12")
_QUERY = ("driver_version", "power.limit", "clocks.max.sm", "persistence_mode")


def gpu_machine() -> dict[str, object]:
    """Returns the machine with its GPU; without one, the CPU is the device."""
    found = machine()
    if not torch.cuda.is_available():
        return found | {"gpu": None}
    properties = torch.cuda.get_device_properties(0)
    cudnn: Any = torch.backends.cudnn
    return found | {
        "gpu": properties.name,
        "vram_gib": round(properties.total_memory / (1 << 30), 1),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "cudnn": cudnn.version(),
        "driver": _driver(),
        "gpu_packages": {name: known for name in _PACKAGES if (known := _version(name))},
    }


def device_name() -> str:
    """Returns the name of what networks run on."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_name()


def limit_tflops() -> float | None:
    """Returns the rate that shares are of, None where it was not measured."""
    name = device_name()
    if "NVL" in name:  # other clocks and memory under the same name
        return None
    return next((limit for known, limit in LIMITS_TFLOPS.items() if known in name), None)


def result_path() -> Path:
    """Returns where the result on this GPU goes."""
    slug = re.sub(r"[^a-z0-9]+", "-", device_name().lower()).strip("-")
    return RESULTS / f"gpu-{slug}.json"


def synchronize() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _driver() -> dict[str, str]:
    """Returns what nvidia-smi says, nothing where it is missing."""
    command = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.splitlines()[0].split(", ")
    return dict(zip(_QUERY, values, strict=False))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
