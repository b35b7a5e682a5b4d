"""What of a sound may be listened to, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest

from giffusion.engine.audio.options import MAX_HZ, AudioOptions
from giffusion.engine.errors import SettingsError


def test_the_defaults_hear_everything() -> None:
    options = AudioOptions()
    assert options.component == "both"
    assert (options.start_s, options.end_s, options.band) == (Fraction(0), None, None)
    assert AudioOptions.default("reduction") == "max"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"component": "percusive"}, "did you mean 'percussive'?"),
        ({"reduction": "average"}, "known: max, mean, median"),
        ({"margin": 0.5}, "margin 0.5 is out of range"),
        ({"margin": math.nan}, "margin nan is out of range"),
        ({"margin": math.inf}, "margin inf is out of range"),
        ({"smooth": 1.5}, "smooth 1.5 is out of range"),
        ({"band": (200.0, 100.0)}, "band 200-100 cannot be heard"),
        ({"band": (0.0, MAX_HZ + 1.0)}, "from 0 to 11025"),
        ({"band": (0.0, math.nan)}, "band 0-nan cannot be heard"),
        ({"start_s": Fraction(-1)}, "start -1 is out of range"),
        ({"end_s": Fraction(10**7)}, "end 10000000 is out of range"),
        ({"start_s": Fraction(5), "end_s": Fraction(5)}, "expected the end above the start"),
    ],
)
def test_what_cannot_be_heard_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        AudioOptions(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
