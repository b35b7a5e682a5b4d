"""Choices that hang on a seed and on what is chosen, and on nothing else.

`walk.py` makes every choice here, and `giffusion.export.text_generation` draws its numbers. The
invariant: a choice does not depend on those made before it, nor on the machine or the Python.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Chooser:
    """Draws numbers from SHA-256 of a seed and a key (FIPS 180-4).

    Args:
        seed: of all its choices.
    """

    seed: int

    def number(self, *key: str | int) -> int:
        """Returns a number of 256 bits that belongs to a key."""
        text = "\0".join(map(str, (self.seed, *key)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

    def share(self, *key: str | int) -> float:
        """Returns a number from 0 to below 1 that belongs to a key."""
        return (self.number(*key) >> (256 - 53)) / 2**53

    def pick(self, options: Sequence[_Value], *key: str | int) -> _Value:
        """Chooses one of some options, each as likely as the others."""
        return self.weighted([(option, 1) for option in options], *key)

    def weighted(self, options: Sequence[tuple[_Value, int]], *key: str | int) -> _Value:
        """Chooses one of some options, which are as likely as their weights say.

        Args:
            options: one or more, with weights of at least 1.
            key: what is chosen.
        """
        sums = list(accumulate(weight for _, weight in options))
        return options[bisect_right(sums, self.number(*key) % sums[-1])][0]
