"""Tokens added to a tokenizer, as transformers' `add_tokens` does it.

`embeddings.py` calls it. The invariant: ids that the tokenizer gave before stay, and the new ones
follow one another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from giffusion.engine.errors import ModelError, one_line
from giffusion.export.additions.files import shown
from giffusion.export.checkpoint.checkpoint import Vocabulary

MAX_TOKEN = 100
"""Characters of a token."""
_LISTED = "added_tokens_decoder"


def add_tokens(path: Path, vocabulary: Vocabulary, names: Sequence[str]) -> tuple[Vocabulary, int]:
    """Adds tokens behind those that there are.

    They are looked for in normalised text, as transformers does with tokens that are not special:
    `<Cat>` and `<cat>` are one where the tokenizer lowers letters.

    Args:
        path: what they come from, for messages.
        vocabulary: the tokenizer.
        names: the tokens.

    Returns:
        The new tokenizer, and the id of the first token; the others' follow.

    Raises:
        ModelError: the tokenizer is malformed, or a name is no token or is one already.
    """
    tokenizer = _open(vocabulary)
    for name in names:
        _check(path, tokenizer, vocabulary, name)
    _check_ids(tokenizer)
    tokenizer.add_tokens([AddedToken(name, normalized=True, special=False) for name in names])
    ids = [tokenizer.token_to_id(name) or 0 for name in names]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "tokenizers numbers new tokens in a row"
    edited = json.loads(tokenizer.to_str())
    _check_found(path, tokenizer, names, ids)
    return Vocabulary(edited, _listed(vocabulary.config, edited, ids)), ids[0]


def eos_token_id(vocabulary: Vocabulary) -> int | None:
    """Returns the id of the token that ends a row, or None where the config names none."""
    token = vocabulary.config.get("eos_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    return _open(vocabulary).token_to_id(token) if isinstance(token, str) else None


def _open(vocabulary: Vocabulary) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(dict(vocabulary.tokenizer)))
    except Exception as error:  # tokenizers raises plain Exception for malformed files
        raise ModelError(
            f"the checkpoint's tokenizer.json is malformed: {shown(one_line(error))}; expected one "
            "that tokenizers reads"
        ) from None


def _check(path: Path, tokenizer: Tokenizer, vocabulary: Vocabulary, name: str) -> None:
    advice = "choose another with FILE:TOKEN"
    if not name or len(name) > MAX_TOKEN or not name.isprintable() or " " in name:
        raise ModelError(
            f"{path}: {shown(repr(name))} cannot be a token: expected 1 to {MAX_TOKEN} characters "
            f"without blanks; {advice}"
        )
    normal = _normal(tokenizer, name)
    if not normal.strip():
        raise ModelError(f"{path}: nothing is left of the token {name!r} in a prompt; {advice}")
    added = vocabulary.tokenizer.get("added_tokens") or []
    taken = {_normal(tokenizer, entry["content"]) for entry in added}
    known = (tokenizer.token_to_id(name), tokenizer.token_to_id(normal))
    if normal in taken or known != (None, None):
        raise ModelError(
            f"{path}: the token {name!r} is in the tokenizer's vocabulary already: expected a new "
            f"one; {advice}"
        )


def _check_ids(tokenizer: Tokenizer) -> None:
    """New tokens are numbered from the count of old ones, wherever the ids of those end."""
    ids = set(tokenizer.get_vocab(with_added_tokens=True).values())
    if ids != set(range(len(ids))):
        raise ModelError(
            f"the checkpoint's tokenizer.json has {len(ids)} ids up to {max(ids, default=0)}: "
            "expected ids without gaps, to which tokens can be added"
        )


def _check_found(
    path: Path, tokenizer: Tokenizer, names: Sequence[str], ids: Sequence[int]
) -> None:
    """Special tokens are cut out of prompts first, such as each `!` where that is the pad token."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for name, number in zip(names, ids, strict=True):
        if tokenizer.encode(name, add_special_tokens=False).ids != [number]:
            raise ModelError(
                f"{path}: the tokenizer does not find the token {name!r} in a prompt, other tokens "
                "are parts of it; choose another with FILE:TOKEN"
            )


def _normal(tokenizer: Tokenizer, text: str) -> str:
    normalizer = tokenizer.normalizer
    return text if normalizer is None else normalizer.normalize_str(text)


def _listed(
    config: Mapping[str, Any], tokenizer: Mapping[str, Any], ids: Sequence[int]
) -> Mapping[str, Any]:
    """Lists the tokens in tokenizer_config.json too, where it lists any."""
    if not isinstance(config.get(_LISTED), Mapping):
        return config
    entries = {entry["id"]: entry for entry in tokenizer["added_tokens"] if entry["id"] in ids}
    new = {
        str(number): {key: value for key, value in entry.items() if key != "id"}
        for number, entry in entries.items()
    }
    return {**config, _LISTED: {**config[_LISTED], **new}}
