"""Teaches a trained text encoder to hear through phrasings that its corpus has none of.

The U-Net learned what the encoder says of some dozens of sentences; a word it never saw, such as
`imagine`, sends it astray. Here the encoder learns, by itself and in minutes, to say of a
rephrasing what it said of the caption, token by token; the U-Net stays as it is. `train.py` runs it
after the diffusion. The invariant: the U-Net, and what is wanted of the encoder, stay as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from giffusion.models.training import captions as english
from giffusion.models.training.descent import descend
from giffusion.models.training.machine import Machine
from giffusion.models.training.phrases import Piece, Rephraser
from giffusion.models.training.prepared import Prepared
from giffusion.models.training.schedule import Budget, StepOptions
from giffusion.models.training.tokens import BEGIN, END, LENGTH, load_tokenizer


@dataclass(frozen=True, slots=True)
class ListeningOptions(StepOptions):
    """How the text encoder is taught; a batch is of rephrasings.

    Attributes:
        seed: of the rephrasings.
    """

    batch: int = 256
    rate: float = 5e-4
    warmup: int = 100
    matrix_rate: float = 2.0
    weight_decay: float = 0.01
    seed: int = 20_261_126


@dataclass(frozen=True, slots=True)
class Lesson:
    """A rephrasing and what it means, as token ids.

    Attributes:
        said: LENGTH ids.
        meant: LENGTH ids.
        stands_for: for each token that is said, the place of that which it stands for; a word that
            means nothing stands for the beginning.
    """

    said: list[int]
    meant: list[int]
    stands_for: list[int]


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

    @classmethod
    def of(cls, prepared: Prepared, options: ListeningOptions) -> Teacher:
        """Makes lessons of a prepared corpus."""
        return cls(load_tokenizer(prepared.tokenizer), prepared.token_ids, options.seed)

    def lessons(self) -> Iterator[Lesson]:
        """Yields lessons without end; captions that would be cut are left out."""
        while True:
            row = self._token_ids[self._draw.randrange(len(self._token_ids))]
            caption = self._tokenizer.decode(row.tolist())
            lesson = self.lesson(self._phrases.rephrase(caption))
            if lesson is not None:
                yield lesson

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


def teach(
    encoder: nn.Module,
    teacher: Teacher,
    machine: Machine,
    budget: Budget,
    options: ListeningOptions,
) -> None:
    """Trains a text encoder in place.

    Args:
        encoder: a trained `CLIPTextModel` on the machine's device.
        teacher: what of.
        machine: where.
        budget: how long.
        options: how.
    """
    known = deepcopy(encoder).eval()
    optimizer = machine.optimizer(encoder, options)
    lessons = teacher.lessons()

    def new_loss() -> Tensor:
        batch = [next(lessons) for _ in range(options.batch)]
        said, meant, places = (
            torch.tensor(rows, device=machine.device)
            for rows in (
                [one.said for one in batch],
                [one.meant for one in batch],
                [one.stands_for for one in batch],
            )
        )
        return hearing_loss(encoder, known, said, meant, places, machine)

    descend("listening", encoder, optimizer, new_loss, machine, budget, options)


def hearing_loss(
    encoder: nn.Module,
    known: nn.Module,
    said: Tensor,
    meant: Tensor,
    places: Tensor,
    machine: Machine,
) -> Tensor:
    """Mean square of what an encoder says of a rephrasing less what another says of its meaning.

    Args:
        encoder: is trained.
        known: is not.
        said: (b, LENGTH) token ids.
        meant: (b, LENGTH).
        places: (b, LENGTH), what each token that is said stands for.
        machine: where it runs.
    """
    with machine.autocast():
        with torch.no_grad():
            states = known(meant).last_hidden_state.float()
        heard = encoder(said).last_hidden_state.float()
    wanted = states.gather(1, places[..., None].expand_as(states))
    return F.mse_loss(heard, wanted)
