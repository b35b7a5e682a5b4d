"""What is logged of a render, as plain values that JSON holds.

`comet.py` sends them to the worker. The invariant: nothing of the machine, such as its name, its
packages or its folders, is among them, but for what the worker opens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from giffusion.engine.encode import output_format
from giffusion.engine.media_settings import DIGESTED
from giffusion.engine.prompts import format_prompts
from giffusion.engine.rendering import RenderResult
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.server.comet_target import OFFLINE
from giffusion.server.settings_keys import settings_keys

MAX_VALUE = 500
"""Characters of a parameter; Comet takes no long ones. What is longer stands whole in an asset."""
_KEPT = "the frames that were finished are in "
# What no word or fraction has before its slash.
_FOLDERS = re.compile(r"(?<![^\s'\"(=])(?:~[\w.-]*|\.{1,2})?/(?:[^\s/'\"]+/)*(?=\S)")


def begin_facts(
    timeline: Timeline,
    *,
    model: str,
    output: Path,
    media: tuple[Path, ...],
    settings_file: str | None,
) -> dict[str, Any]:
    """Returns what is known when a render begins.

    Args:
        timeline: what is rendered.
        model: its name.
        output: the file that is going to be there.
        media: files that frames start from or that are heard.
        settings_file: the text of `giffusion.toml`, or None; without folders.
    """
    prompts = format_prompts(timeline.key_frames)
    settings = _without_folders(timeline.settings)
    record = replace(RenderRecord.of(timeline, {}), settings=replace(settings, head="", tail=""))
    parameters = {
        **asdict(settings),
        "fps": str(settings.fps),
        "prompts": prompts,
        "model": name_of(model),
        "output_format": output_format(output).name,
        "num_frames": len(timeline),
        "num_key_frames": len(timeline.key_frames),
    }
    assets = {"prompts.txt": prompts, "giffusion.json": record.to_json()}
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
    }


def fail_facts(error: BaseException, paths: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Returns what is known of a render that ended early, with the frames that were kept.

    Args:
        error: what ended it.
        paths: files that its text may name.
    """
    notes: list[str] = getattr(error, "__notes__", [])
    kept = [note.removeprefix(_KEPT) for note in notes if note.startswith(_KEPT)]
    text = without_folders(str(error), paths)
    return {
        "parameters": {"error": _plain(text or "interrupted")},
        "metrics": {},
        "output": str(Path(kept[0]).absolute()) if kept else None,
    }


def shared_values(values: Mapping[str, object]) -> dict[str, object]:
    """Returns a command's options as others may see them: of files and folders the names alone.

    Args:
        values: by the names that options have in Python.
    """
    shared = dict(values)
    for key in settings_keys():
        value = values.get(key.dest)
        if isinstance(value, str | Path) and (key.is_path or key.dest == "model"):
            shared[key.dest] = name_of(value)
    target = values.get("comet")
    if isinstance(target, str) and target.startswith(OFFLINE):
        shared["comet"] = OFFLINE + name_of(target.removeprefix(OFFLINE))
    return shared


def name_of(path: str | Path) -> str:
    """Returns the name of a file or a model; the folder that it is in says whose machine it is."""
    return Path(path).name or str(path)


def without_folders(text: str, paths: Iterable[str | Path]) -> str:
    """Returns a message with the names of files alone.

    Args:
        text: any.
        paths: files whose folders, or what is in them, it may name.
    """
    spelled = (spelling for path in map(Path, paths) for spelling in (path, path.absolute()))
    folders = {str(path.parent) for path in spelled} - {"", ".", "/"}
    # The longest first: a shorter one may be its beginning. Folders may have blanks in their names.
    for folder in sorted(folders, key=len, reverse=True):
        text = re.sub(rf"(?<![\w/.~-]){re.escape(folder)}/", "", text)
    return _FOLDERS.sub("", text)


def _without_folders(settings: RenderSettings) -> RenderSettings:
    named = {name: getattr(settings, name) for name in DIGESTED}
    names: dict[str, Any] = {n: name_of(path) for n, path in named.items() if path is not None}
    return replace(settings, **names)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
