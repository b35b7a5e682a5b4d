"""Folders to damage: the bundled model without what other precisions need, and as a checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from giffusion.engine.manifest import GRAPH_DTYPES, MANIFEST
from giffusion.engine.model import GRAPHS
from giffusion.models import find_model

_CONFIG = "scheduler/scheduler_config.json"


def slim_model(folder: Path) -> None:
    """Makes a folder that holds the bundled model in float32."""
    source = find_model("mini")
    others = [f"*.{dtype}.onnx" for dtype in GRAPH_DTYPES]
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(*others))
    manifest = json.loads((source / MANIFEST).read_text("utf-8"))
    graphs = {stage: manifest["graphs"][stage] for stage in GRAPHS}
    sources = {_CONFIG: manifest["sources"][_CONFIG]}
    edit_json(folder / MANIFEST, graphs=graphs, sources=sources)


def slim_checkpoint(folder: Path) -> None:
    """Makes a folder that holds the bundled model as diffusers has it, its weights as links."""
    source = find_model("mini")
    ignored = shutil.ignore_patterns("*.onnx", "*.md", MANIFEST, "*.safetensors")
    shutil.copytree(source, folder, ignore=ignored)
    for weights in source.glob("*/*.safetensors"):
        (folder / weights.relative_to(source)).symlink_to(weights)


def edit_json(path: Path, **values: object) -> None:
    """Sets keys of a JSON object in a file."""
    content = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(content | values), "utf-8")


def renew_digest(path: Path) -> None:
    """Lists a graph or a scheduler's configuration of a model as what it is now."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    folder = path.parent.parent if path.name == Path(_CONFIG).name else path.parent
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    if path.suffix == ".onnx":
        manifest["graphs"][path.stem] = digest
    else:
        manifest["sources"][_CONFIG] = digest
    edit_json(folder / MANIFEST, **manifest)
