"""Blends of two arrays along a segment between key frames.

`conditioning.py` blends initial noise and prompt embeddings with these. Both ends are exact: at
weight 0 or 1 the end itself is returned, so a key frame rendered alone gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Blend = Callable[[NDArray[np.float32], NDArray[np.float32], float], NDArray[np.float32]]
PARALLEL = 0.9995
"""Cosine above which slerp becomes lerp, where sin θ loses its digits."""


def lerp(
    start: NDArray[np.float32], end: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Returns `(1 - weight) · start + weight · end`; shapes equal, weight in [0, 1]."""
    exact = _end(start, end, weight)
    if exact is not None:
        return exact
    return (start * (1 - weight) + end * weight).astype(np.float32)


def slerp(
    start: NDArray[np.float32], end: NDArray[np.float32], weight: float
) -> NDArray[np.float32]:
    """Returns the point at `weight` of the great arc from `start` to `end`, as flat vectors.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985. Unlike lerp it keeps
    the norm of Gaussian noise. Nearly parallel or zero vectors are blended by lerp.

    Args:
        start: any shape, float32.
        end: the same shape.
        weight: 0 … 1.
    """
    exact = _end(start, end, weight)
    if exact is not None:
        return exact
    a, b = start.astype(np.float64).ravel(), end.astype(np.float64).ravel()
    # Pairwise sums, not BLAS: the same bits for any number of threads.
    norms = float(np.sqrt((a * a).sum() * (b * b).sum()))
    cosine = float((a * b).sum()) / norms if norms > 0 else 1.0
    if abs(cosine) > PARALLEL:
        return lerp(start, end, weight)
    angle = np.arccos(cosine)
    blend = (np.sin((1 - weight) * angle) * a + np.sin(weight * angle) * b) / np.sin(angle)
    blended: NDArray[np.float32] = blend.astype(np.float32).reshape(start.shape)
    return blended


def _end(
    start: NDArray[np.float32], end: NDArray[np.float32], weight: float
) -> NDArray[np.float32] | None:
    if weight == 0 or start is end:
        return start
    return end if weight == 1 else None


BLENDS: dict[str, Blend] = {"slerp": slerp, "lerp": lerp}
