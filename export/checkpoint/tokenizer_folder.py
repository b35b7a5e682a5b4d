"""One tokenizer's folder, with or without a `tokenizer.json`.

Called by `folder.py`. The invariant: tokens and the pad token are those that transformers takes
from the same folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from giffusion.engine.conditions.tokenizer import PromptTokenizer
from giffusion.engine.errors import ModelError, reason_of
from giffusion.export.checkpoint.checkpoint import Vocabulary
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.checkpoint.vocabularies import clip_vocabulary

_EXPECTED = "a CLIP tokenizer's folder, with tokenizer.json or vocab.json and merges.txt"


def read_vocabulary(folder: Path) -> tuple[Vocabulary, tuple[Path, ...]]:
    """Reads a tokenizer.

    Args:
        folder: with `tokenizer.json`, or `vocab.json` and `merges.txt`; and what configures it.

    Returns:
        The tokenizer, and the files that were read.

    Raises:
        ModelError: a file is missing or is not a tokenizer's.
    """
    config, files = _config(folder)
    whole = folder / "tokenizer.json"
    if whole.is_file():
        tokenizer = read_json(whole, _EXPECTED)
        # What is not a tokenizer is found here rather than after minutes of export.
        PromptTokenizer(whole, num_tokens=1, pad_token_id=0)
        return Vocabulary(tokenizer, config), (whole, *files)
    vocab_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab = read_json(vocab_file, _EXPECTED)
    try:
        merges = merges_file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{merges_file} cannot be read: {reason_of(error)}; expected {_EXPECTED}"
        ) from None
    try:
        vocabulary = clip_vocabulary(vocab, merges, config)
    except ModelError as error:
        raise ModelError(f"{folder}: {error}") from None
    return vocabulary, (vocab_file, merges_file, *files)


def _config(folder: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Reads what configures a tokenizer, older files among it as transformers does.

    Special tokens and added ones had files of their own before `added_tokens_decoder`.
    """
    config: dict[str, Any] = {}
    names = ["tokenizer_config.json"]
    if (folder / names[0]).is_file():
        config |= read_json(folder / names[0], _EXPECTED)
    if "added_tokens_decoder" not in config:
        if (folder / "special_tokens_map.json").is_file():
            names.append("special_tokens_map.json")
            config |= read_json(folder / names[-1], _EXPECTED)
        if (folder / "added_tokens.json").is_file():
            names.append("added_tokens.json")
            added = read_json(folder / names[-1], "a JSON object of tokens and their ids")
            config["added_tokens_decoder"] = _decoder(added)
    return config, tuple(folder / name for name in names if (folder / name).is_file())


def _decoder(added: Mapping[str, Any]) -> dict[str, Any]:
    return {str(number): {"content": token, "normalized": True} for token, number in added.items()}
