"""Which files of a repository on the hub are read by an export.

Pure: `fetch.py` calls it with the names of a repository's files. The invariant: of a network's
weights one variant is chosen, as `weights_files.py` would, and never a pickle.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES
from giffusion.export.pickles.convert import PICKLE_SUFFIXES

INDEX = "model_index.json"
_TOKENIZER = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
)
_SMALL_FILES = {
    "scheduler": ("config.json", "scheduler_config.json"),
    "tokenizer": _TOKENIZER,
    "tokenizer_2": _TOKENIZER,
}
_NETWORKS = tuple(WEIGHTS_FILES)
_OPTIMUM_NETWORKS = ("unet", "vae_encoder", "vae_decoder", "text_encoder", "text_encoder_2")
_OPTIMUM_FILE = re.compile(r".+\.onnx([._]data)?|weights\.pb")
_NETWORK_STEM = "diffusion_pytorch_model"
# Shards have their number after the variant or before it, by the age of what saved them.
_NETWORK_FILE = (
    r"{stem}(?:\.([\w-]+?))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors"
    r"(?:\.index(?:\.([\w-]+))?\.json)?"
)
_SINGLE_FILE = re.compile(r"(?P<stem>.+?)(?:[._-](?P<variant>fp16|fp32|bf16))?\.safetensors")
_MAX_NAMED = 5
_EXPECTED = "expected a Stable Diffusion 1, 2 or XL model with safetensors weights"


def choose_files(
    where: str, names: Iterable[str], index: Mapping[str, Any] | None, prefer: str | None
) -> list[str]:
    """Chooses the files to fetch.

    Args:
        where: what the repository is called in messages.
        names: all of its files, with `/` between folders.
        index: its `model_index.json`, or None where it has none.
        prefer: the variant of weights to take where there is one, such as `fp16`; else the plain
            ones, else fp16, else the one that there is.

    Returns:
        Names in their order, small files and weights.

    Raises:
        ModelError: it is no model of a kind that can be exported, or has no safetensors weights
            where such are needed.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        folder, _, file = name.rpartition("/")
        folders[folder].append(file)
    if index is None:
        return _root_files(where, folders[""], prefer)
    if "unet" not in index:
        kind = one_line(index.get("_class_name"))[:100]
        raise ModelError(f"{where} is a {kind}: {_EXPECTED}")
    if _is_optimum(folders["unet"]):
        networks = {part: _optimum_files(folders[part]) for part in _OPTIMUM_NETWORKS}
    else:
        networks = {
            part: _network_files(where, part, folders[part], prefer)
            for part in _NETWORKS
            if _is_used(index, part)
        }
    small = {part: sorted({*folders[part]} & {*wanted}) for part, wanted in _SMALL_FILES.items()}
    return [
        INDEX,
        *(f"{part}/{file}" for part, files in (small | networks).items() for file in files),
    ]


def _is_used(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and entry != [None, None]


def _is_optimum(files: list[str]) -> bool:
    return "model.onnx" in files and not any(file.endswith(".safetensors") for file in files)


def _optimum_files(files: list[str]) -> list[str]:
    return [file for file in files if file == "config.json" or _OPTIMUM_FILE.fullmatch(file)]


def _network_files(where: str, part: str, files: list[str], prefer: str | None) -> list[str]:
    stem = WEIGHTS_FILES[part].removesuffix(".safetensors")
    variants: dict[str | None, list[str]] = defaultdict(list)
    for file in files:
        if match := re.fullmatch(_NETWORK_FILE.format(stem=stem), file):
            variants[match[1] or match[2] or match[3]].append(file)
    if not variants:
        _refuse_without_weights(where, f"{part}/", files)
    config = ["config.json"] if "config.json" in files else []
    return config + variants[_choose_variant(variants, prefer)]


def _root_files(where: str, files: list[str], prefer: str | None) -> list[str]:
    """Chooses from a repository of one network, such as an autoencoder, or of one file."""
    if "config.json" in files and any(file.startswith(_NETWORK_STEM) for file in files):
        return _network_files(where, "vae", files, prefer)
    stems: dict[str, dict[str | None, list[str]]] = defaultdict(dict)
    for file in files:
        if match := _SINGLE_FILE.fullmatch(file):
            stems[match["stem"]][match["variant"]] = [file]
    if not stems:
        _refuse_without_weights(where, "", files)
    if len(stems) > 1:
        listed = one_line(", ".join(f"{stem}.safetensors" for stem in list(stems)[:_MAX_NAMED]))
        raise ModelError(
            f"{where} holds {len(stems)} checkpoints, such as {listed}: download one of them with "
            "`hf download` and give its path"
        )
    (variants,) = stems.values()
    return variants[_choose_variant(variants, prefer)]


def _choose_variant(variants: Mapping[str | None, list[str]], prefer: str | None) -> str | None:
    for variant in (prefer, None, "fp16"):
        if variant in variants:
            return variant
    return min((name for name in variants if name), key=lambda name: (name == "non_ema", name))


def _refuse_without_weights(where: str, folder: str, files: list[str]) -> NoReturn:
    pickles = [file for file in files if file.endswith(PICKLE_SUFFIXES)]
    if pickles:
        raise ModelError(
            f"{where} has {folder}{pickles[0]} but no safetensors weights there, and a pickle can "
            "run code when it is read: choose a repository or a revision with safetensors, or "
            "download it with `hf download` and use `giffusion convert`"
        )
    raise ModelError(
        f"{where} has no safetensors weights{f' in {folder}' * bool(folder)}: {_EXPECTED}"
    )
