"""CLIP's tokenizer in `tokenizer.json` form, from a vocabulary and merges, or from those that ship.

Readers call it for checkpoints that have no `tokenizer.json`. The invariant: ids and offsets are
those of transformers' CLIPTokenizer with the same files.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import Vocabulary

BEGIN_TOKEN = "<|startoftext|>"
END_TOKEN = "<|endoftext|>"
NUM_TOKENS = 77
"""Tokens a row of every published CLIP text encoder."""
MERGES_FILE = "clip_merges.txt.gz"
_WORD_END = "</w>"
# In the order that transformers sets them: the last one's flags hold for tokens of two roles.
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
_DEFAULTS = {
    "tokenizer_class": "CLIPTokenizer",
    "model_max_length": NUM_TOKENS,
    "bos_token": BEGIN_TOKEN,
    "eos_token": END_TOKEN,
    "unk_token": END_TOKEN,
    "pad_token": END_TOKEN,
}
# Words, contractions, single digits and runs of anything else, as CLIP's simple_tokenizer.py.
_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_NORMALIZER = {
    "type": "Sequence",
    "normalizers": [
        {"type": "NFC"},
        {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
        {"type": "Lowercase"},
    ],
}
_BYTE_LEVEL = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
_PRE_TOKENIZER = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": _SPLIT}, "behavior": "Removed", "invert": True},
        _BYTE_LEVEL | {"add_prefix_space": False},
    ],
}


def clip_vocabulary(
    vocab: Mapping[str, int], merges: Sequence[str], config: Mapping[str, Any]
) -> Vocabulary:
    """Makes a tokenizer of what `vocab.json`, `merges.txt` and `tokenizer_config.json` hold.

    Args:
        vocab: ids of the tokens.
        merges: pairs of tokens with a space between, the first to be merged first; a `#version`
            line and empty lines are no merges.
        config: names the special tokens, as strings or as objects with `content`, and lists added
            ones in `added_tokens_decoder`; what it lacks is as in CLIP's own.

    Returns:
        The tokenizer: normalisation, splitting, byte-level BPE, begin and end tokens. As in
        transformers, a special token in a prompt is that token: with the pad token `!`, each `!`.

    Raises:
        ModelError: a merge or a special token is not in the vocabulary, or an entry is malformed.
    """
    _check_ids(vocab)
    settings = _DEFAULTS | dict(config)
    special = {key: _special(settings, key) for key in _SPECIAL}
    begin, end, unknown = (
        str(special[key]["content"]) for key in ("bos_token", "eos_token", "unk_token")
    )
    for token in (entry["content"] for entry in special.values()):
        if token not in vocab:
            raise ModelError(
                f"the tokenizer's vocabulary lacks its special token {token!r}: expected vocab.json"
                " and tokenizer_config.json of one tokenizer"
            )
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocab, list(special.values()), settings),
        "normalizer": _NORMALIZER,
        "pre_tokenizer": _PRE_TOKENIZER,
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [end, vocab[end]],
            "cls": [begin, vocab[begin]],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": _BYTE_LEVEL | {"add_prefix_space": True},
        "model": _model(vocab, list(_pairs(merges, vocab)), unknown),
    }
    return Vocabulary(tokenizer, settings)


def openai_vocabulary(pad_token: str) -> Vocabulary:
    """Returns CLIP's own vocabulary of 49,408 tokens, which all Stable Diffusion models use.

    Args:
        pad_token: `<|endoftext|>` with SD 1 and SDXL's first text encoder, `!` with SD 2 and
            SDXL's second.
    """
    merges = _openai_merges()
    return clip_vocabulary(_openai_vocab(merges), merges, {"pad_token": pad_token})


@cache
def _openai_merges() -> tuple[str, ...]:
    packed = files(__package__).joinpath("data", MERGES_FILE).read_bytes()
    return tuple(gzip.decompress(packed).decode("utf-8").splitlines())


def _openai_vocab(merges: Sequence[str]) -> dict[str, int]:
    """Numbers bytes, bytes that end a word, merges in their order, and the special tokens."""
    letters = list(byte_letters())
    words = [letter + _WORD_END for letter in letters]
    merged = [merge.replace(" ", "") for merge in merges]
    return {token: i for i, token in enumerate([*letters, *words, *merged, BEGIN_TOKEN, END_TOKEN])}


def byte_letters() -> Iterator[str]:
    """Yields the characters that stand for bytes in byte-level BPE, in the order of CLIP's ids.

    Printable characters of Latin-1 stand for themselves and come first; the others are shifted to
    256 and up, so that no token holds a blank (GPT-2's `bytes_to_unicode`).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    printable += range(ord("®"), ord("ÿ") + 1)
    yield from map(chr, printable)
    yield from map(chr, range(256, 512 - len(printable)))


def _model(vocab: Mapping[str, int], merges: list[list[str]], unknown: str) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": _WORD_END,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": dict(vocab),
        "merges": merges,
    }


def _check_ids(vocab: Mapping[str, int]) -> None:
    for token, number in vocab.items():
        if type(number) is not int or number < 0:
            raise ModelError(
                f"the tokenizer's vocabulary has the id {number!r} for {token!r}: expected a whole"
                " number from 0; get vocab.json again"
            )


def _pairs(merges: Sequence[str], vocab: Mapping[str, int]) -> Iterator[list[str]]:
    for index, merge in enumerate(merges):
        if not merge.strip() or (index == 0 and merge.startswith("#version")):
            continue
        pair = merge.split()
        if len(pair) != 2 or not all(token in vocab for token in (*pair, "".join(pair))):
            raise ModelError(
                f"the tokenizer's merge {merge.strip()!r} is not of two tokens that make a third of"
                " its vocabulary: expected vocab.json and merges.txt of one tokenizer"
            )
        yield pair


def _special(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    token = _DEFAULTS[key] if settings[key] is None else settings[key]
    entry = token if isinstance(token, Mapping) else {"content": token}
    if not isinstance(entry.get("content"), str):
        raise ModelError(
            f"the tokenizer's {key} is {token!r}: expected a token; correct tokenizer_config.json"
        )
    return _entry(entry)


def _entry(token: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a token with its flags, each of which is off where it says nothing."""
    flags = {flag: bool(token.get(flag, False)) for flag in _FLAGS}
    special = bool(token.get("special", True))
    return {"content": str(token["content"]), **flags, "special": special}


def _added_tokens(
    vocab: Mapping[str, int], special: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    entries = {vocab[token["content"]]: dict(token) for token in special}
    listed = settings.get("added_tokens_decoder") or {}
    try:
        extra = {int(number): _entry(token) for number, token in listed.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ModelError(
            "the tokenizer's added_tokens_decoder is malformed: expected ids with objects that have"
            " content; correct tokenizer_config.json"
        ) from None
    _check_added(vocab, extra)
    return [{"id": number, **entry} for number, entry in sorted((entries | extra).items())]


def _check_added(vocab: Mapping[str, int], extra: Mapping[int, Mapping[str, Any]]) -> None:
    """Added tokens are numbered on from the vocabulary: tokenizers heeds no other ids."""
    following = len(vocab)
    for number, entry in sorted(extra.items()):
        token = entry["content"]
        if number != vocab.get(token, following):
            raise ModelError(
                f"the tokenizer's added token {token!r} has the id {number}: expected "
                f"{vocab.get(token, following)}; correct added_tokens_decoder in "
                "tokenizer_config.json"
            )
        following += token not in vocab
