"""Instants lie where frames are, exactly, and windows are centred on them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.audio.spectra import RATE
from giffusion.engine.audio.windows import LARGEST_STEP, Instants, Windows

RATES = st.one_of(
    st.fractions(Fraction(1, 1000), 1000, max_denominator=1001),
    st.sampled_from([Fraction(24000, 1001), Fraction(24), Fraction(1, 1000), Fraction(1000)]),
)


@given(RATES, st.integers(0, 10**9))
def test_no_instant_drifts(fps: Fraction, first: int) -> None:
    instants = Instants.of(fps)
    for offset, centre in enumerate(instants.centres(first, first + 5).tolist()):
        exact = Fraction(first + offset) / (fps * instants.per_frame) * RATE
        assert abs(centre - exact) <= Fraction(1, 2)


@given(RATES)
def test_instants_leave_no_gap(fps: Fraction) -> None:
    instants = Instants.of(fps)
    assert instants.per_frame % 2 == 1
    assert RATE / (fps * instants.per_frame) <= LARGEST_STEP
    if fps >= 22:
        assert instants.per_frame == 1


@given(RATES, st.integers(0, 10**7))
def test_instants_are_counted_by_their_samples(fps: Fraction, num_samples: int) -> None:
    instants = Instants.of(fps)
    count = instants.num_before(num_samples)
    assert count == 0 or instants.centres(count - 1, count)[0] < num_samples
    assert instants.centres(count, count + 1)[0] >= num_samples


def test_a_frame_has_the_instants_around_its_time() -> None:
    instants = Instants(Fraction(10), 3)
    assert instants.frames(0, 8).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    assert instants.centres(3, 4)[0] == RATE // 10


@pytest.mark.parametrize("size", [1, 7, 100])
def test_windows_are_those_of_the_whole_sound(size: int) -> None:
    sound = np.arange(1, 101, dtype=np.float32)
    padded = np.pad(sound, 8)
    windows = Windows(16)
    given, next_centre = [], 0
    for begin in range(0, 100, size):
        windows.write(sound[begin : begin + size])
        last = windows.num_ready
        if last > next_centre:
            given.append(windows.centred(np.arange(next_centre, last)))
            next_centre = last
    windows.end()
    given.append(windows.centred(np.arange(next_centre, windows.num_ready)))
    assert windows.num_samples == 100
    expected = np.lib.stride_tricks.sliding_window_view(padded, 16)
    np.testing.assert_array_equal(np.concatenate(given), expected)
