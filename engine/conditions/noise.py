"""Gaussian noise as a pure function of where it is used: seed, frame and step.

`conditioning.py` draws initial latents here, `batch.py` the noise of ancestral steps. The
bits are Philox 4x64 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
counter-based, so a frame's noise never depends on batch neighbours, order or worker.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_INITIAL: Final = 0
_STEP: Final = 1
_COHERENCE: Final = 2


def initial_noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draws the noise that a key frame starts from.

    Args:
        seed: the key frame's seed, 0 … 2^63 - 1.
        shape: shape of the latents, (4, h, w).

    Returns:
        Standard normal values, float32.
    """
    return _normal(seed, (_INITIAL, 0, 0), shape)


def step_noise(seed: int, frame: int, step: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draws the noise that an ancestral step adds to one frame.

    Args:
        seed: the job's seed, 0 … 2^63 - 1.
        frame: frame number.
        step: evaluation number within the frame, from 0.
        shape: shape of the latents, (4, h, w).

    Returns:
        Standard normal values, float32.
    """
    return _normal(seed, (_STEP, frame, step), shape)


def coherence_noise(seed: int, frame: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Draws the noise that a frame's coherence adds to what it starts from.

    Args:
        seed: the job's seed, 0 … 2^63 - 1.
        frame: frame number.
        shape: shape of the latents, (4, h, w).

    Returns:
        Standard normal values, float32.
    """
    return _normal(seed, (_COHERENCE, frame, 0), shape)


def _normal(seed: int, stream: tuple[int, int, int], shape: tuple[int, ...]) -> NDArray[np.float32]:
    kind, frame, step = stream
    # The lowest counter word counts the draws of one stream, the three others name it.
    bits = np.random.Philox(key=[seed, 0], counter=[0, step, frame, kind])
    raw = bits.random_raw(int(np.prod(shape)))
    return _normal_quantile(_uniform(raw)).astype(np.float32).reshape(shape)


def _uniform(raw: NDArray[np.uint64]) -> NDArray[np.float64]:
    # 52 bits at the middle of their interval: never 0 or 1, symmetric about 1/2. With 53 the sum
    # has no exact float, and the highest would round to 1.
    return ((raw >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


# Coefficients of PPND16, highest power first: M. J. Wichura, "Algorithm AS 241: The percentage
# points of the normal distribution", Applied Statistics 37 (1988), accurate to 1 part in 10^16.
_CENTRE = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
_TAIL = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
_FAR_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


def _normal_quantile(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of the standard normal distribution function, for arguments in (0, 1)."""
    centred = uniform - 0.5
    normal = np.empty_like(uniform)
    central = np.abs(centred) <= 0.425
    q = centred[central]
    normal[central] = q * _ratio(_CENTRE, 0.180625 - q * q)
    outer = ~central
    tail = np.where(centred[outer] < 0, uniform[outer], 1.0 - uniform[outer])
    r = np.sqrt(-np.log(tail))
    size = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
    normal[outer] = np.copysign(size, centred[outer])
    return normal


def _ratio(
    coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    numerator, denominator = (_polynomial(c, x) for c in coefficients)
    return numerator / denominator


def _polynomial(coefficients: tuple[float, ...], x: NDArray[np.float64]) -> NDArray[np.float64]:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
