"""A picture's colours brought back to those of a reference, so that a chain of frames keeps them.

The chain of frames calls it on what was warped, with the chain's first picture as the
reference. The invariants: a
picture with the reference's colours stays as it is, and colours that differ little still do, so
that no bands appear and nothing flickers. A match of histograms, as others do it, keeps neither.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from giffusion.engine.motion.lab import Planes, from_lab, to_lab

_MAX_GAIN: Final = 2.0
"""How much a picture's contrast may change at once.

A flat picture has none to restore, only its noise; a flat reference would take it all for ever.
"""


class ColorMatch:
    """Matches mean and deviation of L*, a* and b* to those of a reference.

    E. Reinhard, M. Ashikhmin, B. Gooch, P. Shirley, "Color transfer between images", IEEE Computer
    Graphics and Applications 21 (2001), in CIE L*a*b*.

    Args:
        reference: (H, W, 3) sRGB, of any size.
    """

    __slots__ = ("_deviation", "_mean")

    def __init__(self, reference: NDArray[np.uint8]) -> None:
        self._mean, self._deviation = _statistics(to_lab(reference))

    def match(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns a picture (H, W, 3) with the reference's colours, of the same shape.

        Contrast of a channel is at most doubled or halved.
        """
        lab = to_lab(picture)
        mean, deviation = _statistics(lab)
        for plane, m, s, mean_wanted, wanted in zip(
            lab, mean, deviation, self._mean, self._deviation, strict=True
        ):
            gain = np.clip(wanted / s, 1 / _MAX_GAIN, _MAX_GAIN) if s > 0 else 1.0
            plane *= np.float32(gain)
            plane += np.float32(mean_wanted - gain * m)
        return from_lab(lab, picture.shape)


def _statistics(lab: Planes) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean = lab.mean(1, np.float64)
    return mean, np.sqrt(np.square(lab - mean[:, None]).mean(1))
