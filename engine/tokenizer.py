"""Prompts to token ids, without transformers.

`model.py` opens one beside each model; `stages.py` encodes with it. Every row has exactly
the number of tokens that the text graph takes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.errors import ModelError, one_line


class PromptTokenizer:
    """A checkpoint's tokenizer, padding and cutting prompts to the text encoder's length.

    Args:
        path: `tokenizer.json`, with a template that adds the begin and end tokens.
        num_tokens: tokens a row, begin and end included.
        pad_token_id: id that fills a row after the end token.

    Raises:
        ModelError: the file is missing or is not a tokenizer.
    """

    def __init__(self, path: Path, *, num_tokens: int, pad_token_id: int) -> None:
        # Imported here so that planning, which needs no model, starts without it.
        from tokenizers import Tokenizer

        if not path.is_file():
            raise ModelError(f"{path} is missing: expected the tokenizer in tokenizer.json form")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception for malformed files
            raise ModelError(f"{path} is not a tokenizer: {one_line(error)}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._num_tokens = num_tokens
        self._pad_token_id = pad_token_id

    def encode(self, prompt: str) -> NDArray[np.int32]:
        """Returns the ids of one prompt, shape (num_tokens,), int32; what is too long is cut."""
        ids: list[int] = self._tokenizer.encode(prompt).ids
        if len(ids) > self._num_tokens:
            ids = [*ids[: self._num_tokens - 1], ids[-1]]
        row = np.full(self._num_tokens, self._pad_token_id, np.int32)
        row[: len(ids)] = ids
        return row

    def cut(self, prompt: str) -> str | None:
        """Returns the end of a prompt that does not fit, or None if all of it does."""
        encoding = self._tokenizer.encode(prompt)
        if len(encoding.ids) <= self._num_tokens:
            return None
        begin, _ = encoding.offsets[self._num_tokens - 1]
        return prompt[begin:].strip() or None
