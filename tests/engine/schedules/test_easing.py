"""Weights between key frames: exact at the ends, within [0, 1], and the curves that they name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.schedules.easing import (
    EASES,
    INTERPOLATION_NAMES,
    MAX_FREQUENCIES,
    Weight,
    ease,
    hold,
    linear,
    parse_interpolation,
    segment_weight,
    sine,
)
from tests.pages import page_texts

GRID = [index / 1000 for index in range(1001)]
WEIGHTS = {
    "linear": linear,
    **{f"ease {kind}": ease(kind) for kind in EASES},
    "sine": sine(),
    **{f"sine {f}": sine((f,)) for f in (0.25, 0.75, 1.0, 2.0, 3.7, 1000.0)},
    "sine 0.5, 2": sine((0.5, 2.0)),
    "sine of sixteen": sine(tuple(1.5 * i for i in range(1, 17))),
    **{f"hold {share}": hold(ease("in-out"), share) for share in (0.0, 0.3, 0.999, 1.0)},
}
each_weight = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        action()
    return str(caught.value)


def apply_all(line: str) -> None:
    """Reads an interpolation and asks it for all that it may refuse."""
    name, _, arguments = line.partition(" ")
    schedule = parse_interpolation(name, arguments).schedule
    if schedule is not None:
        curve = schedule.bind({})
        list(map(curve.at, range(100)))


@pytest.mark.parametrize("block", page_texts("schedules.md", "weights"))
def test_the_page_states_the_weights(block: str) -> None:
    line, *points = block.splitlines()
    name, _, arguments = line.partition(" ")
    weight = segment_weight(name, arguments)
    assert points
    for point in points:
        x, expected = map(float, point.split(" → "))
        assert round(weight(x), 4) == expected


@pytest.mark.parametrize("block", page_texts("schedules.md", "wrong"))
def test_the_page_states_the_errors(block: str) -> None:
    line, message = block.splitlines()
    assert error_of(lambda: apply_all(line)) == message


@each_weight
def test_ends_are_exact(weight: Weight) -> None:
    assert (weight(0.0), weight(1.0)) == (0.0, 1.0)


@each_weight
def test_weights_stay_between_the_ends(weight: Weight) -> None:
    assert all(0 <= weight(x) <= 1 for x in GRID)


_FREQUENCIES = st.lists(st.floats(1e-3, 1000), min_size=1, max_size=MAX_FREQUENCIES)


@given(_FREQUENCIES.map(tuple), st.lists(st.floats(0, 1), min_size=1))
@settings(max_examples=20)
def test_every_sine_hits_both_key_frames(frequencies: tuple[float, ...], xs: list[float]) -> None:
    weight = sine(frequencies)
    assert (weight(0.0), weight(1.0)) == (0.0, 1.0)
    assert all(0 <= weight(x) <= 1 for x in xs)


def test_eases_are_penners_quadratics() -> None:
    assert [ease("in")(x) for x in GRID] == pytest.approx([x**2 for x in GRID])
    assert [ease("out")(x) for x in GRID] == pytest.approx([-x * (x - 2) for x in GRID])
    # As he writes it, for a duration of 2.
    doubled = [2 * x for x in GRID]
    penner = [d * d / 2 if d < 1 else -((d - 1) * (d - 3) - 1) / 2 for d in doubled]
    assert [ease("in-out")(x) for x in GRID] == pytest.approx(penner)


def test_the_default_sine_is_one_slow_swing() -> None:
    expected = [math.sin(math.pi * x / 2) ** 2 for x in GRID]
    assert [sine()(x) for x in GRID] == pytest.approx(expected, abs=1e-15)
    assert [sine((0.5, 0.5))(x) for x in GRID] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("frequencies", [(1.0,), (2.0,), (0.5, 2.0), (0.3, 4.1)])
def test_a_sine_swings_as_far_as_there_is_room(frequencies: tuple[float, ...]) -> None:
    """Off the line it is the mean of sin² with its own end taken off, times one number."""
    weight = sine(frequencies)

    def mean(x: float) -> float:
        waves = [(1 - math.cos(2 * math.pi * f * x)) / 2 for f in frequencies]
        return sum(waves) / len(waves)

    swings = {x: mean(x) - mean(1.0) * x for x in GRID if 0.01 < x < 0.99}
    shares = [(weight(x) - x) / swing for x, swing in swings.items() if abs(swing) > 0.01]
    assert min(shares) == pytest.approx(max(shares), abs=1e-4)
    assert 0 < shares[0] <= 1
    # A larger share would leave [0, 1], unless it is whole already.
    fits = [x + shares[0] * 1.01 * swing for x, swing in swings.items()]
    assert shares[0] == 1 or max(fits) > 1 or min(fits) < 0


def test_a_segment_does_not_end_where_it_began() -> None:
    """The fault of a plain sum of sin²: frequency 1 is 0 at both ends."""
    assert sine((1.0,))(0.999) > 0.99


@pytest.mark.parametrize("name", ["linear", "ease in", "ease out", "ease in-out", "sine"])
def test_simple_weights_rise_without_jumps(name: str) -> None:
    steps = [after - before for before, after in pairwise(map(WEIGHTS[name], GRID))]
    assert min(steps) > 0
    assert max(steps) <= 2.001 / 1000


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
@pytest.mark.parametrize("inner", [linear, ease("in-out"), sine((2.0,))])
def test_hold_waits_and_then_goes_the_whole_way(inner: Weight, share: float) -> None:
    weight = hold(inner, share)
    assert {weight(x) for x in GRID if x <= share} == {0.0}
    for x in GRID:
        if x > share:
            assert weight(x) == pytest.approx(inner((x - share) / (1 - share)))


def test_the_ends_of_hold() -> None:
    assert [hold(ease("in"), 0)(x) for x in GRID] == [ease("in")(x) for x in GRID]
    assert [hold(linear, 1)(x) for x in (0.0, 0.5, 0.9999, 1.0)] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("name", "arguments", "same"),
    [
        ("linear", "", linear),
        ("linear", "  ", linear),
        ("ease", "", ease("in-out")),
        ("ease", " out ", ease("out")),
        ("sine", "", sine((0.5,))),
        ("sine", "0.5, 2", sine((0.5, 2.0))),
        ("sine", " .5 2. ", sine((0.5, 2.0))),
        ("sine", "5e-1,2,", sine((0.5, 2.0))),
    ],
)
def test_arguments(name: str, arguments: str, same: Weight) -> None:
    interpolation = parse_interpolation(name, arguments)
    assert interpolation.weight is not None
    assert interpolation.schedule is None
    assert [interpolation.weight(x) for x in GRID] == [same(x) for x in GRID]


def test_a_curve_is_a_schedule_over_the_frames() -> None:
    interpolation = parse_interpolation("curve", "0:(0), max_f/2:(1), max_f:(0)")
    assert interpolation.weight is None
    assert interpolation.schedule is not None
    curve = interpolation.schedule.bind({"max_f": 20.0})
    assert [curve.at(frame) for frame in (0, 5, 10, 15, 20)] == [0, 0.5, 1, 0.5, 0]


def test_interpolations_are_values() -> None:
    assert parse_interpolation("sine", "2") == parse_interpolation("sine", "2")
    assert hash(parse_interpolation("curve", "t/9")) == hash(parse_interpolation("curve", "t/9"))
    assert parse_interpolation("sine", "2") != parse_interpolation("sine", "3")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("", "", "unknown interpolation '': known: audio, curve, ease, linear, sine"),
        ("Linear", "", "unknown interpolation 'Linear': did you mean 'linear'? known: "),
        ("slerp", "", "unknown interpolation 'slerp': "),
        ("linear", "2", "interpolation linear takes no arguments, not '2': remove them"),
        ("ease", "inout", "unknown ease 'inout': did you mean 'in-out'? known: in, in-out, out"),
        ("sine", "0", "interpolation sine has no frequency '0': expected numbers above 0"),
        ("sine", "-1", "interpolation sine has no frequency '-1': "),
        ("sine", "1000.5", "interpolation sine has no frequency '1000.5': expected numbers above"),
        ("sine", "1,,2", "interpolation sine has no frequency '': "),
        ("sine", ",", "interpolation sine has no frequency '': "),
        ("sine", "nan", "interpolation sine has no frequency 'nan': "),
        ("sine", "1e999", "interpolation sine has no frequency '1e999': "),
        ("sine", "2Hz", "interpolation sine has no frequency '2Hz': "),
        ("sine", "\u0663", "interpolation sine has no frequency '\u0663': "),
        ("sine", "1 " * 17, "interpolation sine has more than 16 frequencies: remove some"),
        ("curve", " ", "interpolation curve has no arguments: expected a schedule such as"),
        ("curve", "0:(", "interpolation curve schedule, character 4: the text ends here"),
        ("curve", "2", "interpolation curve is 2: expected 0 to 1"),
        ("curve", "t/50", "interpolation curve at frame 51 is 1.02: expected 0 to 1; change"),
    ],
)
def test_errors_say_where_and_what(name: str, arguments: str, message: str) -> None:
    error = error_of(lambda: apply_all(f"{name} {arguments}"))
    assert error.startswith(message)
    assert len(error.splitlines()) == 1


def test_a_curve_is_no_weight_of_its_own() -> None:
    for name in ("curve", "audio"):
        error = error_of(partial(segment_weight, name, "t"))
        assert f"interpolation {name} has no weight of its own" in error


def outcome_of(name: str, arguments: str) -> bool | str:
    try:
        interpolation = parse_interpolation(name, arguments)
    except SettingsError as error:
        return str(error)
    return (interpolation.weight is None) == (name in ("curve", "audio"))


_ARGUMENTS = st.text() | st.lists(st.sampled_from([*"0.5,e- \n:()t", *EASES])).map("".join)


@given(st.sampled_from(INTERPOLATION_NAMES) | st.text(), _ARGUMENTS)
def test_any_text_is_an_interpolation_or_an_error(name: str, arguments: str) -> None:
    outcome = outcome_of(name, arguments)
    assert outcome is True or (isinstance(outcome, str) and len(outcome.splitlines()) == 1)
