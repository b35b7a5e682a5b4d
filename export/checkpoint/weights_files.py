"""The safetensors files of one network: which of several, and the tensors in them.

Called by the readers. File names are those that diffusers and transformers save:
`STEM.safetensors`, a variant `STEM.fp16.safetensors`, and shards with an index,
`STEM.safetensors.index.json` or `STEM.safetensors.index.fp16.json`. The invariant: every tensor
of a file is returned, is a known leftover, or is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from giffusion.engine.errors import ModelError, reason_of
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.names import is_leftover
from giffusion.export.checkpoint.tensors import DTYPES, Tensor, read_header, stored_tensors
from giffusion.export.pickles.convert import PICKLE_SUFFIXES, is_pickle, refuse_pickle

_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True, slots=True)
class Weights:
    """What was read of one network.

    Args:
        tensors: its tensors by the names that they have in the files.
        files: the files that were read, an index among them.
    """

    tensors: Mapping[str, Tensor]
    files: tuple[Path, ...]


def read_weights(folder: Path, stem: str, *, prefer: str | None = None) -> Weights:
    """Reads the weights that a network's folder holds.

    Args:
        folder: the network's folder.
        stem: `model` with transformers, `diffusion_pytorch_model` with diffusers.
        prefer: the variant to take where there is one, such as `fp16`; otherwise the plain files
            come first, then fp16, then whatever variant there is, non_ema last.

    Raises:
        ModelError: there are none, only pickles, or files that cannot be read.
    """
    found = _variants(folder, stem)
    if not found:
        _refuse_without(folder, stem)
    file = found[_choose(found, folder, prefer)]
    if file.suffix == ".json":
        return _read_shards(file)
    return Weights(read_tensors(file), (file,))


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Reads the list of a safetensors file's tensors, by their names.

    Raises:
        ModelError: it is missing, is not such a file, or holds a type that weights do not have,
            as quantised checkpoints do.
    """
    try:
        if is_pickle(file):
            refuse_pickle(file)
        tensors = stored_tensors(file)
        types = _types(file)
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {reason_of(error)}") from None
    for name, kind in types.items():
        if kind not in DTYPES and not is_leftover(name):
            raise ModelError(
                f"{file}: {name!r} is {kind}: expected {', '.join(DTYPES)}; quantised weights are "
                "not exported, take the model's fp16 ones"
            )
    for tensor in tensors:
        if not all(type(size) is int and size >= 0 for size in tensor.shape):
            raise ModelError(f"{file}: {tensor.name!r} has the shape {tensor.shape}: no tensor has")
    return {tensor.name: tensor for tensor in tensors}


def _types(file: Path) -> dict[str, str]:
    header, _ = read_header(file)
    return {name: str(entry["dtype"]) for name, entry in header.items() if name != "__metadata__"}


def _variants(folder: Path, stem: str) -> dict[str | None, Path]:
    """Finds single files and indices of shards by variant; of both, the shards, as diffusers."""
    single = re.compile(rf"{re.escape(stem)}(?:\.([\w-]+))?\.safetensors")
    index = re.compile(
        rf"{re.escape(stem)}(?:\.([\w-]+))?\.safetensors\.index(?:\.([\w-]+))?\.json"
    )
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found: dict[str | None, Path] = {}
    for name in names:
        match = single.fullmatch(name)
        if match and not _SHARD.search(match[1] or ""):
            found[match[1]] = folder / name
    for name in names:
        if match := index.fullmatch(name):
            found[match[1] or match[2]] = folder / name
    return found


def _choose(found: Mapping[str | None, Path], folder: Path, prefer: str | None) -> str | None:
    for variant in (prefer, None, "fp16"):
        if variant in found:
            return variant
    others = sorted((name for name in found if name), key=lambda name: (_is_non_ema(name), name))
    if len(others) > 1 and not _is_non_ema(others[1]):
        raise ModelError(
            f"{folder} has only the variants {', '.join(others)} of its weights: expected plain or "
            "fp16 ones, choose a variant"
        )
    return others[0]


def _is_non_ema(variant: str) -> bool:
    return variant.replace("-", "_").startswith("non_ema")


def _refuse_without(folder: Path, stem: str) -> None:
    pickles = sorted(path for path in folder.glob("*") if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        refuse_pickle(pickles[0])
    raise ModelError(f"{folder / stem}.safetensors is missing: expected safetensors weights")


def _read_shards(index: Path) -> Weights:
    places = read_json(index, "the index of a network's shards").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ModelError(f"{index} has no weight_map: expected the index of a network's shards")
    for shard in places.values():
        # An index is somebody else's text: it must not lead out of its folder.
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ModelError(f"{index} names the shard {shard!r}: expected a file beside it")
    shards = sorted(set(places.values()))
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in read_tensors(index.parent / shard).items():
            if places.get(name) == shard:
                tensors[name] = tensor
            elif not is_leftover(name):
                raise ModelError(f"{index} does not place {name!r} in {shard}, which holds it")
    for name, shard in places.items():
        if name not in tensors and not is_leftover(name):
            raise ModelError(f"{index} places {name!r} in {shard}, which lacks it")
    return Weights(tensors, (index, *(index.parent / shard for shard in shards)))
