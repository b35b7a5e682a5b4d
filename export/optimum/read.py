"""A folder that Optimum made, as a model folder.

`giffusion export` calls `export_optimum`. The graphs are traced around stand-ins and then get
Optimum's networks, as they are: in fp32, for the runtimes that read ONNX; the torch runtime, which
needs a checkpoint's weights by name, has nothing to load there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.manifest import MANIFEST, Manifest
from giffusion.engine.model import GRAPHS, graph_path, graph_spec
from giffusion.export.manifests import make_manifest, sha256
from giffusion.export.onnx import export_graph
from giffusion.export.optimum.folder import OptimumFolder, open_optimum
from giffusion.export.optimum.fuse import PART_FOLDERS, fuse
from giffusion.export.optimum.stand_ins import stand_in_graph


def export_optimum(
    folder: Path,
    out: Path,
    *,
    name: str | None = None,
    origin: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = print,
) -> Manifest:
    """Makes a model folder of one that `optimum-cli export onnx` made.

    Args:
        folder: Optimum's.
        out: an existing, empty folder; on an error, what has been written is left there.
        name: what the model is called; the folder's name by default.
        origin: sha256 of the files that were read, by name, for the manifest; those of the parts'
            folders if None.
        progress: called with a line before each graph.

    Returns:
        The manifest as written; its graphs are in fp32 alone.

    Raises:
        ModelError: a file is missing or malformed, or the model is of a kind that is not rendered.
    """
    optimum = open_optimum(folder)
    configs = _write_small_files(optimum, out)
    origin = origin if origin is not None else _origin(optimum)
    name = name or folder.resolve().name
    manifest = make_manifest(out, name, optimum.configs, weights=configs, origin=origin)
    for stage in GRAPHS:
        progress(f"{manifest.name}: fusing {stage} with Optimum's graph")
        for file in fuse_stage(optimum, stage, manifest, out):
            manifest.sources[file] = sha256(out / file)
        path = graph_path(out, stage)
        manifest.graphs[path.stem] = sha256(path)
    manifest.write(out / MANIFEST)
    return manifest


def fuse_stage(optimum: OptimumFolder, stage: str, manifest: Manifest, out: Path) -> list[str]:
    """Writes one stage's graph.

    Args:
        optimum: the folder that has its networks.
        stage: one of `giffusion.engine.model.GRAPHS`.
        manifest: the model's.
        out: the model folder.

    Returns:
        The files of weights that the graph refers to, by their paths in the model folder.

    Raises:
        ModelError: a network is not what Optimum exports for this kind of model.
    """
    path = graph_path(out, stage)
    export_graph(
        stand_in_graph(optimum, stage),
        graph_spec(manifest, stage),
        path=path,
        weights={},
        side_multiple=manifest.size_multiple // LATENT_SCALE,
    )
    return fuse(path, optimum)


def _write_small_files(optimum: OptimumFolder, out: Path) -> list[str]:
    """Writes configurations and tokenizers; returns the paths of those that graphs depend on."""
    files = {
        "model_index.json": optimum.pipeline,
        "scheduler/scheduler_config.json": optimum.scheduler,
    }
    configs = {
        f"{PART_FOLDERS.get(part, part)}/config.json": config
        for part, config in optimum.configs.items()
    }
    for name, vocabulary in optimum.vocabularies.items():
        files[f"{name}/tokenizer.json"] = vocabulary.tokenizer
        files[f"{name}/tokenizer_config.json"] = vocabulary.config
    for path, content in (files | configs).items():
        (out / path).parent.mkdir(exist_ok=True)
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (out / path).write_text(text, encoding="utf-8")
    return list(configs)


def _origin(optimum: OptimumFolder) -> dict[str, str]:
    """Hashes graphs, and the files of weights that lie beside them."""
    folders = (optimum.folder / part for part in optimum.configs)
    files = (path for folder in folders for path in sorted(folder.iterdir()) if path.is_file())
    return {path.relative_to(optimum.folder).as_posix(): sha256(path) for path in files}
