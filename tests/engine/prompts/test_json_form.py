"""The JSON form: the same meaning as lines, and errors with their place in the JSON text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import KeyFrame, Part, format_prompts, parse_prompts
from tests.engine.prompts.cases import SEQUENCES, check_refused, key_frame, outcome_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Deforum's own form.
        (
            '{"0": "a --neg b", "max_f/2": "c"}',
            [KeyFrame(0, (Part("a"),), negative="b"), key_frame(50, "c")],
        ),
        ('\ufeff \n\u3000{"0":"a"}\n ', [key_frame(0, "a")]),
        ('{"60": "b", " 5 ": " a "}', [key_frame(5, "a"), key_frame(60, "b")]),
        ('{"0": "a", "tail": "t", "head": "h"}', [key_frame(0, "h a t")]),
        ('{"0": "\\u00e9\\ud83d\\ude00 \\"x\\" \\/"}', [key_frame(0, 'é😀 "x" /')]),
        ('{"0": "a\\n  b\\r\\nc\\td"}', [key_frame(0, "a b c\td")]),
        ('{"0": "a\\n# b\\n7: c"}', [key_frame(0, "a # b 7: c")]),
        ('{"0": "a \\\\| b \\\\(c\\\\) \\\\d"}', [key_frame(0, "a | b \\(c\\) \\\\d")]),
        ('{"\\u0030": "a | b"}', [key_frame(0, "a", "b")]),
        ('{"0"\r\n:\r"a\u2028"\t}', [key_frame(0, "a")]),
    ],
)
def test_objects(text: str, expected: list[KeyFrame]) -> None:
    assert parse_prompts(text, num_frames=101) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("{}", 1, 1, "no key frame found"),
        ("{", 1, 2, "the end is not what belongs here: expected a key in double quotes"),
        ("{0: 1}", 1, 2, "'0' is not what belongs here: expected a key in double quotes"),
        ("{'0': 'a'}", 1, 2, "expected a key in double quotes"),
        ('{"0" "a"}', 1, 6, "expected ':' after the key"),
        ('{"0": 5}', 1, 7, "expected a prompt in double quotes"),
        ('{"prompts":\n {"0": "a"}}', 2, 2, "'{' is not what belongs here"),
        ('{"0": "a" "5": "b"}', 1, 11, "expected ',' or '}' after the prompt"),
        ('{"0": "a",\n}', 2, 1, "expected another key after ','; remove one of them"),
        ('{"0": "a"', 1, 10, "the end is not what belongs here: expected ',' or '}'"),
        ('{"0": "a"} x', 1, 12, "'x' is not what belongs here: expected nothing after '}'"),
        ('{"0": "a', 1, 7, "'\"' is never closed"),
        ('{"0": "a\n"}', 1, 9, "'\\n' inside of quotes: write it as an escape, or close them"),
        ('{"0": "a\tb"}', 1, 9, "'\\t' inside of quotes"),
        ('{"0": "a \\(b"}', 1, 10, r"'\(' is no escape of JSON: write '\\(' for a backslash"),
        ('{"0": "a\\u12"}', 1, 9, r"'\u' is no escape of JSON"),
        ('{"0": "a\\', 1, 9, "is no escape of JSON"),
        ('{"0": "\\n b\\ud800"}', 1, 12, "is not a character"),
        ('{"0": "a", "0": "b"}', 1, 13, "key frame 0 stands on line 1 and again on line 1"),
        ('{"head": "a", "0": "b", "head": "c"}', 1, 26, "'head' stands on line 1 and again"),
        ('{"0": " "}', 1, 3, "key frame 0 has no prompt"),
        ('{"": "a"}', 1, 3, "'' begins no key frame"),
        ('{"prompt": "a"}', 1, 3, "unknown name 'prompt'"),
        # Inside of strings, behind escapes.
        ('{"0": " a::x"}', 1, 10, "weight 'x' is not usable"),
        ('{"0": "\\u0061\\ud83d\\ude00\\n::x"}', 1, 28, "weight 'x' is not usable"),
        ('{"0":\n"\\"\\\\\\\\\\t --nge b"}', 2, 11, "unknown option '--nge'"),
        ('{"0": "a \\\\| \\n (b"}', 1, 17, "'(' is never closed"),
        ('{"0": "a", "head": "\\\\x (b"}', 1, 25, "'(' is never closed"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, words: str) -> None:
    check_refused(text, line, column, words)


@given(SEQUENCES, st.booleans())
def test_values_mean_what_follows_the_key_of_a_line(
    key_frames: tuple[KeyFrame, ...], ascii_only: bool
) -> None:
    lines = format_prompts(key_frames).split("\n")[:-1]
    entries = dict(line.split(": ", 1) for line in lines)
    assert parse_prompts(json.dumps(entries, ensure_ascii=ascii_only)) == key_frames


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=8)), st.text('{}":, ', max_size=3))
def test_any_object_gives_key_frames_or_an_error_with_a_place(
    entries: dict[str, str], after: str
) -> None:
    text = json.dumps(entries) + after
    outcome = outcome_of(text)
    if isinstance(outcome, PromptError):
        assert outcome.line == 1
        assert 1 <= outcome.column <= len(text) + 1
    else:
        assert parse_prompts(format_prompts(outcome)) == outcome


def test_json_that_python_reads_differently() -> None:
    # `json.loads` keeps the last of equal keys.
    assert json.loads('{"0": "a", "0": "b"}') == {"0": "b"}
    assert isinstance(outcome_of('{"0": "a", "0": "b"}'), PromptError)
