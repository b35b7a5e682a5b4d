"""One scale for all encoders: its ends, its middle, and that it never turns back."""

from __future__ import annotations

import pytest

from giffusion.engine.encode.encoders import ENCODERS
from giffusion.engine.encode.quality import USUAL, Scale, check_quality
from giffusion.engine.errors import SettingsError

WITH_QUALITY = sorted(name for name, info in ENCODERS.items() if info.quality)


def test_a_scale_goes_through_its_three_values() -> None:
    scale = Scale(42, 18, 4, digits=1)
    assert [scale.at(quality) for quality in (1, 38, 75, 76, 100)] == [
        "42",
        "30",
        "18",
        "17.4",
        "4",
    ]


@pytest.mark.parametrize("name", WITH_QUALITY)
def test_quality_never_turns_back_and_is_usual_at_its_place(name: str) -> None:
    info = ENCODERS[name]
    assert info.settings(USUAL) == info.settings() == dict(info.options)
    for option, scale in info.quality.items():
        assert option in info.options
        values = [float(scale.at(quality)) for quality in range(1, 101)]
        assert values in (sorted(values), sorted(values, reverse=True))
        assert len(set(values)) > 30


def test_other_options_are_left_alone() -> None:
    info = ENCODERS["h264_nvenc"]
    changed = {key for key, value in info.settings(10).items() if info.options[key] != value}
    assert changed == {"init_qpI", "init_qpP", "init_qpB"}


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (0, "quality 0 is out of range: expected at least 1"),
        (101, "quality 101 is out of range: expected at most 100"),
        (True, "quality True is not a whole number: expected an int"),
        (7.5, "quality 7.5 is not a whole number: expected an int"),
    ],
)
def test_what_is_no_quality_is_refused(quality: int, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_quality(quality, ENCODERS["libx264"].quality, "libx264")
    assert str(caught.value) == message


def test_an_encoder_without_one_takes_none() -> None:
    check_quality(None, {}, "gif")
    with pytest.raises(SettingsError, match="encoder gif has no quality to choose"):
        check_quality(75, {}, "gif")
