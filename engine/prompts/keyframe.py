"""What key-frame text means: `KeyFrame` and its `Part`s, as plain values.

The parser makes them, `format.py` writes them, and the timeline reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_WEIGHT = 100.0
MIN_WEIGHT_SUM = 1e-6
MAX_PARTS = 1000
"""Parts of one key frame: each is a row of the batch, and no batch has room for more."""
MAX_TEXT_LENGTH = 10_000
"""Characters of one prompt: text encoders read some hundred, so more is a mistake."""


@dataclass(frozen=True, slots=True)
class Part:
    r"""One of the prompts that a key frame composes.

    Args:
        text: the prompt with the marks of `engine/conditions/emphasis.py`: not empty, at most
            `MAX_TEXT_LENGTH` characters, without line breaks and without white space at its ends.
            A `\` stands only in `\(`, `\)`, `\[`, `\]` and `\\`.
        weight: relative to the other parts, -`MAX_WEIGHT` … `MAX_WEIGHT`.
    """

    text: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class KeyFrame:
    """What is shown at one frame.

    Args:
        frame: number of the frame, 0 … `MAX_FRAMES` - 1.
        parts: 1 … `MAX_PARTS`; their weights do not sum to zero.
        negative: what to steer away from, or None for the job's own; in the form of `Part.text`.
        seed: seed of the noise, 0 … 2^63 - 1, or None for one derived from the job's.
        hold: share of the segment that starts here during which it stays, 0 … 1, or None for the
            job's own.
        ease: how the rest of that segment moves, one of `EASES`, or None for the job's own.
        is_cut: nothing leads here from the frames before, which hold the key frame before this one.
    """

    frame: int
    parts: tuple[Part, ...]
    negative: str | None = None
    seed: int | None = None
    hold: float | None = None
    ease: str | None = None
    is_cut: bool = False
