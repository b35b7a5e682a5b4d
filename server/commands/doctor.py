"""`giffusion doctor`: which runtimes and encoders work here, and why others do not."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version

from giffusion.engine.encode.probe import probe_encoders
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
    """Prints every runtime and encoder, and what `--runtime auto` would choose."""
    findings = [Finding("runtime", s.name, s.works, s.detail) for s in examine_runtimes()]
    findings.append(_auto())
    findings += [Finding("encoder", s.name, s.works, s.detail) for s in probe_encoders()]
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


def _auto() -> Finding:
    try:
        _, reason = choose_runtime()
    except GiffusionError as error:
        return Finding("runtime", "auto", False, str(error))
    return Finding("runtime", "auto", True, reason)
