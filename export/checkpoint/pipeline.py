"""A pipeline's `model_index.json`: which models it is of, and what is kept of it.

Called by `folder.py`. The invariant: what passes is a text-to-image pipeline of the Stable
Diffusion family, and is written as one that diffusers loads without its safety checker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.pickles.convert import is_pickle, refuse_pickle

INDEX = "model_index.json"
EXPECTED = "a folder of diffusers' StableDiffusionPipeline or StableDiffusionXLPipeline"
_SD = ("unet", "vae", "text_encoder")
_SDXL = (*_SD, "text_encoder_2")
_PIPELINES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "StableDiffusionPipeline": ("StableDiffusionPipeline", _SD),
    "StableDiffusionImg2ImgPipeline": ("StableDiffusionPipeline", _SD),
    "StableDiffusionXLPipeline": ("StableDiffusionXLPipeline", _SDXL),
    "StableDiffusionXLImg2ImgPipeline": ("StableDiffusionXLPipeline", _SDXL),
    "LatentConsistencyModelPipeline": ("LatentConsistencyModelPipeline", _SD),
    "LatentConsistencyModelImg2ImgPipeline": ("LatentConsistencyModelPipeline", _SD),
}
"""The pipelines that are read: the text-to-image one of the same parts, and these parts."""
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
_CLASSES = {
    "unet": ("diffusers", ("UNet2DConditionModel",)),
    "vae": ("diffusers", ("AutoencoderKL", "AutoencoderTiny")),
    "text_encoder": ("transformers", ("CLIPTextModel",)),
    "text_encoder_2": ("transformers", ("CLIPTextModelWithProjection",)),
}
_OTHERS = {
    "ControlNet": "a ControlNet pipeline",
    "Inpaint": "an inpainting model",
    "InstructPix2Pix": "an instruct-pix2pix model",
    "Depth2Img": "a depth-guided model",
    "Upscale": "an upscaler",
    "Diffusion3": "a Stable Diffusion 3 model",
    "Flux": "a Flux model",
    "AnimateDiff": "a motion model",
    "Video": "a video model",
}
_ALONE = {
    "ControlNet": "a ControlNet, no model by itself: export a model with --controlnet and this",
    "UNet": "a UNet alone, without text encoder and autoencoder",
    "Autoencoder": "an autoencoder alone: export a model, and give this as its VAE",
    "Adapter": "an adapter, no model by itself",
    "CLIPText": "a text encoder alone",
}
_LORAS = ("adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline as it is exported.

    Args:
        index: its `model_index.json`.
        parts: the names of its networks.
        tokenizers: the names of its tokenizers.
    """

    index: Mapping[str, Any]
    parts: tuple[str, ...]
    tokenizers: tuple[str, ...]


def read_pipeline(folder: Path) -> Pipeline:
    """Reads what pipeline a folder holds.

    Raises:
        ModelError: it holds none, or one that is not rendered; the message names what it is.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder: expected {EXPECTED}")
    path = folder / INDEX
    if not path.exists():
        _refuse_without_index(folder)
    index = read_json(path, EXPECTED)
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in _PIPELINES:
        raise ModelError(f"{folder} is {_what(kind, _OTHERS)}: expected {EXPECTED}")
    if index.get("requires_aesthetics_score"):
        _refuse_refiner(folder)
    name, parts = _PIPELINES[kind]
    tokenizers = ("tokenizer", "tokenizer_2")[: len(parts) - len(_SD) + 1]
    for part in parts:
        _check_class(index, part, folder)
    for part in ("scheduler", *tokenizers):
        _entry(index, part, folder)
    known = (*parts, *tokenizers, "scheduler", *_UNUSED)
    for key, value in index.items():
        if key not in known and isinstance(value, list) and any(value):
            raise ModelError(f"{path} has the part {key!r}, which is not rendered: expected none")
    return Pipeline(_text_to_image(index, name), parts, tokenizers)


def _text_to_image(index: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The index without what is not exported, which is null as diffusers writes it."""
    dropped = ("requires_aesthetics_score", "requires_safety_checker")
    result = {key: value for key, value in index.items() if key not in dropped}
    unused = _UNUSED if name != "StableDiffusionXLPipeline" else _UNUSED[1:]
    result |= {"_class_name": name, **{key: [None, None] for key in unused}}
    if "safety_checker" in unused:
        result["requires_safety_checker"] = False
    else:
        result.pop("safety_checker", None)
    return result


def _check_class(index: Mapping[str, Any], part: str, folder: Path) -> None:
    if part == "text_encoder" and index.get(part) == [None, None]:
        _refuse_refiner(folder)
    kind = _entry(index, part, folder)
    library, classes = _CLASSES[part]
    if kind not in ([library, name] for name in classes):
        raise ModelError(
            f"{folder / INDEX} says that {part} is {'.'.join(kind)[:100]!r}: expected "
            f"{library}'s {' or '.join(classes)}"
        )


def _entry(index: Mapping[str, Any], part: str, folder: Path) -> list[str]:
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(x, str) for x in entry):
        raise ModelError(
            f"{folder / INDEX} names no {part}: expected a whole model, with its library and class"
        )
    return entry


def _refuse_refiner(folder: Path) -> NoReturn:
    raise ModelError(
        f"{folder} is SDXL's refiner, which improves pictures of the base model: expected the base "
        "model, export that"
    )


def _refuse_without_index(folder: Path) -> NoReturn:
    if any((folder / name).exists() for name in _LORAS):
        raise ModelError(
            f"{folder} is a LoRA, no model by itself: export a model and give this as its LoRA"
        )
    if (folder / "learned_embeds.safetensors").exists():
        raise ModelError(
            f"{folder} is an embedding, no model by itself: export a model and give this as its "
            "embedding"
        )
    if (folder / "config.json").exists():
        config = read_json(folder / "config.json", EXPECTED)
        kind = config.get("_class_name") or str(config.get("architectures") or "of unknown kind")
        raise ModelError(f"{folder} is {_what(kind, _ALONE)}: expected {EXPECTED}")
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" and path.is_file():
            raise ModelError(f"{folder} has no {INDEX} but {path.name}: give that file itself")
        if path.is_file() and path.suffix in (".ckpt", ".pt", ".pth") and is_pickle(path):
            refuse_pickle(path)
    raise ModelError(f"{folder / INDEX} is missing: expected {EXPECTED}")


def _what(kind: object, names: Mapping[str, str]) -> str:
    text = one_line(kind)[:100] if isinstance(kind, str) else "of no known class"
    meant = next((meaning for word, meaning in names.items() if word in text), None)
    return f"{meant} ({text})" if meant else text
