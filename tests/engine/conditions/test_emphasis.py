"""Weights of words: AUTOMATIC1111's meaning, and one line for what has none."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.conditions.emphasis import (
    MAX_EMPHASIS,
    EmphasisError,
    Fragment,
    check_emphasis,
    parse_emphasis,
    plain_text,
)
from giffusion.engine.errors import SettingsError


def outcome_of(text: str) -> tuple[Fragment, ...] | EmphasisError:
    try:
        return parse_emphasis(text)
    except EmphasisError as error:
        return error


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a corgi", [("a corgi", 1)]),
        ("(a)", [("a", 1.1)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("a (b) [c] d", [("a ", 1), ("b", 1.1), (" ", 1), ("c", 1 / 1.1), (" d", 1)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a : .5 )b", [("a ", 0.5), ("b", 1)]),
        ("(a:0)", [("a", 0)]),
        ("(a:10)", [("a", 10)]),
        ("(a:+1e0)", [("a", 1)]),
        ("((a))", [("a", 1.1 * 1.1)]),
        ("([a])", [("a", 1.1 * (1 / 1.1))]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1), (" c", 0.5)]),
        ("((a:5):2)", [("a", 10)]),
        ("(((a:9):0.5):2)", [("a", 9)]),
        ("()a[]", [("a", 1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:)", [("a:", 1.1)]),
        ("[a:b]", [("a:b", 1 / 1.1)]),
        ("(1:2:1.5)", [("1:2", 1.5)]),
        ("a:1.3", [("a:1.3", 1)]),
        (r"\(a\) \[b\] \\", [("(a) [b] \\", 1)]),
        (r"(a\):1.5)", [("a)", 1.5)]),
        (r"\\(a)", [("\\", 1), ("a", 1.1)]),
        (r"a\b \ \:", [(r"a\b \ \:", 1)]),
        ("a\\", [("a\\", 1)]),
    ],
)
def test_fragments(text: str, expected: list[tuple[str, float]]) -> None:
    fragments = parse_emphasis(text)
    assert [fragment.text for fragment in fragments] == [piece for piece, _ in expected]
    assert [f.weight for f in fragments] == pytest.approx([w for _, w in expected], rel=1e-15)


@pytest.mark.parametrize(
    ("text", "offset", "words"),
    [
        ("a (b", 2, r"'(' is never closed: close it, or write '\(' for text"),
        ("a [b (c)", 2, r"'[' is never closed: close it, or write '\[' for text"),
        (r"(a\)", 0, "'(' is never closed"),
        ("a :)", 3, r"')' closes nothing: write '\)' for text"),
        ("a:2)", 3, "')' closes nothing"),
        ("(a]", 2, "']' stands inside of '(': expected ')' before it"),
        ("[a (b] c)", 5, "']' stands inside of '('"),
        ("(a:10.1)", 3, "weight '10.1' is not usable: expected 0 to 10"),
        ("(at 12:30)", 7, r"weight '30' is not usable: expected 0 to 10; write '\(' and '\)'"),
        ("(a:-1)", 3, "weight '-1' is not usable"),
        ("(a:1,3)", 3, "weight '1,3' is not usable"),
        ("(a:1.2.3)", 3, "weight '1.2.3' is not usable"),
        ("(a:1e999)", 3, "weight '1e999' is not usable"),
        ("(a:" + "9" * 5000 + ")", 3, "is not usable"),
        ("[a:0.5]", 2, "prompt editing such as '[from:to:0.5]' is not offered: use key frames"),
        ("[a:b:10]", 4, "prompt editing"),
        ("((a:5):2.1)", 2, "brackets around 'a' multiply to the weight 10.5: expected at most 10"),
        ("(" * 9000 + "a" + ")" * 9000, 9000, "multiply to the weight inf"),
    ],
)
def test_errors_say_where_and_what(text: str, offset: int, words: str) -> None:
    with pytest.raises(EmphasisError) as caught:
        parse_emphasis(text)
    assert caught.value.offset == offset
    assert words in str(caught.value)
    assert len(str(caught.value)) < 150


def test_settings_are_checked_by_name() -> None:
    check_emphasis("a (b:1.2) [c]", "negative")
    with pytest.raises(SettingsError) as caught:
        check_emphasis("a (b", "negative")
    message = r"negative, character 3: '(' is never closed: close it, or write '\(' for text"
    assert str(caught.value) == message


@given(st.text("ab ()[]:.12\\\n") | st.text())
def test_any_text_gives_fragments_or_an_error_with_its_place(text: str) -> None:
    fragments = outcome_of(text)
    if isinstance(fragments, EmphasisError):
        assert 0 <= fragments.offset < len(text)
        return
    assert all(f.text and 0 <= f.weight <= MAX_EMPHASIS for f in fragments)
    assert all(a.weight != b.weight for a, b in pairwise(fragments))
    escaped = re.sub(r"[\\()\[\]]", r"\\\g<0>", plain_text(text))
    assert "".join(f.text for f in parse_emphasis(escaped)) == plain_text(text)
    assert all(f.weight == 1 for f in parse_emphasis(escaped))


@given(st.text("ab,: ", min_size=1), st.integers(1, 20), st.integers(0, 20))
def test_brackets_inside_one_another_multiply(text: str, num_round: int, num_square: int) -> None:
    marked = "(" * num_round + "[" * num_square + text + "]" * num_square + ")" * num_round
    (fragment,) = parse_emphasis(marked)
    assert fragment == Fragment(text, fragment.weight)
    assert math.isclose(fragment.weight, 1.1 ** (num_round - num_square), rel_tol=1e-12)


@pytest.mark.parametrize("repeated", ["(", "[a]", ":1", "\\", "(a:1)", ")", "(:"])
def test_long_texts_take_linear_time(repeated: str) -> None:
    # What takes quadratic time at this length runs into the suite's time limit.
    text = repeated * 300_000
    outcome = outcome_of(text)
    if isinstance(outcome, EmphasisError):
        assert outcome.offset in (0, len(text) - 1, len(text) - 2)
    else:
        assert outcome
