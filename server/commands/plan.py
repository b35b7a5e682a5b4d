"""`giffusion plan`: what would be rendered, frame by frame."""

from __future__ import annotations

import argparse
import json

from giffusion.engine.timelines.plans import FramePlan
from giffusion.server.inputs import read_timeline


def run(options: argparse.Namespace) -> None:
    """Prints one line a frame: JSON with `--json`, else for reading."""
    for plan in read_timeline(options):
        print(json.dumps(plan.to_dict(), ensure_ascii=False) if options.json else _line(plan))


def _line(plan: FramePlan) -> str:
    rows = " + ".join(
        f"{row.weight:.4g} × {_blend(row.prompt.start, row.prompt.end)}" for row in plan.rows
    )
    keys = f"{plan.from_key}" if plan.from_key == plan.to_key else f"{plan.from_key}→{plan.to_key}"
    return f"{plan.frame:>6}  {plan.time_s:8.3f} s  {keys:>11} {plan.weight:6.3f}  {rows}"


def _blend(start: str, end: str) -> str:
    return f"'{start}'" if start == end else f"'{start}' → '{end}'"
