"""`giffusion doctor`: which runtimes and encoders work here, and why others do not."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from giffusion.engine.encode import choose_encoder
from giffusion.engine.encode.encoders import ENCODERS
from giffusion.engine.encode.probe import EncoderStatus, probe_encoders
from giffusion.engine.errors import GiffusionError
from giffusion.engine.runtimes import choose_runtime, examine_runtimes
from giffusion.engine.runtimes.base import num_cores


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    kind: str
    name: str
    works: bool
    detail: str


def run(options: argparse.Namespace) -> None:
    """Prints every runtime and encoder, and what `auto` would choose of both."""
    findings = [Finding("runtime", s.name, s.works, s.detail) for s in examine_runtimes()]
    findings.append(_auto_runtime())
    findings += [_encoder(status) for status in probe_encoders()]
    findings.append(_auto_encoder())
    machine = {
        "giffusion": version("giffusion"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": num_cores(),
    }
    if options.json:
        print(json.dumps({"machine": machine, "findings": [asdict(f) for f in findings]}))
        return
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    for finding in findings:
        mark = "works" if finding.works else "no   "
        print(f"{finding.kind:<8} {finding.name:<12} {mark}  {finding.detail}")


def _auto_runtime() -> Finding:
    try:
        _, reason = choose_runtime()
    except GiffusionError as error:
        return Finding("runtime", "auto", False, str(error))
    return Finding("runtime", "auto", True, reason)


def _encoder(status: EncoderStatus) -> Finding:
    use = ENCODERS[status.name].use
    detail = use if status.works else f"{use}: {status.reason}"
    return Finding("encoder", status.name, status.works, detail)


def _auto_encoder() -> Finding:
    video = Path("out.mp4")
    _, on_host = choose_encoder(video)
    _, on_device = choose_encoder(video, on_device=True)
    return Finding("encoder", "auto", True, f"for a CPU {on_host}; for a GPU {on_device}")
