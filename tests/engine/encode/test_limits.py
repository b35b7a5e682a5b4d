"""What formats can express, and times that are rounded each for itself."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.encode.limits import delay_cs, duration_ms


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


@given(
    fps=st.fractions(Fraction(1, 1000), 90, max_denominator=1001),
    num_frames=st.integers(1, 300),
)
def test_durations_never_drift_and_never_fall_under_the_browsers_limit(
    fps: Fraction, num_frames: int
) -> None:
    durations = [duration_ms(index, fps) for index in range(num_frames)]
    assert FORMATS[".webp"].problem(fps, None) is None
    assert sum(durations) == round(1000 * num_frames / fps)
    assert min(durations) >= 11
    assert max(durations) < 2**24


@pytest.mark.parametrize(
    ("extension", "fps", "size", "message"),
    [
        (".webm", "1001", None, "fps 1001 is too fast for WebM: expected at most 1000"),
        (".webm", "24", (97, 64), "size 97x64 is odd: WebM expects even numbers, such as 98x64"),
        (".webm", "23.976023976", None, "too fine for WebM"),
        (".webp", "91", None, "fps 91 is too fast for WebP: expected at most 90, or write .mp4"),
        (".webp", "1/20000", None, "fps 1/20000 is too slow for WebP: expected at least 0.000060"),
        (".webp", "24", (16384, 8), "size 16384x8 is too large for WebP: expected sides to 16383"),
        (".avif", "91", None, "fps 91 is too fast for AVIF"),
        (".avif", "24", (2, 64), "size 2x64 is too small for AVIF: expected at least 4x4"),
        (".avif", "24", (64, 33), "size 64x33 is odd: AVIF expects even numbers, such as 64x34"),
        (".avif", "23.976023976", None, "too fine for AVIF"),
    ],
)
def test_what_cannot_be_expressed_is_said(
    extension: str, fps: str, size: tuple[int, int] | None, message: str
) -> None:
    problem = FORMATS[extension].problem(Fraction(fps), size)
    assert problem is not None
    assert message in problem


@pytest.mark.parametrize("fps", ["1/1000", "24", "1000"])
def test_a_sequence_has_any_rate_and_size(fps: str) -> None:
    assert FORMATS[".png"].problem(Fraction(fps), (1, 8191)) is None
