"""What the page's lines with `#` say, made to be the case.

A scene is a sentence. Where only another machine or another user could see it, the one call that
tells them apart is replaced, and the rest is real.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from giffusion.engine.encode import nvenc, open_writer
from giffusion.engine.media.video import FilmCut, FilmReader
from giffusion.engine.model import Model, load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import KeyFrame, Part
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model
from giffusion.server.reports import TerminalReport
from tests.catalogue.media_scenes import MEDIA_SCENES
from tests.catalogue.slim import edit_json, renew_digest, slim_checkpoint, slim_model

Names = dict[str, object]
ENGINE = "text-0123456789abcdef"


def set_scene(scene: str, folder: Path, patch: pytest.MonkeyPatch, names: Names) -> None:
    """Makes a sentence true.

    Args:
        scene: the sentence.
        folder: where files are put.
        patch: for what is not a file; it is undone after the entry.
        names: for what Python is to find.
    """
    if scene.startswith("model/") and not (folder / "model").exists():
        slim_model(folder / "model")
    if scene.startswith(("sd/", "sd ")) and not (folder / "sd").exists():
        slim_checkpoint(folder / "sd")
    for pattern, make in _SCENES.items():
        if match := re.fullmatch(pattern, scene):
            make(folder, patch, names, *match.groups())
            return
    for pattern, make in MEDIA_SCENES.items():
        if match := re.fullmatch(pattern, scene):
            make(folder, *match.groups())
            return
    raise AssertionError(f"no scene: {scene}")


def _has_key(folder: Path, patch: object, names: Names, name: str, key: str, value: str) -> None:
    edit_json(folder / name, **{key: json.loads(value)})
    if "model/scheduler" in name:
        renew_digest(folder / name)


def _json(folder: Path, patch: object, names: Names, name: str, text: str) -> None:
    _content(text.encode())(folder, patch, names, name)


def _tensors(folder: Path, patch: object, names: Names, name: str, listed: str) -> None:
    shapes = re.findall(r'"([^"]+)" (\d+(?:x\d+)*)', listed)
    zeros = {key: np.zeros(tuple(map(int, sides.split("x"))), np.float32) for key, sides in shapes}
    save_file(zeros, folder / name)


class _Command:
    """Runs a command when its pickle is read by who trusts it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def _content(content: bytes) -> Callable[..., None]:
    def write(folder: Path, patch: object, names: Names, name: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        # What is replaced may be a link to the bundled model's own.
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content)

    return write


def _graph(folder: Path, patch: object, names: Names, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    renew_digest(folder / name)


def _copied(folder: Path, patch: object, names: Names, name: str, source: str) -> None:
    content = (folder / name).with_name(source).read_bytes()
    _content(content)(folder, patch, names, name)
    renew_digest(folder / name)


def _settings(folder: Path, patch: object, names: Names, name: str, text: str) -> None:
    """Writes a settings file, of lines between semicolons; its schema is 1 unless they say it."""
    schema = "" if "schema" in text else "schema = 1\n"
    (folder / name).write_text(schema + text.replace("; ", "\n"), "utf-8")


def _long(folder: Path, patch: object, names: Names, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate((64 << 20) + 1)


def _folder(folder: Path, patch: object, names: Names, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()


def _missing(folder: Path, patch: object, names: Names, name: str) -> None:
    (folder / name).unlink()


def _link(folder: Path, patch: object, names: Names, name: str) -> None:
    (folder / name).symlink_to(name)


def _pipe(folder: Path, patch: object, names: Names, name: str) -> None:
    os.mkfifo(folder / name)


def _large(folder: Path, patch: object, names: Names, name: str, side: str) -> None:
    Image.new("1", (int(side), int(side))).save(folder / name)


def _unreadable_file(folder: Path, patch: pytest.MonkeyPatch, names: Names, name: str) -> None:
    (folder / name).write_bytes(b"")
    _forbid(patch, Path, "open", name)


def _unreadable_folder(folder: Path, patch: pytest.MonkeyPatch, names: Names, name: str) -> None:
    (folder / name).mkdir()
    _forbid(patch, os, "scandir", name)


def _forbid(patch: pytest.MonkeyPatch, owner: Any, attribute: str, name: str) -> None:
    """Lets a call say what it says to others than root, who may read everything."""
    original = getattr(owner, attribute)

    def refused(path: Any, *arguments: Any, **options: Any) -> Any:
        if Path(path).name == name:
            raise PermissionError(13, os.strerror(13), str(path))
        return original(path, *arguments, **options)

    patch.setattr(owner, attribute, refused)


def _locked(folder: Path, patch: pytest.MonkeyPatch, names: Names, name: str) -> None:
    (folder / name).mkdir()
    patch.setattr(os, "access", lambda path, mode: Path(path).name != name)


def _appears(folder: Path, patch: pytest.MonkeyPatch, names: Names, name: str) -> None:
    def progress(report: TerminalReport, progress: object) -> None:
        _content(b"another's")(folder, patch, names, name)

    patch.setattr(TerminalReport, "progress", progress)
    patch.setattr(TerminalReport, "note", lambda report, text: None)


def _gif(folder: Path, text: str) -> None:
    size = (16, 16)
    spec = {"size": size, "fps": Fraction(24), "num_frames": 1, "metadata": text, "encoder": "gif"}
    with open_writer(folder / "out.gif", **spec) as writer:  # type: ignore[arg-type]
        writer.write(0, np.zeros((*size, 3), np.uint8))


def _carries(folder: Path, patch: object, names: Names, text: str = '""') -> None:
    _gif(folder, json.loads(text))


def _carries_plan(
    folder: Path, patch: object, names: Names, key: str | None = None, value: str = ""
) -> None:
    plan = _plan(_mini().fingerprint)
    _gif(folder, json.dumps(plan | ({} if key is None else {key: json.loads(value)})))


def _carries_setting(folder: Path, patch: object, names: Names, key: str, value: str) -> None:
    plan = _plan(_mini().fingerprint)
    settings = plan["settings"] | {key: json.loads(value)}
    _gif(folder, json.dumps(plan | {"settings": settings}))


def _carries_other(folder: Path, patch: object, names: Names) -> None:
    _gif(folder, json.dumps(_plan("0123456789abcdef")))


def _carries_model(folder: Path, patch: object, names: Names, name: str) -> None:
    plan = _plan("0123456789abcdef")
    plan["numerics"]["model"] = name
    _gif(folder, json.dumps(plan))


def _plan(fingerprint: str) -> dict[str, Any]:
    timeline = Timeline([KeyFrame(0, (Part("a corgi"),))], RenderSettings())
    numerics = {"model": "mini", "fingerprint": fingerprint}
    plan: dict[str, Any] = json.loads(RenderRecord.of(timeline, numerics).to_json())
    return plan


def _mini() -> Model:
    return load_model(find_model("mini"))


class _Absent:
    """A finder that finds some packages to be absent."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return None


def _not_installed(folder: Path, patch: pytest.MonkeyPatch, names: Names, package: str) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == package or name.startswith("giffusion.export"):
            patch.delitem(sys.modules, name)
    patch.setattr(sys, "meta_path", [_Absent(package), *sys.meta_path])


def _cpu(folder: Path, patch: pytest.MonkeyPatch, names: Names, precision: str) -> None:
    import openvino

    patch.setattr(openvino.Core, "get_property", lambda core, device, name: [precision])


def _no_plugin(folder: Path, patch: pytest.MonkeyPatch, names: Names) -> None:
    import openvino

    def refused(core: object, device: str, name: str) -> list[str]:
        raise RuntimeError("Device with 'CPU' name is not registered\nin the OpenVINO Runtime")

    patch.setattr(openvino.Core, "get_property", refused)


def _no_driver(folder: Path, patch: object, names: Names) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    pytest.skip("there is an NVIDIA driver here")


def _environment(
    folder: Path, patch: pytest.MonkeyPatch, names: Names, name: str, value: str
) -> None:
    patch.setenv(name, value)
    nvenc.sessions.cache_clear()


def _damaged_engine(folder: Path, patch: object, names: Names, key: str) -> None:
    (folder / "cache" / "engines" / key).mkdir(parents=True)


def _engine(folder: Path, patch: object, names: Names) -> None:
    names["engine"] = Engine(_mini(), FakeRuntime(), size=(64, 64), batch=2)


def _reader(folder: Path, patch: object, names: Names, name: str) -> None:
    names["reader"] = FilmReader(FilmCut(Path(name)), (64, 48), Fraction(24))


_VALUE = r"(.+)"
_SCENES: dict[str, Callable[..., None]] = {
    rf'((?:model|sd)/\S+\.json) has "(\w+)": {_VALUE}': _has_key,
    r"sd is a diffusers folder": lambda *arguments: None,  # it is made above
    rf"(\S+) is the JSON {_VALUE}": _json,
    r'(\S+) holds ("[^$]+)': _tensors,
    rf"(\S+\.toml) says {_VALUE}": _settings,
    r"(\S+\.toml) has thousands of lists in lists": _content(b"schema = " + b"[" * 50_000),
    r"(\S+) is a pickle": _content(pickle.dumps({"epoch": 5}, 2)),
    r"(\S+) is a pickle that runs a command": _content(pickle.dumps({"a": _Command()}, 2)),
    r"(\S+) is no UTF-8": _content("0: a corgi caf\xe9".encode("latin-1")),
    r"(\S+) is longer than 64 MiB": _long,
    r"(\S+) is an? (?:empty )?folder": _folder,
    r"(\S+) is missing": _missing,
    r"(\S+) is a link to itself": _link,
    r"(\S+) is a pipe": _pipe,
    r"(\S+) is a text": _content(b"a text\n"),
    r"(\S+) is no JSON": _content(b"a text\n"),
    r"(\S+) is a JSON list": _content(b"[1]\n"),
    r"(\S+) is (?:cut short|empty)": _content(b""),
    r"(\S+) is no graph": _graph,
    r"(\S+) is a copy of (\S+)": _copied,
    r"(\S+) has (\d+)x\d+ pixels": _large,
    r"(\S+) may not be read": _unreadable_file,
    r"(\S+) is a folder that may not be read": _unreadable_folder,
    r"(\S+) is a folder that may not be written in": _locked,
    r"(\S+) appears meanwhile": _appears,
    r"out.gif carries nothing": _carries,
    r'out.gif carries (".*")': _carries,
    r"out.gif carries a plan": _carries_plan,
    rf'out.gif carries a plan whose "(\w+)" is {_VALUE}': _carries_plan,
    rf'out.gif carries a plan whose setting "(\w+)" is {_VALUE}': _carries_setting,
    r"out.gif carries a plan of another model": _carries_other,
    r'out.gif carries a plan of the model "(\w+)"': _carries_model,
    r"(\w+) is not installed": _not_installed,
    r"this CPU computes in (\w+) alone": _cpu,
    r"OpenVINO has no plugin for this CPU": _no_plugin,
    r"there is no NVIDIA driver": _no_driver,
    r"the environment has (\w+)=(\w+)": _environment,
    r"the engine (\S+) is damaged": _damaged_engine,
    r"engine renders at 64x64": _engine,
    r"reader reads (\S+)": _reader,
}
