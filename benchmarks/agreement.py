"""Whether contestants make the same pictures: compared with one reference before any timing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_MEAN_LEVELS = 1.0
"""Mean difference, in steps of 8-bit colour, above which pictures in fp32 are not the same."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far pictures are from the reference's.

    Args:
        mean_levels: mean absolute difference, in steps of 8-bit colour.
        max_levels: the largest.
        psnr_db: peak signal-to-noise ratio over all frames, None where they are equal.
    """

    mean_levels: float
    max_levels: int
    psnr_db: float | None


def compare(
    frames: Sequence[NDArray[np.uint8]], reference: Sequence[NDArray[np.uint8]]
) -> Agreement:
    """Compares frames with the reference's, one by one.

    Raises:
        ValueError: their numbers differ.
    """
    errors = [np.abs(a.astype(np.int16) - b) for a, b in zip(frames, reference, strict=True)]
    mse = float(np.mean([np.square(error, dtype=np.float64).mean() for error in errors]))
    return Agreement(
        mean_levels=float(np.mean([error.mean() for error in errors])),
        max_levels=max(int(error.max()) for error in errors),
        psnr_db=10 * math.log10(255**2 / mse) if mse else None,
    )


def check(agreements: Mapping[str, Agreement]) -> None:
    """Refuses to go on to timing where pictures in fp32 differ.

    Raises:
        RuntimeError: some do.
    """
    for name, agreement in agreements.items():
        if agreement.mean_levels > MAX_MEAN_LEVELS:
            raise RuntimeError(
                f"{name} differs from the reference by {agreement.mean_levels:.2f} levels on "
                f"average: expected at most {MAX_MEAN_LEVELS}; there is nothing to time"
            )
