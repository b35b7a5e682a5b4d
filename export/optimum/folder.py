"""A folder that Optimum's exporter made: which graphs it has, and its configurations.

`read.py` opens one. The invariant: a folder that was opened has every graph, tokenizer and
configuration that a model folder is made of, and is of a kind that the engine renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giffusion.engine.contract import LATENT_CHANNELS
from giffusion.engine.errors import ModelError, one_line
from giffusion.engine.model import TOKENIZERS
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.checkpoint.check import check_unet
from giffusion.export.checkpoint.checkpoint import Vocabulary
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.vocabularies import clip_vocabulary

GRAPH_FILE = "model.onnx"
_EXPECTED = "a Stable Diffusion folder as Optimum exports it"
_XL_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae_decoder", "vae_encoder")
_NUMBERS = {
    "unet": ("sample_size",),
    "text_encoder": ("hidden_size", "max_position_embeddings", "num_hidden_layers"),
    "text_encoder_2": ("hidden_size", "projection_dim", "num_hidden_layers"),
}


@dataclass(frozen=True, slots=True)
class OptimumFolder:
    """An opened folder.

    Args:
        folder: where it lies.
        pipeline: its `model_index.json`.
        scheduler: its `scheduler_config.json`.
        configs: the `config.json` of each part: `unet`, `vae_encoder`, `vae_decoder`,
            `text_encoder`, and with SDXL `text_encoder_2`.
        vocabularies: `tokenizer`, and with SDXL `tokenizer_2`.
    """

    folder: Path
    pipeline: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    configs: Mapping[str, Mapping[str, Any]]
    vocabularies: Mapping[str, Vocabulary]

    @property
    def is_xl(self) -> bool:
        """Whether it is an SDXL model, with two text encoders."""
        return "text_encoder_2" in self.configs

    def graph(self, part: str) -> Path:
        """Returns the file of a part's graph."""
        return self.folder / part / GRAPH_FILE


def is_optimum_folder(folder: Path) -> bool:
    """Whether a folder holds Optimum's graphs and no weights that they could be traced from."""
    unet = folder / "unet"
    return (unet / GRAPH_FILE).is_file() and not any(unet.glob("*.safetensors"))


def open_optimum(folder: Path) -> OptimumFolder:
    """Opens a folder that Optimum made, its graphs unread.

    Raises:
        ModelError: a file is missing or malformed, or the model is of a kind that is not rendered.
    """
    pipeline = read_json(folder / "model_index.json", _EXPECTED)
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json", _EXPECTED)
    NoiseSchedule.from_config(scheduler)
    unet = read_json(folder / "unet" / "config.json", _EXPECTED)
    check_unet(unet, str(folder / "unet"))
    is_xl = unet.get("addition_embed_type") == "text_time"
    parts = [part for part in _XL_PARTS if is_xl or part != "text_encoder_2"]
    for part in parts:
        if not (folder / part / GRAPH_FILE).is_file():
            raise ModelError(
                f"{folder / part / GRAPH_FILE} is missing: expected {_EXPECTED}; export it again "
                "with optimum-cli export onnx"
            )
    configs = {part: read_json(folder / part / "config.json", _EXPECTED) for part in parts}
    _check_numbers(folder, configs)
    tokenizers = TOKENIZERS[: 2 if is_xl else 1]
    vocabularies = {name: _vocabulary(folder / name) for name in tokenizers}
    return OptimumFolder(folder, pipeline, scheduler, configs, vocabularies)


def _check_numbers(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    for part, config in configs.items():
        for key in _NUMBERS.get(part, ()):
            if type(config.get(key)) is not int or config[key] < 1:
                _refuse(folder / part, key, config, "a whole number")
    widths = configs["unet"].get("block_out_channels")
    if not isinstance(widths, list) or not widths or not all(type(w) is int for w in widths):
        _refuse(folder / "unet", "block_out_channels", configs["unet"], "a list of whole numbers")
    for part in ("vae_encoder", "vae_decoder"):
        factor = configs[part].get("scaling_factor")
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not factor > 0:
            _refuse(folder / part, "scaling_factor", configs[part], "a number above 0")
        if configs[part].get("latent_channels", LATENT_CHANNELS) != LATENT_CHANNELS:
            _refuse(folder / part, "latent_channels", configs[part], str(LATENT_CHANNELS))


def _refuse(part: Path, key: str, config: Mapping[str, Any], expected: str) -> None:
    value = one_line(repr(config.get(key)))[:60]
    raise ModelError(f"{part / 'config.json'} has {key} {value}: expected {expected}")


def _vocabulary(folder: Path) -> Vocabulary:
    config = read_json(folder / "tokenizer_config.json", _EXPECTED)
    if (folder / "tokenizer.json").is_file():
        return Vocabulary(read_json(folder / "tokenizer.json", _EXPECTED), config)
    vocab = read_json(folder / "vocab.json", _EXPECTED)
    try:
        merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ModelError(f"{folder / 'merges.txt'} is missing: expected {_EXPECTED}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / 'merges.txt'} cannot be read: {one_line(error)}") from None
    return clip_vocabulary(vocab, merges, config)
