"""`giffusion plan`: what would be rendered, frame by frame."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from giffusion.engine.timelines.plans import FramePlan
from giffusion.server.inputs import read_timeline
from giffusion.server.notes import note

_AT_REST = {
    "strength": 1.0,
    "noise": 1.0,
    "control_scale": 0.0,
    "zoom": 1.0,
    "angle": 0.0,
    "translate_x": 0.0,
    "translate_y": 0.0,
}
"""What a line for reading shows only where it has another value."""


def run(options: argparse.Namespace) -> None:
    """Prints one line a frame: JSON with `--json`, else for reading."""
    for plan in read_timeline(options, note):
        print(json.dumps(plan.to_dict(), ensure_ascii=False) if options.json else _line(plan))


def _line(plan: FramePlan) -> str:
    rows = " + ".join(
        f"{row.weight:.4g} × {_blend(row.prompt.start, row.prompt.end)}" for row in plan.rows
    )
    keys = f"{plan.from_key}" if plan.from_key == plan.to_key else f"{plan.from_key}→{plan.to_key}"
    place = f"{plan.frame:>6}  {plan.time_s:8.3f} s  {keys:>11} {plan.weight:6.3f}"
    return "  ".join(filter(None, (place, ", ".join(_moving(plan)), rows)))


def _moving(plan: FramePlan) -> Iterator[str]:
    """Yields what the frame follows from, and what is not at rest."""
    if plan.follows is not None:
        yield f"← {plan.follows}"
    for name, at_rest in _AT_REST.items():
        if (value := getattr(plan, name)) != at_rest:
            yield f"{name} {value:.4g}"


def _blend(start: str, end: str) -> str:
    return f"'{start}'" if start == end else f"'{start}' → '{end}'"
