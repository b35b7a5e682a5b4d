"""Other autoencoders than a checkpoint's own: a whole one, or TAESD's small decoder alone.

`giffusion export` calls `replace_vae` and `replace_decoder` on what a reader returned. The
invariant: an autoencoder that is put in fits the model's latents.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.export.checkpoint.check import check_part, check_vae
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part
from giffusion.export.checkpoint.folder import read_part
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.names import canonical_tensors
from giffusion.export.checkpoint.networks import network_class
from giffusion.export.checkpoint.pipeline import INDEX
from giffusion.export.checkpoint.taesd import taesd_decoder
from giffusion.export.checkpoint.tensors import Tensor
from giffusion.export.checkpoint.weights_files import read_tensors
from giffusion.export.originals.convert import original_vae
from giffusion.export.pickles.convert import PICKLE_SUFFIXES

DECODERS = ("taesd",)
"""Kinds of decoders that `replace_decoder` knows."""
_SCALING_FACTOR = 0.18215
"""What AutoencoderKL divides latents by where its config does not say."""
_EXPECTED = "a VAE's folder with its config.json, a model's folder, or a .safetensors file of a VAE"
_DIFFUSERS_NAMES = ("encoder.down_blocks.", "decoder.up_blocks.")


def replace_vae(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Puts another autoencoder in a checkpoint.

    Args:
        checkpoint: any.
        path: a folder of diffusers' AutoencoderKL or AutoencoderTiny, a model's folder with `vae`,
            or one safetensors file of an AutoencoderKL with diffusers' or the original names.

    Returns:
        The checkpoint with it; its files are among the sources, under `vae/`.

    Raises:
        ModelError: it is missing, incomplete, a pickle, or of another family of models.
    """
    if os.path.isdir(path):
        part, files = read_part(_vae_folder(path), "vae")
    else:
        part, files = _read_file(checkpoint, path)
    _check_scaling(checkpoint.parts["vae"], part, str(path))
    kind = network_class("vae", part.config, str(path)).__name__
    return replace(
        checkpoint,
        pipeline={**checkpoint.pipeline, "vae": ["diffusers", kind]},
        parts={**checkpoint.parts, "vae": part},
        sources=_sources(checkpoint, "vae", files),
    )


def replace_decoder(checkpoint: Checkpoint, spec: str) -> Checkpoint:
    """Gives a checkpoint another decoder; pictures are still encoded by its autoencoder.

    Args:
        checkpoint: any.
        spec: `taesd:PATH`; a folder of diffusers' AutoencoderTiny, or TAESD's own
            `taesd_decoder.safetensors` (https://github.com/madebyollin/taesd).

    Returns:
        The checkpoint with the part `decoder`, an AutoencoderTiny of which there are the tensors
        named `decoder.…` only.

    Raises:
        SettingsError: it is no such text.
        ModelError: the decoder is missing, incomplete, a pickle, or for other latents.
    """
    kind, colon, text = spec.partition(":")
    if kind not in DECODERS or not colon or not text:
        raise SettingsError(
            f"unknown decoder '{spec}': expected taesd:PATH, the folder of an AutoencoderTiny or a "
            "taesd_decoder.safetensors"
        )
    path = Path(text)
    folder = path.parent if os.path.isfile(path) and _has_tiny_config(path.parent) else path
    if os.path.isdir(folder):
        part, files = read_part(folder, "decoder")
    else:
        files = (path,)
        part = taesd_decoder(_read(path, "a taesd_decoder.safetensors"), str(path))
        check_vae(part.config, str(path))
        check_part(part, str(path), network_class("decoder", part.config), prefix="decoder.")
    return replace(
        checkpoint,
        parts={**checkpoint.parts, "decoder": part},
        sources=_sources(checkpoint, "decoder", files),
    )


def _vae_folder(path: Path) -> Path:
    inside = (path / INDEX).exists() or not (path / "config.json").exists()
    return path / "vae" if inside and (path / "vae").is_dir() else path


def _read_file(checkpoint: Checkpoint, path: Path) -> tuple[Part, tuple[Path, ...]]:
    tensors = {
        name: tensor
        for name, tensor in _read(path, _EXPECTED).items()
        if not name.startswith(("model_ema.", "loss."))
    }
    if not any(name.startswith(_DIFFUSERS_NAMES) for name in tensors):
        try:
            return original_vae(tensors, _family(checkpoint)), (path,)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from None
    config_file = path.parent / "config.json"
    # A file alone has no configuration; that of the VAE it replaces has the same shapes.
    config, files = checkpoint.parts["vae"].config, [path]
    if config_file.is_file():
        config, files = read_json(config_file, _EXPECTED), [config_file, path]
    kind = network_class("vae", config, str(path.parent))
    check_vae(config, str(path))
    part = Part(config, canonical_tensors("vae", tensors, str(path)))
    check_part(part, str(path), kind)
    return part, tuple(files)


def _read(path: Path, expected: str) -> Mapping[str, Tensor]:
    if not os.path.exists(path):
        raise ModelError(f"{path} is missing: expected {expected}")
    if path.suffix != ".safetensors" and path.suffix not in PICKLE_SUFFIXES:
        raise ModelError(f"{path} is no .safetensors file: expected {expected}")
    return read_tensors(path)


def _family(checkpoint: Checkpoint) -> str:
    kind = checkpoint.parts["unet"].config.get("addition_embed_type")
    return "sdxl" if kind == "text_time" else "sd1"


def _check_scaling(old: Part, new: Part, where: str) -> None:
    """Latents of another scale decode to garbage; those of AutoencoderTiny are not scaled."""
    if "AutoencoderTiny" in (old.config.get("_class_name"), new.config.get("_class_name")):
        return
    factors = [part.config.get("scaling_factor", _SCALING_FACTOR) for part in (old, new)]
    if factors[0] != factors[1]:
        raise ModelError(
            f"{where} is a VAE for latents scaled by {factors[1]}: expected {factors[0]}, as the "
            "model's own; take one of the model's family"
        )


def _has_tiny_config(folder: Path) -> bool:
    path = folder / "config.json"
    if not os.path.isfile(path):
        return False
    return read_json(path, "a config.json").get("_class_name") == "AutoencoderTiny"


def _sources(checkpoint: Checkpoint, part: str, files: tuple[Path, ...]) -> dict[str, Path]:
    kept = {
        name: path for name, path in checkpoint.sources.items() if not name.startswith(f"{part}/")
    }
    return kept | {f"{part}/{path.name}": path for path in files}
