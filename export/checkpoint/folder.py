"""Diffusers folders read: all that a text-to-image model needs, and what else is there left alone.

`giffusion export` calls `read_folder`, for a folder of the user's or a hub's snapshot. The
invariant: a checkpoint that is returned is complete, each weight of its shape, and only small files
and headers were read.
"""

from __future__ import annotations

from pathlib import Path

from giffusion.export.checkpoint.check import check_fit, check_part, check_unet, check_vae
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES, Checkpoint, Part
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.names import canonical_tensors
from giffusion.export.checkpoint.networks import network_class
from giffusion.export.checkpoint.pipeline import EXPECTED, INDEX, read_pipeline
from giffusion.export.checkpoint.tokenizer_folder import read_vocabulary
from giffusion.export.checkpoint.weights_files import read_weights


def read_folder(folder: Path, *, prefer: str | None = None) -> Checkpoint:
    """Reads a diffusers folder of Stable Diffusion 1 or 2, SDXL, or LCM.

    The layout: https://huggingface.co/docs/diffusers/using-diffusers/loading, safetensors only.
    The safety checker and the image encoder are left out.

    Args:
        folder: with a `model_index.json`.
        prefer: the variant of the weights to take where there is one, such as `fp16`; otherwise
            plain ones come first.

    Returns:
        The checkpoint; `sources` holds every file that was read, by its path in the folder.

    Raises:
        ModelError: it is no such folder, a part is missing, incomplete, quantised, a pickle, or of
            a kind that is not rendered; the message says which.
    """
    pipeline = read_pipeline(folder)
    files = [folder / INDEX, folder / "scheduler" / "scheduler_config.json"]
    scheduler = read_json(files[-1], EXPECTED)
    parts, vocabularies = {}, {}
    for name in pipeline.parts:
        parts[name], read = read_part(folder / name, name, prefer=prefer)
        files += read
    for name in pipeline.tokenizers:
        vocabularies[name], read = read_vocabulary(folder / name)
        files += read
    check_fit(parts, str(folder))
    return Checkpoint(
        name=folder.resolve().name,
        pipeline=pipeline.index,
        scheduler=scheduler,
        parts=parts,
        vocabularies=vocabularies,
        sources={path.relative_to(folder).as_posix(): path for path in files},
    )


def read_part(
    folder: Path, name: str, *, prefer: str | None = None
) -> tuple[Part, tuple[Path, ...]]:
    """Reads one network of a diffusers folder, and checks it.

    Args:
        folder: its own folder, with `config.json` and weights.
        name: what it is, one of `giffusion.export.checkpoint.checkpoint.WEIGHTS_FILES`.
        prefer: the variant of the weights to take where there is one.

    Returns:
        The network, and the files that were read.

    Raises:
        ModelError: it is missing, incomplete, or of a kind that is not rendered.
    """
    path = folder / "config.json"
    config = read_json(path, f"the {name} of a diffusers model")
    kind = network_class(name, config, str(folder))
    if name == "unet":
        check_unet(config, str(folder))
    if name in ("vae", "decoder"):
        check_vae(config, str(folder))
    stem = WEIGHTS_FILES[name].removesuffix(".safetensors")
    weights = read_weights(folder, stem, prefer=prefer)
    tensors = canonical_tensors(name, weights.tensors, str(folder))
    # A decoder is half of an autoencoder; the other half may lie beside it or not.
    prefix = "decoder." if name == "decoder" else ""
    part = Part(config, {key: value for key, value in tensors.items() if key.startswith(prefix)})
    check_part(part, str(folder), kind, prefix=prefix)
    return part, (path, *weights.files)
