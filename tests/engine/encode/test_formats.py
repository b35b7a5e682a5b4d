"""The table of formats, and the delays of a GIF as exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.formats import FORMATS, output_format
from giffusion.engine.encode.limits import delay_cs
from giffusion.engine.errors import OutputError


@pytest.mark.parametrize("name", ["a.mp4", "a.MP4", "a.b.Gif"])
def test_the_extension_chooses_the_format_in_either_case(name: str) -> None:
    assert output_format(Path(name)).name == Path(name).suffix[1:].upper()


@pytest.mark.parametrize("name", ["", "mp4", ".mp4", "a.", "a.mkv", "a.mp4.txt"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(OutputError, match=r"known: \.avif, \.gif, \.mp4, \.png"):
        output_format(Path(name))


@pytest.mark.parametrize(
    ("fps", "delays"),
    [("20", [5, 5, 5, 5]), ("50", [2, 2, 2, 2]), ("24", [4, 4, 4, 5, 4, 4]), ("1/3", [300, 300])],
)
def test_delays_of_common_rates(fps: str, delays: list[int]) -> None:
    assert [delay_cs(index, Fraction(fps)) for index in range(len(delays))] == delays


@given(fps=st.fractions(Fraction(1, 600), 50, max_denominator=1001), num_frames=st.integers(1, 300))
def test_delays_never_drift_and_never_fall_under_the_browsers_limit(
    fps: Fraction, num_frames: int
) -> None:
    delays = [delay_cs(index, fps) for index in range(num_frames)]
    assert FORMATS[".gif"].problem(fps, None) is None
    assert sum(delays) == round(100 * num_frames / fps)
    assert min(delays) >= 2
    assert max(delays) <= 0xFFFF
