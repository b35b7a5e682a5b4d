"""What of a sound is listened to, as one frozen value with the defaults of every front end.

The CLI and the timeline make one; the analysis reads it. The invariant: a value that exists is
usable with any sound. Nothing here imports NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from fractions import Fraction

from giffusion.engine.errors import SettingsError
from giffusion.engine.media.parts import check_order
from giffusion.engine.values import MAX_SECONDS, in_range, one_of

COMPONENTS = ("both", "harmonic", "percussive")
REDUCTIONS = ("max", "mean", "median")
MAX_MARGIN = 100
MAX_HZ = 11025
"""Half of the rate that sound is analysed at: above it nothing is heard."""


@dataclass(frozen=True, slots=True)
class AudioOptions:
    """What of a sound decides the curve, the onsets and the beats.

    Args:
        component: `percussive` hears drums and plucks, `harmonic` what is held, `both` all of it.
        margin: how much a component has to exceed the other to be heard, 1 … 100; at 1 the two add
            up to the whole, above it what is neither belongs to none.
        reduction: of a frame's frequencies its loudness is the `max`, `mean` or `median`.
        band: (lowest, highest) frequency in Hz that is heard, or None for all.
        smooth: share of a steady motion that is mixed into the curve's, 0 … 1.
        start_s: where in the sound the first frame is, in seconds.
        end_s: where the sound ends, or None for its own end.

    Raises:
        SettingsError: a value is out of its range or a name is unknown.
    """

    component: str = "both"
    margin: float = 1.0
    reduction: str = "max"
    band: tuple[float, float] | None = None
    smooth: float = 0.0
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None

    def __post_init__(self) -> None:
        one_of("component", self.component, COMPONENTS)
        one_of("reduction", self.reduction, REDUCTIONS)
        in_range("margin", self.margin, 1, MAX_MARGIN)
        in_range("smooth", self.smooth, 0, 1)
        if self.band is not None:
            _check_band(*self.band)
        in_range("start", self.start_s, 0, MAX_SECONDS)
        if self.end_s is not None:
            in_range("end", self.end_s, 0, MAX_SECONDS)
            check_order("sound", self.start_s, self.end_s)

    @classmethod
    def default(cls, name: str) -> object:
        """Returns the default of one field, for front ends that show it."""
        return next(field.default for field in fields(cls) if field.name == name)


HEARD = AudioOptions()
"""What is heard where nothing is said."""


def _check_band(low: float, high: float) -> None:
    if not 0 <= low < high <= MAX_HZ:
        raise SettingsError(
            f"band {low:g}-{high:g} cannot be heard: expected LOW-HIGH in Hz, LOW below HIGH, from "
            f"0 to {MAX_HZ}"
        )
