"""Expressions: what they are worth, where they are wrong, and that no text does anything else."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from giffusion.engine.schedules.expressions import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_EXPRESSION_LENGTH,
    ExpressionError,
    ExpressionReader,
    parse_expression,
)

VARIABLES = ("t", "s", "max_f", "fps")
VALUES = {"t": 12.0, "s": 7.0, "max_f": 120.0, "fps": 24.0}


def value_of(text: str) -> float:
    return parse_expression(text, VARIABLES).evaluate(VALUES)


def outcome_of(text: str) -> float | ExpressionError:
    try:
        return value_of(text)
    except ExpressionError as error:
        return error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        (" 1. ", 1),
        (".5", 0.5),
        ("1.5e2", 150),
        ("2E-1", 0.2),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("10-4-3", 3),
        ("24/4/2", 3),
        ("2-3+4", 3),
        ("7%4*2", 6),
        ("-7%4", 1),
        ("2**3**2", 512),
        ("-2**2", -4),
        ("2**-1", 0.5),
        ("(-2)**3", -8),
        ("--3", 3),
        ("+-+3", -3),
        ("2*-3", -6),
        ("4+2*sin(t/5)", 4 + 2 * math.sin(12 / 5)),
        ("cos(t)", math.cos(12)),
        # Text substitution would take these for a `t` and a `s` with something around it.
        ("tan(t)", math.tan(12)),
        ("sqrt(s)", math.sqrt(7)),
        ("exp(1)*log(t)", math.e * math.log(12)),
        ("abs(-t)", 12),
        ("floor(-2.5)+ceil(2.5)", 0),
        ("min(t, s, 9)", 7),
        ("max(t, s)", 12),
        ("min(3)", 3),
        ("max(2*3, min(t, 5) + 1)", 6),
        ("max_f/2 - fps*2", 12),
        ("2*pi", math.tau),
        ("(1 +\n 2)\n", 3),
        ("\n max(1,\n\n2)", 2),
        ("1 + 2 + t + 4 - 5", 14),
        ("1 - 2 - t", -13),
        ("t - 1 - 2", 9),
        ("t - t - 1 + s * 2 % 3", 1),
    ],
)
def test_values(text: str, expected: float) -> None:
    value = value_of(text)
    assert type(value) is float
    assert value == pytest.approx(expected, rel=1e-14)


_ATOMS = st.floats(0, 1e6).map(repr) | st.sampled_from(VARIABLES)
_FORMULAS = st.recursive(
    _ATOMS,
    lambda inner: (
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/%"), inner)
        | st.builds("({})".format, inner)
        | st.builds("-{}".format, inner)
        | st.builds("{}({})".format, st.sampled_from(["sin", "abs", "floor", "sqrt"]), inner)
        | st.builds("max({}, {})".format, inner, inner)
    ),
    max_leaves=12,
)
_PYTHON = {"__builtins__": {}, **FUNCTIONS, **VALUES}


@given(_FORMULAS)
def test_values_are_those_of_the_same_formula_in_python(text: str) -> None:
    try:
        expected = eval(text, _PYTHON)
    except (ArithmeticError, ValueError):
        expected = math.nan
    expression = parse_expression(text, VARIABLES)
    if math.isfinite(expected):
        assert expression.evaluate(VALUES) == expected
    else:
        with pytest.raises(ExpressionError, match="has no value"):
            expression.evaluate(VALUES)


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("", 0, "the text ends here: expected a number, a name or '('"),
        ("1 +", 3, "the text ends here: expected a number, a name or '('"),
        ("1 +\n2", 3, "the line ends here: expected a number, a name or '('"),
        ("(1", 2, "the text ends here: expected an operator or ')'"),
        ("1)", 1, "unexpected ')': expected an operator such as + or *"),
        ("2t", 1, "unexpected 't': expected an operator such as + or *"),
        ("1\n2", 2, "unexpected '2': expected an operator such as + or *"),
        ("1.2.3", 3, "unexpected '.3': expected an operator such as + or *"),
        ("4 & 1", 2, "unexpected '&': expected an operator such as + or *"),
        ("2^3", 1, "'^' is no operator: write '**' for the power"),
        ("(2^3)", 2, "'^' is no operator: write '**' for the power"),
        ("t.real", 1, "unexpected '.': expected an operator such as + or *"),
        ("sin t", 4, "unexpected 't': expected '(' after 'sin'"),
        ("sin()", 4, "unexpected ')': expected a number, a name or '('"),
        ("2 + sin(1, 2)", 4, "'sin' takes one value, not 2: remove the others"),
        ("(1, 2, 3)", 0, "a bracket takes one value, not 3: remove the others"),
        ("1e999", 0, "'1e999' is too large: expected a number below 1.8e308"),
        ("\u0663", 0, "unexpected '\u0663': expected a number, a name or '('"),
        ("\x00", 0, "unexpected '\\x00': expected a number, a name or '('"),
    ],
)
def test_errors_say_where_and_what(text: str, offset: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text, VARIABLES)
    assert (str(caught.value), caught.value.offset) == (message, offset)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("maxf", "did you mean 'max_f'? known: "),
        ("Sin", "did you mean 'sin'? known: "),
        ("T", "did you mean 't'? known: "),
        # `exp`, `pi` and `abs` are near in letters alone.
        ("x", "known: "),
        ("i", "known: "),
        ("__import__", "known: "),
    ],
)
def test_unknown_names_are_answered_by_near_ones(name: str, hint: str) -> None:
    names = "abs, ceil, cos, exp, floor, fps, log, max, max_f, min, pi, s, sin, sqrt, t, tan"
    with pytest.raises(ExpressionError) as caught:
        parse_expression(f"1 + {name}", VARIABLES)
    assert str(caught.value) == f"unknown name '{name}': {hint}{names}"
    assert caught.value.offset == 4


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1/0", "division by zero"),
        ("1/(t-12)", "division by zero"),
        ("t%0", "division by zero"),
        ("sqrt(-t)", "undefined"),
        ("log(0)", "undefined"),
        ("(-8)**0.5", "undefined"),
        ("0**-1", "undefined"),
        ("exp(1000)", "too large"),
        ("10**t**3", "too large"),
        ("1e308*t", "too large"),
        ("1e308*10-1e308*10", "undefined"),
        ("1/0 + t + 1", "division by zero"),
    ],
)
def test_what_has_no_value_says_why(text: str, reason: str) -> None:
    expression = parse_expression(f"  {text} ", VARIABLES)
    with pytest.raises(ExpressionError) as caught:
        expression.evaluate(VALUES)
    assert str(caught.value) == f"'{text}' has no value ({reason}): expected a finite number"
    assert caught.value.offset == 2


def test_messages_stay_short_and_on_one_line() -> None:
    expression = parse_expression("1/(\n" + "1*" * 1000 + "0)", VARIABLES)
    with pytest.raises(ExpressionError) as caught:
        expression.evaluate({})
    assert len(str(caught.value)) < 120
    assert len(str(caught.value).splitlines()) == 1


def test_an_expression_knows_its_text_place_and_variables() -> None:
    expression = parse_expression(" max(t, 2) + s*0 ", VARIABLES)
    assert (expression.text, expression.offset) == ("max(t, 2) + s*0", 1)
    assert expression.names == {"t", "s"}
    assert parse_expression("sin(pi)", VARIABLES).names == frozenset()


def test_depth_is_limited_and_length_is_not() -> None:
    for opening, closing in [("(", ")"), ("-", ""), ("1**", ""), ("sin(", ")")]:
        deep = MAX_DEPTH - 2
        parse_expression(opening * deep + "1" + closing * deep, VARIABLES).evaluate({})
        with pytest.raises(ExpressionError, match=f"at most {MAX_DEPTH} deep"):
            parse_expression(opening * (MAX_DEPTH + 1) + "1" + closing, VARIABLES)
    long = "+".join(["t"] * (MAX_EXPRESSION_LENGTH // 2))
    assert value_of(long) == 12 * (MAX_EXPRESSION_LENGTH // 2)
    ones = "+".join(["1"] * (MAX_EXPRESSION_LENGTH // 2))
    assert value_of(ones) == MAX_EXPRESSION_LENGTH // 2
    with pytest.raises(ExpressionError, match="10001 characters are too many"):
        parse_expression(long + "+t", VARIABLES)


def test_an_expression_has_its_own_limit_in_a_longer_text() -> None:
    half = "+".join(["1"] * 4000)
    reader = ExpressionReader(f"{half}\n{half}+{half}", (), max_length=100_000)
    assert reader.expression().evaluate({}) == 4000
    with pytest.raises(ExpressionError, match="15999 characters are too many") as caught:
        reader.expression()
    assert caught.value.offset == 8000


def test_a_reader_takes_expressions_and_marks_in_turn() -> None:
    reader = ExpressionReader("t*2 : 3\n\n(4,", VARIABLES)
    assert reader.expression().text == "t*2"
    assert not reader.take(",")
    assert reader.take(":")
    assert reader.expression().evaluate({}) == 3
    assert reader.token.kind == "line"
    assert reader.skip_lines()
    assert not reader.skip_lines()
    with pytest.raises(ExpressionError, match="the text ends here") as caught:
        reader.expression()
    assert caught.value.offset == 12


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2.5s", Fraction(5, 2)),
        ("\n 0.7s:", Fraction(7, 10)),
        (".125s", Fraction(1, 8)),
        ("0s", Fraction(0)),
        ("2.5 s", None),
        ("2.5", None),
        ("2sin(t)", None),
        ("s", None),
        ("", None),
    ],
)
def test_times_are_exact(text: str, seconds: Fraction | None) -> None:
    assert ExpressionReader(text, VARIABLES).time() == seconds


@pytest.mark.parametrize("number", ["1e3", "1e-999999", "9" * 10, "1." + "0" * 10])
def test_times_of_too_many_digits_are_refused(number: str) -> None:
    with pytest.raises(ExpressionError, match=r"expected seconds such as 2\.5s"):
        ExpressionReader(number + "s", VARIABLES).time()


_MARKS = st.sampled_from(
    [*"0123456789.()+-*/%,:^ \n\r", "**", "e5", "2.5s", *VARIABLES, *FUNCTIONS]
)


@given(st.text() | st.lists(_MARKS, max_size=30).map("".join))
@example("\ud800")
@example("9" * 5000)
@example("1e" + "9" * 5000)
@example("(" * 5000)
@example("-" * 5000 + "1")
@example("1**" * 3000 + "1")
@example("max(" * 2000)
@example("((1)" * 2000)
def test_any_text_is_an_expression_or_an_error_with_a_place(text: str) -> None:
    outcome = outcome_of(text)
    if isinstance(outcome, ExpressionError):
        assert 0 <= outcome.offset <= len(text)
        assert len(str(outcome).splitlines()) == 1
        assert len(str(outcome)) < 220
    else:
        assert math.isfinite(outcome)
