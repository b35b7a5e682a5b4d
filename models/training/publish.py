"""The trained networks as a folder that diffusers loads, and that folder in pieces.

`train.py` writes it every minute and at the end. The invariant: the folder is a whole
`StableDiffusionPipeline` in float16, or it is not there.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from giffusion.models.training.networks import SCHEDULER, Denoiser

PIECE_BYTES = 15 * 2**20
"""Size of a piece of `pack`, for channels that carry small files only."""

_ABSENT = [None, None]


def publish(folder: Path, model: Denoiser, autoencoder: nn.Module, tokenizer: Path) -> None:
    """Writes a pipeline.

    Args:
        folder: is written anew.
        model: text encoder and U-Net, whose weights stay as they are.
        autoencoder: an `AutoencoderTiny` whose latents have variance 1.
        tokenizer: folder of the tokenizer.
    """
    with replaced(folder) as part:
        shutil.copytree(tokenizer, part / "tokenizer")
        publish_part(part / "text_encoder", model.text_encoder)
        publish_part(part / "unet", model.unet)
        publish_part(part / "vae", autoencoder)
        version = {"_diffusers_version": _diffusers_version()}
        scheduler = {"_class_name": "DDIMScheduler", **version, **SCHEDULER}
        _write_json(part / "scheduler" / "scheduler_config.json", scheduler)
        _write_json(part / "model_index.json", {**_index(), **version})


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write, which takes the place of another when it is whole.

    Args:
        folder: is replaced.

    Yields:
        The path of one that does not exist yet, beside it.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def publish_part(folder: Path, network: nn.Module) -> None:
    """Writes a network alone, in float16, such as a U-Net that shares all else with a pipeline."""
    copy: Any = deepcopy(network).half().to("cpu")
    copy.save_pretrained(folder, safe_serialization=True)
    config = json.loads((folder / "config.json").read_text())
    # Where it was loaded from is of this machine.
    config.pop("_name_or_path", None)
    _write_json(folder / "config.json", config)
    for file in folder.iterdir():
        file.chmod(0o644)


def _diffusers_version() -> str:
    import diffusers

    return str(diffusers.__version__)


def _index() -> dict[str, object]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": _ABSENT,
        "image_encoder": _ABSENT,
        "requires_safety_checker": False,
        "safety_checker": _ABSENT,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "TokenizersBackend"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def pack(folder: Path, target: Path) -> list[Path]:
    """Packs a folder into `<target>.0`, `<target>.1` …, which `cat` joins to a tar file.

    Args:
        folder: is packed under its own name.
        target: path of the pieces without their numbers; older ones are removed.

    Returns:
        The pieces.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.add(folder, folder.name)
    for old in target.parent.glob(f"{target.name}.*"):
        old.unlink()
    data = stream.getbuffer()
    pieces = []
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        pieces.append(target.with_name(f"{target.name}.{number}"))
        pieces[-1].write_bytes(data[start : start + PIECE_BYTES])
    return pieces
