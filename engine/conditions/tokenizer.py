"""Prompts to token ids and their weights, without transformers.

`model.py` opens one beside each model; `embedder.py` encodes with it. Every row has exactly the
number of tokens that the text graph takes, and the marks of `emphasis.py` change no id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as quote
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.conditions.emphasis import parse_emphasis, plain_text
from giffusion.engine.errors import ModelError, one_line

_Number = TypeVar("_Number", np.int32, np.float32)


class PromptTokenizer:
    """A checkpoint's tokenizer, padding and cutting prompts to the text encoder's length.

    Args:
        path: `tokenizer.json`, with a template that adds the begin and end tokens.
        num_tokens: tokens a row, begin and end included.
        pad_token_id: id that fills a row after the end token.
        token_vectors: tokens that stand for several, as textual inversion trains them: `word` and
            the number of tokens `word`, `word_1`, … that each use of it becomes.

    Raises:
        ModelError: the file is missing or is not a tokenizer, or lacks one of those tokens.
    """

    def __init__(
        self,
        path: Path,
        *,
        num_tokens: int,
        pad_token_id: int,
        token_vectors: Mapping[str, int] | None = None,
    ) -> None:
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
        self._vectors = dict(self._ids(path, *pair) for pair in (token_vectors or {}).items())

    def encode(self, prompt: str) -> NDArray[np.int32]:
        """Returns the ids of a text without marks, shape (num_tokens,), int32; the rest is cut."""
        return self._row([t for t, _ in self._tokens(prompt)], self._pad_token_id, np.int32)

    def encode_weighted(self, prompt: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Encodes a prompt with the marks of `emphasis.py`.

        A token weighs the mean of its characters, besides white space; begin, end and padding 1.

        Returns:
            The ids of the prompt without its marks, (num_tokens,) int32, and the weights of the
            tokens, (num_tokens,) float32.

        Raises:
            EmphasisError: the marks have no meaning.
        """
        fragments = parse_emphasis(prompt)
        plain = "".join(fragment.text for fragment in fragments)
        weights = [fragment.weight for fragment in fragments for _ in fragment.text]
        tokens = self._tokens(plain)
        ids = self._row([token for token, _ in tokens], self._pad_token_id, np.int32)
        of_tokens = [_mean_weight(plain, weights, *span) for _, span in tokens]
        return ids, self._row(of_tokens, 1.0, np.float32)

    def cut(self, prompt: str) -> str | None:
        """Returns the end of a prompt that does not fit, without marks, or None if all of it does.

        Raises:
            EmphasisError: the marks have no meaning.
        """
        plain = plain_text(prompt)
        tokens = self._tokens(plain)
        if len(tokens) <= self._num_tokens:
            return None
        _, (begin, _) = tokens[self._num_tokens - 1]
        return plain[begin:].strip() or None

    def _tokens(self, text: str) -> list[tuple[int, tuple[int, int]]]:
        """Returns the ids of a text's tokens, each with where its characters begin and end."""
        encoding = self._tokenizer.encode(text)
        return [
            (vector, span)
            for token, span in zip(encoding.ids, encoding.offsets, strict=True)
            for vector in self._vectors.get(token, (token,))
        ]

    def _ids(self, path: Path, token: str, count: int) -> tuple[int, tuple[int, ...]]:
        names = [token, *(f"{token}_{i}" for i in range(1, count))]
        ids = [token_id for n in names if (token_id := self._tokenizer.token_to_id(n)) is not None]
        if len(ids) < count:
            raise ModelError(
                f"{path} has {len(ids)} of the {count} tokens of {quote(token)}: export the model "
                "again"
            )
        return ids[0], tuple(ids)

    def _row(
        self, values: Sequence[float], padding: float, dtype: type[_Number]
    ) -> NDArray[_Number]:
        """Fits one value a token to the row, of which the last one is the end token's."""
        if len(values) > self._num_tokens:
            values = [*values[: self._num_tokens - 1], values[-1]]
        row = np.full(self._num_tokens, padding, dtype)
        row[: len(values)] = values
        return row


def _mean_weight(plain: str, weights: list[float], begin: int, end: int) -> float:
    """Returns the weight of a token; some tokenizers count the space before a word as its own."""
    of_letters = {weights[i] for i in range(begin, end) if not plain[i].isspace()}
    if len(of_letters) <= 1:
        # As it was written, with no rounding; a token without characters weighs 1.
        return of_letters.pop() if of_letters else 1.0
    return fmean(weights[i] for i in range(begin, end) if not plain[i].isspace())
