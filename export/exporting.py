"""One checkpoint to one model folder: what `giffusion export` and scripts call.

    find → read → edit → write → trace → publish

The invariant: the output folder appears whole, or not at all, and the checkpoint is only read; in
place, graphs appear beside its weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from giffusion.engine.digests import sha256
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.manifest import GRAPH_DTYPES, MANIFEST, Manifest
from giffusion.export.additions.embeddings import add_embedding
from giffusion.export.additions.lora import fuse_loras
from giffusion.export.checkpoint.autoencoders import replace_decoder, replace_vae
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.controlnets import add_controlnet
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.staging import check_target, staged_folder
from giffusion.export.checkpoint.write import write_checkpoint
from giffusion.export.hub.fetch import fetch, is_hub_id
from giffusion.export.model import check_dtypes, export_model
from giffusion.export.optimum.folder import is_optimum_folder
from giffusion.export.optimum.read import export_optimum
from giffusion.export.optimum.write import write_optimum
from giffusion.export.originals.single_file import read_single_file
from giffusion.export.pickles.convert import is_pickle, refuse_pickle

Lora = tuple[Path, float]
Embedding = tuple[Path, str | None]


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """How a checkpoint becomes a model folder.

    Args:
        loras: LoRA files to fuse into the weights, with their scales, in this order.
        embeddings: textual-inversion files to add as tokens, with the tokens' names or None for the
            file's own.
        vae: another autoencoder, a folder or a safetensors file.
        decoder: another decoder, `taesd:PATH`.
        controlnet: the folder of a ControlNet, which becomes a part of the model.
        dtype: what weights are stored in, `fp32`, `fp16` or `bf16`; None as they are.
        graphs: what graphs are written for, of `GRAPH_DTYPES`; fp32 among them.
        optimum: whether to add the files that Optimum's ONNX pipelines read.
        prediction: what an SD 2 single file predicts, `epsilon` or `v_prediction`, where it does
            not say; None decides by what it says and by its name.
        name: what the model is called; the output folder's name if None.
    """

    loras: tuple[Lora, ...] = ()
    embeddings: tuple[Embedding, ...] = ()
    vae: Path | None = None
    decoder: str | None = None
    controlnet: Path | None = None
    dtype: str | None = None
    graphs: tuple[str, ...] = GRAPH_DTYPES
    optimum: bool = False
    prediction: str | None = None
    name: str | None = None

    @property
    def edits(self) -> bool:
        """Whether anything of the checkpoint is to be changed."""
        parts = (self.loras, self.embeddings, self.vae, self.decoder, self.controlnet)
        return any(parts) or self.dtype is not None

    @property
    def variant(self) -> str | None:
        """The variant of a checkpoint's weights to read where it has several; fp32 is plain."""
        return None if self.dtype == "fp32" else self.dtype


def export_checkpoint(
    checkpoint: str | Path,
    output: Path,
    settings: ExportSettings | None = None,
    *,
    progress: Callable[[str], None] = print,
) -> Manifest:
    """Makes a model folder of a checkpoint.

    Args:
        checkpoint: a diffusers folder, a hub id such as `org/name` or `org/name@revision`, a
            safetensors file in the original layout, or a folder that Optimum made.
        output: the folder to make, which must not exist or be empty; or the checkpoint's own
            folder, which then gets graphs beside its weights.
        settings: how; the defaults if None.
        progress: called with a line before each step.

    Returns:
        The manifest as written.

    Raises:
        SettingsError: the output is taken, or a setting is none or does not go with the checkpoint.
        ModelError: the checkpoint, or a file beside it, cannot be used; the message says why.
        OutputError: the output cannot be written.
    """
    settings = settings or ExportSettings()
    check_dtypes(settings.graphs)
    in_place = _is_same_folder(str(checkpoint), output)
    if not in_place:
        check_target(output)
    source = _find(checkpoint, settings, progress)
    name = settings.name or output.resolve().name
    if source.is_dir() and is_optimum_folder(source):
        return _from_optimum(source, output, name, settings, progress)
    if in_place:
        return _in_place(output, name, settings, progress)
    edited = _edited(read_source(source, settings), settings)
    origin = {label: sha256(path) for label, path in edited.sources.items()}
    with staged_folder(output) as folder:
        write_checkpoint(edited, folder, dtype=settings.dtype, progress=progress)
        manifest = export_model(
            folder, name=name, dtypes=settings.graphs, origin=origin, progress=progress
        )
        if settings.optimum:
            _add_optimum(folder, manifest, progress)
    return manifest


def _add_optimum(folder: Path, manifest: Manifest, progress: Callable[[str], None]) -> None:
    if manifest.control_dim is not None:
        progress(f"{manifest.name}: Optimum's pipelines get the model without its ControlNet")
    write_optimum(folder, manifest, progress=progress)


def _is_same_folder(checkpoint: str, output: Path) -> bool:
    folder = os.path.expanduser(checkpoint)
    return os.path.isdir(folder) and os.path.isdir(output) and os.path.samefile(folder, output)


def _find(
    checkpoint: str | Path, settings: ExportSettings, progress: Callable[[str], None]
) -> Path:
    """Returns the checkpoint's folder or file, brought from the hub where it is an id."""
    text = str(checkpoint)
    if is_hub_id(text):
        return fetch(text, prefer=settings.variant, progress=progress)
    path = Path(os.path.expanduser(text))
    # Not the methods of `Path`, which raise for a name that is too long or may not be looked at.
    if os.path.isdir(path):
        return path
    if not os.path.isfile(path):
        raise ModelError(
            f"checkpoint {text} does not exist: expected a diffusers folder, a .safetensors file, "
            "a folder made by Optimum, or a hub id such as org/name"
        )
    if is_pickle(path):
        refuse_pickle(path)
    return path


def read_source(source: Path, settings: ExportSettings) -> Checkpoint:
    """Reads a checkpoint on this machine, without the changes that the settings ask for.

    Args:
        source: a diffusers folder, one that was exported, or a single file.
        settings: what is read of several variants, and what a single file predicts.

    Raises:
        SettingsError: a setting does not go with it.
        ModelError: it is none that can be exported.
    """
    if source.is_file():
        return read_single_file(source, prediction=settings.prediction)
    if settings.prediction is not None:
        raise SettingsError(
            f"prediction '{settings.prediction}' goes with a single file: {source} has a "
            "scheduler_config.json, which says it; leave the option out"
        )
    return _with_own_parts(read_folder(source, prefer=settings.variant), source)


def _with_own_parts(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Adds the parts of a folder that was exported which are no pipeline's of diffusers."""
    if not (folder / MANIFEST).is_file():
        return checkpoint
    if (folder / "decoder").is_dir():
        checkpoint = replace_decoder(checkpoint, f"taesd:{folder / 'decoder'}")
    if (folder / "controlnet").is_dir():
        checkpoint = add_controlnet(checkpoint, folder / "controlnet")
    return checkpoint


def _edited(checkpoint: Checkpoint, settings: ExportSettings) -> Checkpoint:
    if settings.vae is not None:
        checkpoint = replace_vae(checkpoint, settings.vae)
    if settings.decoder is not None:
        checkpoint = replace_decoder(checkpoint, settings.decoder)
    if settings.controlnet is not None:
        checkpoint = add_controlnet(checkpoint, settings.controlnet)
    if settings.loras:
        checkpoint = fuse_loras(checkpoint, settings.loras)
    for path, token in settings.embeddings:
        checkpoint = add_embedding(checkpoint, path, token)
    return checkpoint


def _from_optimum(
    source: Path,
    output: Path,
    name: str,
    settings: ExportSettings,
    progress: Callable[[str], None],
) -> Manifest:
    if settings.edits or settings.optimum or settings.prediction is not None:
        raise SettingsError(
            f"{source} was made by Optimum and has graphs in place of weights: expected none of "
            "--lora, --embedding, --vae, --decoder, --controlnet, --dtype, --prediction, "
            "--optimum; export the checkpoint that it was made of"
        )
    with staged_folder(output) as folder:
        return export_optimum(source, folder, name=name, progress=progress)


def _in_place(
    folder: Path, name: str, settings: ExportSettings, progress: Callable[[str], None]
) -> Manifest:
    if settings.edits or settings.prediction is not None:
        raise SettingsError(
            f"{folder} is the checkpoint itself, which is not changed: choose another -o"
        )
    # Reading checks that the parts are there, complete, and fit each other.
    read_source(folder, settings)
    manifest = export_model(folder, name=name, dtypes=settings.graphs, progress=progress)
    if settings.optimum:
        _add_optimum(folder, manifest, progress)
    return manifest
