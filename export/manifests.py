"""What a model folder says of itself, from the configurations of its networks.

`model.py` calls it for folders with weights, `optimum/` for graphs that have their own. The
invariant: all that rendering needs of a model is in its manifest, its graphs, its tokenizers and
its scheduler's config.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from giffusion.engine import digests
from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.errors import ModelError
from giffusion.engine.manifest import FORMAT, Manifest
from giffusion.engine.model import TOKENIZERS
from giffusion.export.checkpoint.json_files import read_json

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")


def make_manifest(
    folder: Path,
    name: str,
    configs: Mapping[str, Mapping[str, Any]],
    *,
    weights: Iterable[str],
    origin: Mapping[str, str],
) -> Manifest:
    """Returns a folder's manifest, without the hashes of its graphs.

    Args:
        folder: the model folder.
        name: what the model is called.
        configs: of `unet`, the text encoders and `controlnet`, by their folders.
        weights: the files that graphs take weights from, and other files that are read, by path.
        origin: sha256 of the files that the folder was made of, by name.

    Raises:
        ModelError: a file is missing, or a tokenizer has no pad token.
    """
    unet = configs["unet"]
    encoders = [configs[part] for part in TEXT_ENCODERS if part in configs]
    side = int(unet["sample_size"]) * LATENT_SCALE
    num_upsamplers = len(unet["block_out_channels"]) - 1
    tokenizers = TOKENIZERS[: len(encoders)]
    pipeline = read_json(folder / "model_index.json")
    files = (
        *weights,
        *(f"{tokenizer}/tokenizer.json" for tokenizer in tokenizers),
        "scheduler/scheduler_config.json",
    )
    is_sdxl = unet.get("addition_embed_type") == "text_time"
    return Manifest(
        format=FORMAT,
        name=name,
        size=(side, side),
        size_multiple=LATENT_SCALE * 2**num_upsamplers,
        num_tokens=int(encoders[0]["max_position_embeddings"]),
        pad_token_ids=tuple(_pad_token_id(folder / tokenizer) for tokenizer in tokenizers),
        text_dims=tuple(int(config["hidden_size"]) for config in encoders),
        pooled_dim=int(encoders[-1]["projection_dim"]) if is_sdxl else None,
        zero_negative=is_sdxl and bool(pipeline.get("force_zeros_for_empty_prompt", True)),
        token_vectors=_token_vectors(folder / tokenizers[0]),
        time_dim=int(unet["block_out_channels"][0]),
        guidance_dim=unet.get("time_cond_proj_dim"),
        control_dim=int(unet["block_out_channels"][0]) if "controlnet" in configs else None,
        flip_sin_to_cos=bool(unet.get("flip_sin_to_cos", True)),
        freq_shift=float(unet.get("freq_shift", 0)),
        graphs={},
        sources={path: sha256(folder / path) for path in dict.fromkeys(files)},
        origin=dict(origin),
    )


def sha256(path: Path) -> str:
    """Returns the hash of a file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return digests.sha256(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _pad_token_id(tokenizer: Path) -> int:
    """The tokenizer's own pad token; a text encoder's config is often wrong about it."""
    config = read_json(tokenizer / "tokenizer_config.json")
    token = config.get("pad_token", config.get("eos_token"))
    token = token["content"] if isinstance(token, dict) else token
    vocabulary = read_json(tokenizer / "tokenizer.json")
    ids = {entry["content"]: entry["id"] for entry in vocabulary.get("added_tokens", [])}
    ids |= vocabulary["model"]["vocab"]
    if token not in ids:
        raise ModelError(f"{tokenizer} has no pad token {token!r} in its vocabulary")
    return int(ids[token])


def _token_vectors(tokenizer: Path) -> dict[str, int]:
    config = read_json(tokenizer / "tokenizer_config.json")
    return {token: count for token, count in config.get("token_vectors", {}).items() if count > 1}
