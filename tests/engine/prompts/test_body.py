"""Parts, weights, options and the emphasis in them, and where each is wrong."""

from __future__ import annotations

import pytest

from giffusion.engine.prompts import (
    MAX_PARTS,
    MAX_TEXT_LENGTH,
    KeyFrame,
    Part,
    parse_prompts,
)
from giffusion.engine.settings import MAX_SEED
from tests.engine.prompts.cases import check_refused


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a | b", [Part("a"), Part("b")]),
        ("a|b|c", [Part("a"), Part("b"), Part("c")]),
        ("a::1.5 | b::-0.4", [Part("a", 1.5), Part("b", -0.4)]),
        ("a :: 1e-1 |\n b::+.5", [Part("a", 0.1), Part("b", 0.5)]),
        ("a::2. | b::0", [Part("a", 2.0), Part("b", 0.0)]),
        (r"a\|b", [Part("a|b")]),
        (r"std\::sort", [Part("std::sort")]),
        (r"a\::2::3", [Part("a::2", 3.0)]),
        ("a:::2", [Part("a:", 2.0)]),
        (r"a \--neg b", [Part("a --neg b")]),
        ("a -- b --- c --5 d--neg", [Part("a -- b --- c --5 d--neg")]),
        # Escapes of the emphasis stay, and other backslashes are doubled.
        (r"(word:1.3), \(x\) [y]", [Part(r"(word:1.3), \(x\) [y]")]),
        (r"back\\slash \ \x \\", [Part(r"back\\slash \\ \\x \\")]),
        (r"\\::2", [Part(r"\\", 2.0)]),
        (r"\\| b", [Part(r"\\"), Part("b")]),
        (r"\\\| b", [Part(r"\\| b")]),
        (r"\\(b)", [Part(r"\\(b)")]),
        ("(a\n b)", [Part("(a b)")]),
    ],
)
def test_parts(text: str, parts: list[Part]) -> None:
    assert parse_prompts(f"0: {text}") == (KeyFrame(0, tuple(parts)),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a --neg blurry, grey", {"negative": "blurry, grey"}),
        ("a --seed 7", {"seed": 7}),
        ("a --seed 0", {"seed": 0}),
        (f"a --seed 00{MAX_SEED}", {"seed": MAX_SEED}),
        ("a --seed " + "0" * 100, {"seed": 0}),
        ("a --hold 0.3", {"hold": 0.3}),
        ("a --hold 0 --ease in", {"hold": 0.0, "ease": "in"}),
        ("a --ease in-out --hold 1", {"hold": 1.0, "ease": "in-out"}),
        ("a --cut", {"is_cut": True}),
        ("a --cut --ease in", {"is_cut": True, "ease": "in"}),
        ("a --ease out", {"ease": "out"}),
        ("a --neg b --seed 7", {"negative": "b", "seed": 7}),
        ("a --seed 7 --neg b", {"negative": "b", "seed": 7}),
        ("a\n--neg b\n  c\n\t--seed\n8", {"negative": "b c", "seed": 8}),
        (r"a --neg b\|c \--seed 7", {"negative": "b|c --seed 7"}),
        (r"a --neg (b:1.2) \(c\) \d", {"negative": r"(b:1.2) \(c\) \\d"}),
    ],
)
def test_options(text: str, expected: dict[str, object]) -> None:
    (only,) = parse_prompts(f"0: {text}")
    assert only.parts == (Part("a"),)
    expected = {"is_cut": False} | expected
    options = {name: getattr(only, name) for name in ("negative", "seed", "hold", "ease", "is_cut")}
    assert options == dict.fromkeys(options) | expected


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("0: --neg b", 1, 4, "no prompt here"),
        ("0:--seed 1", 1, 3, "no prompt here"),
        ("0: a |", 1, 6, "no prompt here"),
        ("0: | a", 1, 4, "no prompt here"),
        ("0: a\n b || c", 2, 4, "no prompt here"),
        ("0: a | --neg b", 1, 6, "no prompt here"),
        ("0: ::2", 1, 4, "no prompt here"),
        ("0: a::", 1, 5, "weight '' is not usable"),
        ("0: a::heavy", 1, 5, "weight 'heavy' is not usable"),
        ("0: std::sort of b", 1, 7, r"write '\::' for text"),
        ("0: a::nan", 1, 5, "weight 'nan' is not usable"),
        ("0: a::inf | b", 1, 5, "weight 'inf' is not usable"),
        ("0: a::1e999", 1, 5, "expected one from -100 to 100"),
        ("0: a::-100.5", 1, 5, "expected one from -100 to 100"),
        ("0: a::1_0", 1, 5, "weight '1_0' is not usable"),
        ("0: a::\uff15", 1, 5, "is not usable"),
        ("0: a::1,5", 1, 5, "weight '1,5' is not usable"),
        ("0: a::1::2", 1, 8, "weight '2' is not usable"),
        ("0: a\n| b::x", 2, 4, "weight 'x' is not usable"),
        ("0: a\r\n\r\n1: b::x", 3, 5, "weight 'x' is not usable"),
        ("0: a::0", 1, 4, "weights sum to zero"),
        ("0:  a::1 | b::-1", 1, 5, "weights sum to zero"),
        ("0: a::0.1 | b::0.2 | c::-0.3", 1, 4, "weights sum to zero"),
        ("0: a --hld 0.3", 1, 6, "unknown option '--hld': did you mean 'hold'? known: cut,"),
        ("0: a\n  --nge b", 2, 3, "unknown option '--nge': did you mean 'neg'?"),
        ("0: a --neg=b", 1, 6, "did you mean 'neg'?"),
        ("0: a --NEG b", 1, 6, "unknown option '--NEG'"),
        ("0: a --neg", 1, 6, "option '--neg' has no value"),
        ("0: a --neg --seed 1", 1, 6, "option '--neg' has no value"),
        ("0: a --neg b --neg c", 1, 14, "option '--neg' is given twice"),
        ("0: a --seed 1 --seed 1", 1, 15, "option '--seed' is given twice"),
        ("0: a --seed", 1, 6, "option '--seed' has no value"),
        ("0: a --seed x", 1, 6, "seed 'x' is not usable"),
        ("0: a --seed -1", 1, 6, "seed '-1' is not usable"),
        ("0: a --seed 5 dogs", 1, 6, "seed '5 dogs' is not usable"),
        ("0: a --seed \uff15", 1, 6, "is not usable"),
        (f"0: a --seed {MAX_SEED + 1}", 1, 6, f"expected one number from 0 to {MAX_SEED}"),
        ("0: a --seed " + "9" * 5000, 1, 6, "is not usable"),
        ("0: a --seed " + "0" * 300_000 + "5", 1, 6, "the text is too long"),
        ("0: a --hold 1.1", 1, 6, "hold '1.1' is not usable: expected the share"),
        ("0: a --cut now", 1, 6, "option '--cut' takes no value: expected '--cut' alone"),
        ("0: a --hold -0.1", 1, 6, "hold '-0.1' is not usable"),
        ("0: a --hold nan", 1, 6, "hold 'nan' is not usable"),
        ("0: a --ease inout", 1, 6, "unknown ease 'inout': did you mean 'in-out'?"),
        ("0: a --neg b | c", 1, 14, "'|' after an option"),
        ("0: a --neg b::2", 1, 13, "'::' after an option"),
        # Emphasis, at the place of the mark itself.
        ("0: a (b", 1, 6, r"'(' is never closed: close it, or write '\(' for text"),
        ("0: a :)", 1, 7, r"')' closes nothing: write '\)' for text"),
        ("0: a\n\n  \\| b \\x (c | d)", 3, 11, "'(' is never closed"),
        ("0: a | b [c::2", 1, 10, "'[' is never closed"),
        ("0: a --neg b\n\n (c]", 3, 4, "']' stands inside of '('"),
        ("0: a (b:11)", 1, 9, "weight '11' is not usable: expected 0 to 10"),
        ("0: a [b:c:0.5]", 1, 10, "prompt editing"),
        ("0: " + "(" * 25 + "a" + ")" * 25, 1, 29, "multiply to the weight 10.83"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, words: str) -> None:
    check_refused(text, line, column, words)


def test_the_longest_prompts_and_the_most_parts() -> None:
    longest, most = "a" * MAX_TEXT_LENGTH, " | ".join("a" * MAX_PARTS)
    assert parse_prompts(f"0: {longest}")[0].parts[0].text == longest
    assert len(parse_prompts(f"0: {most}")[0].parts) == MAX_PARTS
    check_refused(f"0: {longest}a", 1, 4, "the text is too long: expected at most 10000")
    check_refused(f"head: h\n0: {longest}", 2, 4, "the prompt is too long with head and tail")
    check_refused(f"0: a --neg {longest}a", 1, 6, "the text is too long")
    check_refused(f"0: {most} | a", 1, 4002, "too many parts: expected at most 1000")
