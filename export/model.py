"""A diffusers folder made renderable: its graphs and manifest written beside its weights.

`giffusion export` calls `export_model` on the folder that it has written. The graphs refer to the
folder's own safetensors files, so weights are stored once and diffusers still loads the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.errors import SettingsError, nearest
from giffusion.engine.manifest import GRAPH_DTYPES, MANIFEST, Manifest
from giffusion.engine.model import CONTROL, GRAPHS, graph_path, graph_spec, stages_of
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.checkpoint.check import check_unet, check_vae
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES
from giffusion.export.checkpoint.controlnets import check_controlnet
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.networks import network_class
from giffusion.export.manifests import make_manifest, sha256
from giffusion.export.onnx import export_graph
from giffusion.export.stages import (
    shapes_of_stage,
    stage_parts,
    stage_weights,
    weights_file,
)


def export_model(
    folder: Path,
    *,
    name: str | None = None,
    dtypes: Sequence[str] = GRAPH_DTYPES,
    origin: Mapping[str, str] | None = None,
    progress: Callable[[str], None] = print,
) -> Manifest:
    """Writes the fused graphs and the manifest into a diffusers pipeline's folder.

    Args:
        folder: the checkpoint, with one file of safetensors weights a part; graphs of an earlier
            export are replaced.
        name: what the model is called; the folder's name by default.
        dtypes: what the graphs are to compute in, each a file of its own; fp32 among them,
            which the CPU runtimes read.
        origin: sha256 of the files that the folder was made of, by the names they had; the
            folder's own files if None.
        progress: called with a line before each graph.

    Returns:
        The manifest as written.

    Raises:
        ModelError: a part is missing, or is of a kind that the engine does not render.
    """
    check_dtypes(dtypes)
    parts = _parts(folder)
    configs = {part: read_json(folder / part / "config.json") for part in parts}
    check_unet(configs["unet"], str(folder / "unet"))
    for part in sorted(parts):
        network_class(part, configs[part], str(folder / part))
    for part in sorted(parts & {"vae", "decoder"}):
        check_vae(configs[part], str(folder / part))
    if "controlnet" in parts:
        check_controlnet(configs["controlnet"], configs["unet"], str(folder / "controlnet"))
    NoiseSchedule.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
    for part in parts:
        weights_file(folder, part)
    manifest = make_manifest(
        folder,
        name or folder.resolve().name,
        configs,
        weights=[file for part in sorted(parts) for file in _files(part)],
        origin=origin or {},
    )
    for stage in stages_of(manifest):
        weights = stage_weights(folder, stage)
        for dtype in dtypes:
            progress(f"{manifest.name}: tracing {stage} in {dtype}")
            path = graph_path(folder, stage, dtype)
            export_graph(
                shapes_of_stage(folder, stage, dtype),
                graph_spec(manifest, stage),
                path=path,
                weights=weights,
                side_multiple=manifest.size_multiple // LATENT_SCALE,
            )
            manifest.graphs[path.stem] = sha256(path)
    manifest.write(folder / MANIFEST)
    return manifest


def check_dtypes(dtypes: Sequence[str]) -> None:
    """Checks what graphs are to be written for.

    Raises:
        SettingsError: one is none of `GRAPH_DTYPES`, or fp32 is not among them.
    """
    for dtype in dtypes:
        if dtype not in GRAPH_DTYPES:
            raise SettingsError(f"unknown type of graphs '{dtype}': {nearest(dtype, GRAPH_DTYPES)}")
    if "fp32" not in dtypes:
        raise SettingsError(f"types {', '.join(dtypes)} lack fp32, which every model has: add it")


def _parts(folder: Path) -> set[str]:
    stages = (*GRAPHS, CONTROL)
    return {part for stage in stages for part in stage_parts(folder, stage).values()}


def _files(part: str) -> tuple[str, str]:
    return f"{part}/{WEIGHTS_FILES[part]}", f"{part}/config.json"
