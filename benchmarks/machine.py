"""What a result says of the machine it was measured on, and the file that it goes to.

Every benchmark calls it. The invariant: a result names the processor, what it computes in, the
number of cores and the versions, and nothing that identifies a host or a user.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from giffusion.engine.runtimes.base import num_cores

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("giffusion", "av", "numpy", "onnxruntime", "openvino", "torch", "diffusers")
FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16"),
    *("amx_tile", "amx_bf16", "amx_fp16", "amx_int8"),
    *("bf16", "i8mm", "sve", "sve2", "svebf16"),
)
"""Flags of /proc/cpuinfo that decide which matrix instructions a runtime can use."""
_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, object]:
    """Returns the machine as a result states it.

    `load` is the load average of the last minute; far above 0 before a benchmark starts, it says
    that other work took part of the cores.
    """
    flags = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return {
        "cpu": cpu_name(),
        "num_cores": num_cores(),
        "features": [feature for feature in FEATURES if feature in flags],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_name() -> str:
    """Returns the processor's name, as far as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"


def result_path(benchmark: str) -> Path:
    """Returns where a benchmark's result on this machine goes."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", cpu_name().lower())).strip("-")
    return RESULTS / f"{benchmark}-{slug}-{num_cores()}-cores.json"


def write_result(path: Path | None, result: Mapping[str, object]) -> None:
    """Writes a result as JSON and says where it is; None writes nothing."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\nwritten: {path.name}")


def _cpuinfo(key: str) -> str | None:
    if not _CPUINFO.is_file():
        return None
    match = re.search(rf"(?m)^{key}\s*:\s*(.+)$", _CPUINFO.read_text(encoding="utf-8"))
    return match[1].strip() if match else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
