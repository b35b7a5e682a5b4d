"""Schedules: what a curve is on each frame, and what is refused, with the examples of the docs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.schedules.curves import MAX_KEY, SERIES, Curve, parse_schedule
from giffusion.engine.schedules.limits import ANY_NUMBER, Limits, round_half_up
from tests.pages import page_texts, read_page

# The job that the page speaks of.
JOB = {"s": 7.0, "max_f": 120.0, "fps": 24.0}
NUM_FRAMES = 121
GUIDANCE = Limits(-1000, 1000)


def curve_of(text: str | float, limits: Limits = GUIDANCE) -> Curve:
    return parse_schedule(text, "guidance", limits, SERIES).bind(JOB)


def values_of(text: str | float, limits: Limits = GUIDANCE) -> list[float]:
    return list(map(curve_of(text, limits).at, range(NUM_FRAMES)))


def error_of(action: Callable[[], object]) -> str:
    with pytest.raises(SettingsError) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("block", page_texts("schedules.md", "schedule"))
def test_the_page_states_the_values(block: str) -> None:
    schedule, *points = re.split(r"\n(?=[0-9]+ → )", block)
    curve = curve_of(schedule)
    assert points
    for point in points:
        frame, value = point.split(" → ")
        assert round(curve.at(int(frame)), 4) == float(value)


@pytest.mark.parametrize("block", page_texts("schedules.md", "error"))
def test_the_page_states_the_errors(block: str) -> None:
    schedule, _, message = block.rpartition("\n")
    assert error_of(lambda: values_of(schedule)) == message


def test_the_page_states_how_steps_are_rounded() -> None:
    (text, steps, frame) = re.findall(
        r"`(0:[^`]*)` gives ([0-9]+) steps on frame ([0-9]+)", read_page("schedules.md")
    )[0]
    assert curve_of(text, Limits(1, 1000, whole=True)).at(int(frame)) == int(steps)


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        (5, 5.0),
        (5.5, 5.5),
        (-3, -3.0),
        ("2*3", 6.0),
        (" sin(pi/2) \n", 1.0),
        ("(4)", 4.0),
        ("0:(5)", None),
        ("max_f", None),
        ("t", None),
    ],
)
def test_a_constant_is_known_before_the_job_is(text: str | float, constant: float | None) -> None:
    schedule = parse_schedule(text, "guidance")
    assert schedule.constant == constant
    if constant is not None:
        curve = schedule.bind({})
        assert (curve.constant, curve.keys, curve.at(99)) == (constant, (0,), constant)


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("0:(5)", 5.0),
        ("30:(5)", 5.0),
        ("0:(5), 30:(10/2)", 5.0),
        ("max_f/2", 60.0),
        ("0:(5), 30:(5.5)", None),
        ("0:(5), 30:(t)", None),
    ],
)
def test_a_curve_knows_whether_it_is_flat(text: str, constant: float | None) -> None:
    assert curve_of(text).constant == constant
    if constant is not None:
        assert set(values_of(text)) == {constant}


_NUMBERS = st.floats(-1000, 1000)
_KEYS = st.dictionaries(st.integers(0, 200), _NUMBERS, min_size=1, max_size=8)


@given(_KEYS, st.randoms(use_true_random=False), st.sampled_from([", ", "\n", " ,\n", ",\r\n\n"]))
def test_between_keys_lies_the_straight_line(
    keys: dict[int, float], random: Random, separator: str
) -> None:
    """Against exact fractions; on the keys to the last bit, and never beyond the two ends."""
    frames = sorted(keys)
    entries = [f"{frame}:({value!r})" for frame, value in keys.items()]
    random.shuffle(entries)
    curve = curve_of(separator.join(entries))
    assert curve.keys == tuple(frames)
    assert [curve.at(frame) for frame in frames] == [keys[frame] for frame in frames]
    assert curve.at(0) == keys[frames[0]]
    assert curve.at(10**7) == keys[frames[-1]]
    for first, last in pairwise(frames):
        low, high = Fraction(keys[first]), Fraction(keys[last])
        for frame in range(first, last):
            exact = low + (high - low) * Fraction(frame - first, last - first)
            assert curve.at(frame) == pytest.approx(float(exact), rel=1e-12, abs=1e-12)
            assert min(low, high) <= curve.at(frame) <= max(low, high)


def test_a_value_that_moves_is_computed_until_the_next_key() -> None:
    expected = [
        *(math.sin(frame / 5) + 2 for frame in range(30)),
        *(9 + (frame - 30) / 20 * (50 * 2 - 9) for frame in range(30, 50)),
        *(frame * 2 for frame in range(50, NUM_FRAMES)),
    ]
    assert values_of("10: sin(t/5)+2, 30: 9, 50: t*2") == pytest.approx(expected, rel=1e-14)


def test_variables_are_the_jobs() -> None:
    assert set(values_of("s + 10*fps + max_f")) == {7 + 240 + 120}
    curve = parse_schedule("max_f/2: t+max_f, 0: 1", "guidance").bind({}, num_frames=11)
    assert curve.keys == (0, 5)
    assert curve.at(5) == 15
    given = parse_schedule("max_f", "guidance").bind({"max_f": 4.0}, num_frames=11)
    assert given.constant == 4


def test_times_are_rounded_like_fractions() -> None:
    text = "0:0, 0.7s:1, 1.001s:2"
    assert parse_schedule(text, "zoom").bind({"fps": 45.0}).keys == (0, 32, 45)
    assert parse_schedule(text, "zoom").bind({"fps": Fraction(30000, 1001)}).keys == (0, 21, 30)


@pytest.mark.parametrize(("key", "frame"), [("0.5", 1), ("1.49", 1), ("2.5", 3), ("5/2*3", 8)])
def test_keys_are_rounded_half_up(key: str, frame: int) -> None:
    assert curve_of(f"{key}: 1").keys == (frame,)


@given(st.integers(-(10**6), 10**6) | st.floats(-1e9, 1e9) | st.fractions())
@example(0.49999999999999994)
@example(-0.5)
def test_halves_go_up(value: float | Fraction) -> None:
    assert round_half_up(value) == math.floor(Fraction(value) + Fraction(1, 2))


def test_a_series_is_a_variable_that_moves() -> None:
    """Such as the energy of a sound: the value is computed on every frame, not between keys."""
    schedule = parse_schedule("0: 4+audio*fps, 20: 1", "guidance", series=["audio"])
    curve = schedule.bind({"fps": 24.0}, series={"audio": lambda frame: frame / 8})
    assert [curve.at(frame) for frame in (0, 8, 19, 20)] == [4, 28, 61, 1]
    assert "a key cannot depend on 'audio'" in error_of(
        lambda: parse_schedule("audio: 1", "guidance", series=["audio"])
    )
    assert "unknown name 'audio'" in error_of(lambda: parse_schedule("audio", "guidance"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: the text ends here: expected a number, or keys and values such as "),
        (" \n", "line 2, column 1: the text ends here: expected a number, or keys and values "),
        ("0:(1), 5", "character 9: the text ends here: expected an operator, or ':' and a value"),
        (
            "4,5",
            "character 2: unexpected ',': expected an operator, or ':' and a value after a key",
        ),
        ("4\n5", "line 2, column 1: unexpected '5': expected nothing after a value without a key"),
        ("0:1,,2:3", "character 5: unexpected ',': expected a number, a name or '('"),
        (",0:1", "character 1: unexpected ',': expected a number, a name or '('"),
        ("0:1:2", "character 4: unexpected ':': expected an operator, or ',' and the next key"),
        ("0:(1", "character 5: the text ends here: expected an operator or ')'"),
        ("0:(1)\n5:(a)", "line 2, column 4: unknown name 'a': known: "),
        ("0:1, 1e3s:2", "character 6: '1e3s' is not usable as a time: expected seconds such as "),
        ("1/0", "character 1: '1/0' has no value (division by zero): expected a finite number"),
        ("0:1, 9:1/0", "character 8, at frame 9: '1/0' has no value (division by zero)"),
        ("1/(max_f-120): 5", "character 1: '1/(max_f-120)' has no value (division by zero)"),
        ("0:1, -0.6:2", "character 6: a key at frame -1: expected one from 0 to 1000000000"),
        ("0:1, 1e300:2", "character 6: a key at frame 1e+300: expected one from 0 to 1000000000"),
        ("10:1, 9.5:2", "character 7: a second key at frame 10: remove one of the two"),
        ("0:1, 4:2, 0:1", "character 11: a second key at frame 0: remove one of the two"),
        ("t+5:(1)", "character 1: a key cannot depend on 't': expected one frame's number"),
    ],
)
def test_errors_say_where_and_what(text: str, message: str) -> None:
    error = error_of(lambda: values_of(text))
    assert error.startswith(f"guidance schedule, {message}")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "character"), [("max_f: 1", 1), ("0: 1, 5: max_f", 10), ("0: t*max_f", 4)]
)
def test_max_f_needs_the_number_of_frames(text: str, character: int) -> None:
    schedule = parse_schedule(text, "zoom")
    assert error_of(lambda: schedule.bind({})) == (
        f"zoom schedule, character {character}: 'max_f' is not known here: set the number of frames"
    )


def test_a_variable_that_the_job_lacks_is_named() -> None:
    assert error_of(lambda: parse_schedule("s", "seed").bind({})) == (
        "seed schedule, character 1: 's' is not known here: expected a schedule without it"
    )
    assert "'fps' is not known here" in error_of(lambda: parse_schedule("2s:1", "zoom").bind({}))


def test_values_keep_to_the_limits_on_every_frame() -> None:
    curve = curve_of("0:(900), 100:(1100)")
    assert curve.at(50) == 1000
    assert error_of(lambda: curve.at(51)) == (
        "guidance at frame 51 is 1002: expected -1000 to 1000; change the schedule"
    )
    # Where a value is out of limits beyond the last frame only, the job never meets it.
    assert max(values_of("0: 1, 1000: 8000")) < 1000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e9, "1000000000"),
        ("2e3", "2000"),
        (-1000.5, "-1000.5"),
        (math.inf, "inf"),
        ("9e307", "9e+307"),
    ],
)
def test_a_constant_out_of_limits_has_no_frame(value: str | float, shown: str) -> None:
    message = error_of(lambda: curve_of(value))
    assert message == f"guidance is {shown}: expected -1000 to 1000"


def test_a_value_just_out_of_limits_is_shown_in_full() -> None:
    unit = Limits(0, 1)
    assert error_of(lambda: unit.check(1.05 - 2e-16, "x")) == "x is 1.05: expected 0 to 1"
    assert "x is 1.0000000000000002: " in error_of(lambda: unit.check(1 + 2e-16, "x"))


def test_a_flat_curve_out_of_limits_is_refused_when_it_is_bound() -> None:
    schedule = parse_schedule("0:(5), max_f*9:(5)", "steps", Limits(6, 10))
    assert error_of(lambda: schedule.bind(JOB)) == "steps is 5: expected 6 to 10"


def test_numbers_that_are_none_are_refused() -> None:
    assert error_of(lambda: parse_schedule(math.nan, "zoom")) == (
        "zoom is nan: expected -1e+300 to 1e+300"
    )
    assert "zoom is too large" in error_of(lambda: parse_schedule(10**400, "zoom"))


def test_whole_values_are_rounded_before_they_are_compared() -> None:
    steps = Limits(1, 20, whole=True)
    values = values_of("0:(0.5), 40:(20.4)", steps)
    assert values == [math.floor(0.5 + frame * 19.9 / 40 + 0.5) for frame in range(41)] + [20] * 80
    assert parse_schedule("7.5", "steps", steps).constant == 8
    assert error_of(lambda: parse_schedule("0.4", "steps", steps)) == (
        "steps is 0.4: expected 1 to 20"
    )


def test_schedules_are_values() -> None:
    one, same = parse_schedule("0:(t)", "zoom"), parse_schedule("0:(t)", "zoom")
    assert one == same
    assert hash(one) == hash(same)
    assert one != parse_schedule("0:(t)", "angle")
    assert one != parse_schedule("0:(t)", "zoom", Limits(0, 1))


def test_long_schedules_are_read() -> None:
    """As tools that turn sound into key frames write them."""
    values = [index * 37 % 100 / 100 for index in range(5000)]
    text = ", ".join(f"{index * 2}: ({value})" for index, value in enumerate(values))
    curve = parse_schedule(text, "strength").bind({})
    assert [curve.at(index * 2) for index in range(5000)] == values
    assert "characters are too many" in error_of(lambda: parse_schedule("1" * 500_001, "strength"))


def outcome_of(text: str) -> list[float] | str:
    try:
        curve = parse_schedule(text, "guidance").bind(JOB)
        return [curve.at(frame) for frame in (0, 1, 60, 120)]
    except SettingsError as error:
        return str(error)


_PIECES = st.sampled_from(
    ["0:(1)", "30:(2)", "2.5s:", "max_f/2", "4+2*sin(t/5)", "min(", "**", "0.5", "1e308", "\r\n"]
) | st.sampled_from(":,()-/^; \nts9")


@given(st.text() | st.lists(_PIECES, max_size=12).map("".join))
@example("\ud800:\ud800")
@example("0:1e300,2:-1e300")
@example("0:1e308,2:-1e308")
@example("1e308s:1")
def test_any_text_is_a_schedule_or_an_error(text: str) -> None:
    outcome = outcome_of(text)
    if isinstance(outcome, str):
        assert len(outcome.splitlines()) == 1
        assert len(outcome) < 260
    else:
        assert all(ANY_NUMBER.low <= value <= ANY_NUMBER.high for value in outcome)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0" * 400_000 + "1" * 400, "is too large"),
        ("(" * 400_000, "is too deep"),
        ("max(1," * 80_000, "is too deep"),
        ("0:1," * 30_000, "a second key at frame 0"),
        ("+1" * 100_000, "characters are too many"),
        ("\n" * 400_000, "the text ends here"),
        ("0:1" * 100_000, "unexpected ':'"),
    ],
)
def test_long_texts_take_linear_time(text: str, words: str) -> None:
    # What takes quadratic time at this length runs into the suite's time limit.
    outcome = outcome_of(text)
    assert isinstance(outcome, str)
    assert words in outcome


def test_keys_have_a_largest() -> None:
    assert curve_of(f"{MAX_KEY}: 1").keys == (MAX_KEY,)
    assert f"expected one from 0 to {MAX_KEY}" in error_of(lambda: curve_of(f"{MAX_KEY + 1}: 1"))


def test_planning_needs_no_numpy() -> None:
    script = (
        "import sys; import giffusion.engine.schedules.curves; sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
