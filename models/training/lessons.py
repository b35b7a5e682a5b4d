"""Lessons for a trained model: a rephrasing, what it means, and which token stands for which.

`listening` teaches them. The invariant: all of a lesson comes from the corpus's captions and the
lists of `phrases`, by a seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from giffusion.models.training import captions as english
from giffusion.models.training.phrases import Piece, Rephraser
from giffusion.models.training.tokens import BEGIN, END, LENGTH, load_tokenizer

_EMPTY = 0.04
"""Share of lessons that are the empty caption, which guidance needs and which means itself."""

_WHOLE = list(range(LENGTH))


@dataclass(frozen=True, slots=True)
class Lesson:
    """A rephrasing and what it means, as token ids.

    Attributes:
        said: LENGTH ids.
        meant: LENGTH ids.
        stands_for: for each token that is said, the place of that which it stands for; a word that
            means nothing stands for the beginning.
        scene: number of the scene that it is a caption of.
    """

    said: list[int]
    meant: list[int]
    stands_for: list[int]
    scene: int = 0


@dataclass(frozen=True, slots=True)
class LessonBatch:
    """Lessons as tensors; see `Lesson`.

    Attributes:
        said: (b, LENGTH) int64.
        meant: (b, LENGTH).
        stands_for: (b, LENGTH).
        scenes: (b,).
    """

    said: Tensor
    meant: Tensor
    stands_for: Tensor
    scenes: Tensor

    @classmethod
    def of(cls, lessons: Sequence[Lesson]) -> LessonBatch:
        """Stacks lessons, on the CPU."""
        return cls(
            torch.tensor([one.said for one in lessons]),
            torch.tensor([one.meant for one in lessons]),
            torch.tensor([one.stands_for for one in lessons]),
            torch.tensor([one.scene for one in lessons]),
        )

    def to(self, device: torch.device) -> LessonBatch:
        """The same on a device."""
        tensors = (self.said, self.meant, self.stands_for, self.scenes)
        return LessonBatch(*(tensor.to(device) for tensor in tensors))


class Teacher:
    """Makes lessons of the corpus's captions.

    Args:
        tokenizer: the corpus's.
        token_ids: (n, LENGTH), its captions.
        seed: of what is drawn.
    """

    def __init__(self, tokenizer: Tokenizer, token_ids: Tensor, seed: int) -> None:
        self._tokenizer, self._token_ids = tokenizer, token_ids
        self._phrases = Rephraser(seed)
        self._draw = Random(seed)
        self._begin, self._end = (_id(tokenizer, token) for token in (BEGIN, END))
        self._tokens = lru_cache(maxsize=100_000)(self._encode)
        # Sentences of the corpus by their length, to stand for others that are as long.
        self._openings: dict[int, list[str]] = {}
        for opening in sorted(english.openings()):
            count = len(self._tokens(opening.strip()))
            self._openings.setdefault(count, []).append(opening.strip())

    def lessons(self) -> Iterator[Lesson]:
        """Yields lessons without end; captions that would be cut are left out."""
        nothing = Lesson(self._filled([self._begin]), self._filled([self._begin]), _WHOLE)
        while True:
            scene = self._draw.randrange(len(self._token_ids))
            if self._draw.random() < _EMPTY:
                yield replace(nothing, scene=scene)
                continue
            caption = self._tokenizer.decode(self._token_ids[scene].tolist())
            lesson = self.lesson(self._phrases.rephrase(caption))
            if lesson is not None:
                yield replace(lesson, scene=scene)

    def lesson(self, pieces: Sequence[Piece]) -> Lesson | None:
        """A rephrasing as a lesson, or None if one of the two is too long."""
        said, meant, places = [self._begin], [self._begin], [0]
        for number, piece in enumerate(pieces):
            stands_for = piece.meant
            said_ids = self._piece(piece.said, len(said) == 1)
            if not stands_for and number == 0:
                stands_for = self._as_long_as(said_ids)
            meant_ids = self._piece(stands_for, len(meant) == 1)
            places += _places(len(said_ids), len(meant_ids), len(meant))
            said += said_ids
            meant += meant_ids
        if max(len(said), len(meant)) >= LENGTH:
            return None
        # The ends stand for the ends, from the first on; the last for all that are too many.
        ends = range(LENGTH - len(said))
        places += [min(len(meant) + number, LENGTH - 1) for number in ends]
        return Lesson(self._filled(said), self._filled(meant), places)

    def _as_long_as(self, ids: Sequence[int]) -> str:
        """A sentence of the corpus that has as many tokens, if there is one."""
        return self._draw.choice(self._openings.get(len(ids), [""]))

    def _piece(self, text: str, first: bool) -> list[int]:
        """Tokens of a piece, with a blank before it unless it is first or begins with a comma."""
        if not text:
            return []
        return self._tokens(text if first or text.startswith(",") else f" {text}")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _filled(self, ids: list[int]) -> list[int]:
        return ids + [self._end] * (LENGTH - len(ids))


def _id(tokenizer: Tokenizer, token: str) -> int:
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number


def _places(said: int, meant: int, start: int) -> list[int]:
    """Where each of `said` tokens finds its own among `meant` tokens from `start` on."""
    if not meant:
        return [0] * said
    places = [start + number * meant // said for number in range(said)]
    # The last token is what the piece comes to.
    return [*places[:-1], start + meant - 1]


class _Stream(IterableDataset[Lesson]):
    """Lessons of a seed, or in each of several processes those of another."""

    def __init__(self, tokenizer: Path, token_ids: Tensor, seed: int) -> None:
        self._given = (tokenizer, token_ids, seed)

    def __iter__(self) -> Iterator[Lesson]:
        tokenizer, token_ids, seed = self._given
        worker = get_worker_info()
        teacher = Teacher(load_tokenizer(tokenizer), token_ids, seed + (worker.id if worker else 0))
        return teacher.lessons()


def batches(
    tokenizer: Path, token_ids: Tensor, seed: int, size: int, workers: int
) -> Iterator[LessonBatch]:
    """Yields lessons without end.

    Args:
        tokenizer: folder of the corpus's.
        token_ids: (n, LENGTH), captions of its first n scenes, on the CPU.
        seed: of what is drawn.
        size: lessons a batch.
        workers: processes that make them; 0 for this one, which makes some 6,000 a second.
    """
    stream = _Stream(tokenizer, token_ids, seed)
    loader = DataLoader(
        stream,
        size,
        num_workers=workers,
        collate_fn=LessonBatch.of,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    return iter(loader)
