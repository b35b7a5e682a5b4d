"""The line form: what begins a key frame, what continues one, heads and tails, and wrong lines."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import KeyFrame, format_prompts, parse_prompts
from giffusion.engine.settings import MAX_FRAMES
from tests.engine.prompts.cases import SEQUENCES, check_refused, key_frame


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0: a corgi\n60: a lion\n", [key_frame(0, "a corgi"), key_frame(60, "a lion")]),
        # The last line without a line break keeps its last character.
        ("0: a corgi\n60: a lion", [key_frame(0, "a corgi"), key_frame(60, "a lion")]),
        # White space around a prompt is not part of it.
        ("  0 :   a corgi \t", [key_frame(0, "a corgi")]),
        ("\u3000 7\xa0:\u3000 犬 ", [key_frame(7, "犬")]),
        # Continuation lines are kept.
        (
            "0: a corgi,\n   oil painting\n5: b",
            [key_frame(0, "a corgi, oil painting"), key_frame(5, "b")],
        ),
        ("0:\na corgi", [key_frame(0, "a corgi")]),
        ("0: a\n\n# no\n  b \n", [key_frame(0, "a b")]),
        ("0: wake\nat 5: o'clock", [key_frame(0, "wake at 5: o'clock")]),
        ("0: a\n3d: render", [key_frame(0, "a 3d: render")]),
        ("0: a\n12 o'clock: tea", [key_frame(0, "a 12 o'clock: tea")]),
        ("0: a\n- b: c", [key_frame(0, "a - b: c")]),
        ("0: a\n...: c", [key_frame(0, "a ...: c")]),
        ("0: a\n(1:1.2) b", [key_frame(0, "a (1:1.2) b")]),
        ("0: a\nsin: b", [key_frame(0, "a sin: b")]),
        ("0: a\ns: b", [key_frame(0, "a s: b")]),
        ("0: a\n(s): b", [key_frame(0, "a (s): b")]),
        ("0: a\nmax_fun: b", [key_frame(0, "a max_fun: b")]),
        ("0: a\n5 dogs: b", [key_frame(0, "a 5 dogs: b")]),
        ("0: a\nheads: b", [key_frame(0, "a heads: b")]),
        ("0: a\n2e: b", [key_frame(0, "a 2e: b")]),
        # Descending frames are sorted, and the first may be above 0.
        ("60: b\n5: a", [key_frame(5, "a"), key_frame(60, "b")]),
        ("007: bond", [key_frame(7, "bond")]),
        (f"{MAX_FRAMES - 1}: end", [key_frame(MAX_FRAMES - 1, "end")]),
        ("\ufeff0: a\r\n1: b\r2: c", [key_frame(0, "a"), key_frame(1, "b"), key_frame(2, "c")]),
        ("# first\n0: a # not a comment\n  # last", [key_frame(0, "a # not a comment")]),
        ("0: 16:9 picture", [key_frame(0, "16:9 picture")]),
        ("0: a\u2028b\x0cc", [key_frame(0, "a\u2028b\x0cc")]),
    ],
)
def test_lines(text: str, expected: list[KeyFrame]) -> None:
    assert parse_prompts(text) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("head: h\n0: a | b", [key_frame(0, "h a", "h b")]),
        ("tail : t\n0: a", [key_frame(0, "a t")]),
        ("# c\ntail: t\n  u\nhead: (h:1.2)\n0: a\n5: b", None),
        (r"head: a \| \--neg \x" + "\n0: b", [key_frame(0, r"a | --neg \\x b")]),
    ],
)
def test_heads_and_tails(text: str, expected: list[KeyFrame] | None) -> None:
    expected = expected or [key_frame(0, "(h:1.2) a t u"), key_frame(5, "(h:1.2) b t u")]
    assert parse_prompts(text) == tuple(expected)


def test_a_negative_has_no_head() -> None:
    (only,) = parse_prompts("head: h\ntail: t\n0: a --neg n")
    assert only.negative == "n"


def test_given_heads_and_tails_stand_outside_of_the_texts_own() -> None:
    text = "head: h\ntail: t\n0: a"
    assert parse_prompts(text, head=" H\nI ", tail="T") == (key_frame(0, "H I h a t T"),)
    assert parse_prompts("0: a", head=" ", tail="") == (key_frame(0, "a"),)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("a (b", "head:1:3: '(' is never closed"),
        ("a\nb | c", r"head:2:3: '|' in 'head': expected one text; write '\|' for text"),
        ("a\ud800", "head:1:2: '\\ud800' is not a character"),
    ],
)
def test_given_heads_are_checked(head: str, words: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompts("0: a", head=head)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, 1, "no key frame found: write lines such as '0: a corgi'"),
        ("\n# only\r\n  # comments", 1, 1, "no key frame found"),
        ("a corgi", 1, 1, "before any key frame"),
        ("# c\n\n  a corgi\n0: b", 3, 3, "before any key frame"),
        ("0: a\n5\uff1a b", 2, 1, "'5\uff1a' begins no key frame: expected ':' after the key"),
        ("0: a\n 5: b\n\n0 : c", 4, 1, "key frame 0 stands on line 1 and again on line 4"),
        ("0:", 1, 1, "key frame 0 has no prompt"),
        ("0: a\n  7:  \n# c\n9: b", 2, 3, "key frame 7 has no prompt"),
        ("head:\n0: a", 1, 1, "'head' has no prompt: expected text after ':'"),
        ("head: a\nhead: b\n0: a", 2, 1, "'head' stands on line 1 and again on line 2"),
        ("head: a\ntail: b", 1, 1, "no key frame found: write one such as '0: a corgi'"),
        ("0: a\ntail: b", 2, 1, "'tail:' stands after a key frame"),
        ("head: a --seed 1\n0: a", 1, 9, r"'--seed' in 'head': expected one text"),
        ("head: a::2\n0: a", 1, 8, r"write '\::' for text"),
        ("head: a (b\n0: a", 1, 9, "'(' is never closed"),
        ("0: a\n5: b\ud800", 2, 5, "save the text as UTF-8"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, words: str) -> None:
    check_refused(text, line, column, words)


@given(SEQUENCES, st.randoms(use_true_random=False))
def test_the_order_of_lines_is_irrelevant(key_frames: tuple[KeyFrame, ...], random: Random) -> None:
    lines = format_prompts(key_frames).split("\n")[:-1]
    random.shuffle(lines)
    assert parse_prompts("\n".join(lines)) == key_frames
