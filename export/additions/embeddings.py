"""Textual inversions added to a checkpoint: rows of the token table, and tokens that mean them.

`giffusion export --embedding FILE:TOKEN` calls `parse_embedding` and `add_embedding`. The
invariant: what the checkpoint knew before keeps its ids and its embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.export.additions.added_tokens import add_tokens, eos_token_id
from giffusion.export.additions.embedding_files import read_vectors
from giffusion.export.additions.files import shown, with_source
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part, Vocabulary
from giffusion.export.checkpoint.tensors import Array, Computed, Tensor

TABLE = "text_model.embeddings.token_embedding.weight"
TOKEN_VECTORS = "token_vectors"
"""Where a Vocabulary's config says how many vectors each added token means."""
_TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
_WRONG_EOS = 2


def parse_embedding(text: str) -> tuple[Path, str | None]:
    """Reads an option's value, `FILE` or `FILE:TOKEN`.

    The last `:` ends the file's name unless the whole is an existing file, or what follows has a
    slash, as in `C:\\a.safetensors`.

    Returns:
        The file and the token, None where there is none.

    Raises:
        SettingsError: there is no file or an empty token.
    """
    name, colon, token = text.rpartition(":")
    whole = not colon or "/" in token or "\\" in token or _is_file(text)
    file = text if whole else name
    if not file.strip() or not (whole or token.strip()):
        raise SettingsError(f"the embedding {shown(repr(text))}: expected FILE or FILE:TOKEN")
    return Path(file), None if whole else token


def add_embedding(checkpoint: Checkpoint, path: Path, token: str | None = None) -> Checkpoint:
    """Adds a textual inversion (arXiv:2208.01618) to a checkpoint.

    Tokens are named and matched as diffusers' `load_textual_inversion` does it: one of n vectors is
    `token`, `token_1`, … up to `token_{n-1}`, with or without letters' case as the tokenizer has
    it, and inside words too. Prompts write the first for all of them, which engines expand; each
    tokenizer's config says how many there are under `token_vectors`.

    Args:
        checkpoint: what the embedding was trained for.
        path: a safetensors file: diffusers' `learned_embeds.safetensors`, AUTOMATIC1111's
            `emb_params`, or SDXL's `clip_l` and `clip_g`.
        token: what prompts call it; by default what the file says, or its name.

    Returns:
        The checkpoint with larger tables, none of which has been made yet, and vocabularies.

    Raises:
        ModelError: the file is of another kind or for another family, or the token cannot be used.
    """
    encoders = [part for part in _TOKENIZERS if part in checkpoint.parts]
    widths = {part: _table(checkpoint, part).shape[1] for part in encoders}
    vectors, own_token = read_vectors(path, widths)
    token = own_token if token is None else token
    parts, vocabularies = dict(checkpoint.parts), dict(checkpoint.vocabularies)
    for part in encoders:
        vocabulary = vocabularies[_TOKENIZERS[part]]
        edited, first = _extended(path, vocabulary, token, len(vectors[part]))
        vocabularies[_TOKENIZERS[part]] = edited
        parts[part] = _grown(path, parts[part], edited, vectors[part], first)
    return replace(
        checkpoint,
        parts=parts,
        vocabularies=vocabularies,
        sources=with_source(checkpoint.sources, f"embedding {path.name}:{token}", path),
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _table(checkpoint: Checkpoint, part: str) -> Tensor:
    table = checkpoint.parts[part].tensors.get(TABLE)
    if table is None or len(table.shape) != 2:
        raise ModelError(
            f"{shown(checkpoint.name)}'s {part} has no token table {TABLE}: expected CLIP's text "
            "encoder; use another checkpoint"
        )
    return table


def _extended(
    path: Path, vocabulary: Vocabulary, token: str, num_vectors: int
) -> tuple[Vocabulary, int]:
    """Adds a token's names to a tokenizer, and returns the id of the first of them."""
    names = [token, *(f"{token}_{i}" for i in range(1, num_vectors))]
    edited, first = add_tokens(path, vocabulary, names)
    counts = vocabulary.config.get(TOKEN_VECTORS, {})
    if not isinstance(counts, Mapping):
        raise ModelError(
            f"the checkpoint's tokenizer_config.json has {TOKEN_VECTORS} {shown(repr(counts))}: "
            "expected numbers by tokens; remove it"
        )
    config = {**edited.config, TOKEN_VECTORS: {**counts, token: num_vectors}}
    return replace(edited, config=config), first


def _grown(path: Path, part: Part, vocabulary: Vocabulary, vectors: Array, first: int) -> Part:
    """Puts vectors into a token table from a row on, which may have been spare or is new."""
    table = part.tensors[TABLE]
    num_rows = table.shape[0]
    if first > num_rows:
        raise ModelError(
            f"{path}: the tokenizer's next id is {first}, but the text encoder has {num_rows} "
            "embeddings: expected a tokenizer and a text encoder of one checkpoint"
        )
    with np.errstate(over="ignore"):
        rows: Array = vectors.astype(table.dtype.numpy())
    if not np.isfinite(rows).all():
        raise ModelError(
            f"{path}: its vectors are out of the range of {table.dtype.name}: expected values that "
            "the checkpoint's type has; use a float32 checkpoint"
        )
    grown = max(num_rows, first + len(rows))
    tensor = Computed(table.dtype, (grown, table.shape[1]), partial(_with, table, rows, first))
    config = {**part.config, "vocab_size": grown, **_corrected_eos(part.config, vocabulary)}
    return Part(config, {**part.tensors, TABLE: tensor})


def _with(table: Tensor, rows: Array, first: int) -> Array:
    values = table.read()
    return np.concatenate([values[:first], rows, values[first + len(rows) :]])


def _corrected_eos(config: Mapping[str, object], vocabulary: Vocabulary) -> Mapping[str, int]:
    # Published configs have 2 for CLIP's end token, by which transformers takes the largest id of
    # a row for the end; an added token's is larger.
    actual = eos_token_id(vocabulary)
    wrong = config.get("eos_token_id") == _WRONG_EOS
    return {"eos_token_id": actual} if wrong and actual is not None else {}
