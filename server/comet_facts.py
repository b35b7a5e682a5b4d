"""What is logged of a render, as plain values that JSON holds.

`comet.py` sends them to the worker. The invariant: nothing of the machine, such as its name or
its packages, is among them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from giffusion.engine.encode import output_format
from giffusion.engine.prompts import format_prompts
from giffusion.engine.rendering import RenderResult
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline

MAX_VALUE = 500
"""Characters of a parameter; Comet takes no long ones. What is longer stands whole in an asset."""
_KEPT = "the frames that were finished are in "


def begin_facts(
    timeline: Timeline,
    *,
    model: str,
    output: Path,
    media: tuple[Path, ...],
    settings_file: str | None,
    others: Mapping[str, object],
) -> dict[str, Any]:
    """Returns what is known when a render begins.

    Args:
        timeline: what is rendered.
        model: its name.
        output: the file that is going to be there.
        media: files that frames start from or that are heard.
        settings_file: the text of `giffusion.toml`, or None.
        others: further parameters, such as the component of the sound.
    """
    prompts = format_prompts(timeline.key_frames)
    settings = asdict(timeline.settings) | {"fps": str(timeline.settings.fps)}
    parameters = {
        **settings,
        **others,
        "prompts": prompts,
        # A path says whose machine it is.
        "model": Path(model).name or model,
        "output_format": output_format(output).name,
        "num_frames": len(timeline),
        "num_key_frames": len(timeline.key_frames),
    }
    assets = {"prompts.txt": prompts, "giffusion.json": RenderRecord.of(timeline, {}).to_json()}
    if settings_file is not None:
        assets["giffusion.toml"] = settings_file
    return {
        "name": output.name,
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "assets": assets,
        "media": [str(path.absolute()) for path in media],
    }


def finish_facts(result: RenderResult) -> dict[str, Any]:
    """Returns what is known of a render that was finished."""
    return {
        "parameters": {f"numerics_{name}": _plain(v) for name, v in result.numerics.items()},
        "metrics": {
            "elapsed_s": result.elapsed_s,
            "frames_per_s": result.num_frames / result.elapsed_s,
        },
        "output": str(result.path.absolute()),
        "preview": True,
    }


def fail_facts(error: BaseException) -> dict[str, Any]:
    """Returns what is known of a render that ended early, with the frames that were kept."""
    notes: list[str] = getattr(error, "__notes__", [])
    kept = [note.removeprefix(_KEPT) for note in notes if note.startswith(_KEPT)]
    return {
        "parameters": {"error": _plain(str(error) or "interrupted")},
        "metrics": {},
        "output": str(Path(kept[0]).absolute()) if kept else None,
        "preview": bool(kept),
    }


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
