"""The curve: its weights between key frames, whatever was heard."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.audio.curve import SILENT, EnergyCurve

VALUES = st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, SILENT])), max_size=40)


@given(VALUES, st.floats(0, 1), st.integers(0, 50), st.integers(1, 50))
def test_weights_rise_from_0_to_1(
    values: list[float], smooth: float, start: int, length: int
) -> None:
    curve = EnergyCurve(tuple(values), smooth)
    end = start + length
    weights = [curve.weight(frame, start, end) for frame in range(start, end + 1)]
    assert (weights[0], weights[-1]) == (0, 1)
    assert all(a <= b for a, b in pairwise(weights))


def test_weights_are_shares_of_the_energy() -> None:
    curve = EnergyCurve((1.0, 0.5, 0.25, 0.25, 1.0))
    assert [curve.weight(frame, 0, 4) for frame in range(5)] == [0, 0.25, 0.375, 0.5, 1]


def test_a_hit_on_a_key_frame_is_the_step_that_arrives_there() -> None:
    curve = EnergyCurve((0.0, 0.0, 0.0, 1.0, 0.0, 0.0))
    assert [curve.weight(frame, 0, 3) for frame in range(4)] == [0, 0, 0, 1]
    # What began on frame 3 does not move what comes after it: silent, so it moves steadily.
    assert [curve.weight(frame, 3, 5) for frame in (3, 4, 5)] == [0, 0.5, 1]


def test_smooth_mixes_with_a_steady_motion() -> None:
    rough = EnergyCurve((0.0, 1.0, 0.0, 0.0, 0.0))
    smooth = EnergyCurve(rough.values, smooth=0.25)
    steady = EnergyCurve(rough.values, smooth=1)
    assert rough.weight(1, 0, 4) == 1
    assert smooth.weight(1, 0, 4) == 0.75 * 1 + 0.25 * 0.25
    assert steady.weight(1, 0, 4) == 0.25


def test_nothing_is_heard_beyond_the_ends() -> None:
    curve = EnergyCurve((0.5, 1.0))
    assert [curve.at(frame) for frame in (-1, 0, 1, 2, 10**9)] == [0, 0.5, 1, 0, 0]
    assert curve.weight(15, 10, 20) == 0.5  # a segment behind the end is silent
    assert curve.weight(5, 0, 10) == 1  # and here all has been heard after frame 1


def test_what_is_90_db_down_moves_nothing() -> None:
    curve = EnergyCurve((1.0, 0.0, SILENT / 2, 0.0))
    assert curve.weight(2, 1, 3) == 0.5


def test_curves_are_values() -> None:
    assert EnergyCurve((0.0, 1.0)) == EnergyCurve((0.0, 1.0))
    assert EnergyCurve((0.0, 1.0)) != EnergyCurve((0.0, 1.0), smooth=0.5)
    with pytest.raises(AttributeError):
        EnergyCurve(()).values = (1.0,)  # type: ignore[misc]


def test_the_timeline_can_use_it_without_numpy() -> None:
    code = (
        "import sys; import giffusion.engine.audio.curve, giffusion.engine.audio.options; "
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"
