"""The model's tokenizer: byte-level BPE over its captions, as CLIP's in all that the engine reads.

`prepare` trains it, once a corpus. The invariant: a caption is `<s>` … `</s>`, padded with `</s>`
to `LENGTH`, and text of any language or case has tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

BEGIN, END = "<s>", "</s>"
SIZE = 4096
LENGTH = 24

_CONFIG = {
    "backend": "tokenizers",
    "bos_token": BEGIN,
    "eos_token": END,
    "model_max_length": LENGTH,
    "pad_token": END,
    "tokenizer_class": "TokenizersBackend",
    "unk_token": END,
}


def train_tokenizer(captions: Iterable[str], size: int = SIZE) -> Tokenizer:
    """Trains a byte-level BPE of at most `size` tokens on lower-case captions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    ends = [(BEGIN, tokenizer.token_to_id(BEGIN)), (END, tokenizer.token_to_id(END))]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=ends
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes the folder that transformers and the engine read."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(_CONFIG, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def token_ids(tokenizer: Tokenizer, captions: Sequence[str]) -> NDArray[np.int16]:
    """(len(captions), LENGTH) token ids, cut and padded with the end as the engine does it."""
    end = tokenizer.token_to_id(END)
    rows = np.full((len(captions), LENGTH), end, np.int16)
    for row, encoding in zip(rows, tokenizer.encode_batch(list(captions)), strict=True):
        ids = encoding.ids[: LENGTH - 1]
        row[: len(ids)] = ids
    return rows
