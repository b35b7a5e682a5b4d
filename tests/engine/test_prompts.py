"""Key-frame text: what it means, where it is wrong, and that it survives being written back."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import (
    MAX_WEIGHT,
    MIN_WEIGHT_SUM,
    KeyFrame,
    Part,
    format_prompts,
    parse_prompts,
)
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED


def key_frame(frame: int, *texts: str) -> KeyFrame:
    return KeyFrame(frame, tuple(Part(text) for text in texts))


def outcome_of(text: str) -> tuple[KeyFrame, ...] | PromptError:
    try:
        return parse_prompts(text)
    except PromptError as error:
        return error


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
        # Descending frames are sorted, and the first may be above 0.
        ("60: b\n5: a", [key_frame(5, "a"), key_frame(60, "b")]),
        ("007: bond", [key_frame(7, "bond")]),
        (f"{MAX_FRAMES - 1}: end", [key_frame(MAX_FRAMES - 1, "end")]),
        ("\ufeff0: a\r\n1: b\r2: c", [key_frame(0, "a"), key_frame(1, "b"), key_frame(2, "c")]),
        ("# first\n0: a # not a comment\n  # last", [key_frame(0, "a # not a comment")]),
        ("0: 16:9 picture", [key_frame(0, "16:9 picture")]),
        ("0: a\u2028b\x0cc", [key_frame(0, "a\u2028b\x0cc")]),
        ("0: (word:1.3), \\(x\\) [y]", [key_frame(0, "(word:1.3), \\(x\\) [y]")]),
    ],
)
def test_lines(text: str, expected: list[KeyFrame]) -> None:
    assert parse_prompts(text) == tuple(expected)


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
        (r"back\\slash \ \x \\", [Part("back\\slash \\ \\x \\")]),
        (r"\\::2", [Part("\\", 2.0)]),
        (r"a \--neg b", [Part("a --neg b")]),
        ("a -- b --- c --5 d--neg", [Part("a -- b --- c --5 d--neg")]),
    ],
)
def test_parts(text: str, parts: list[Part]) -> None:
    assert parse_prompts(f"0: {text}") == (KeyFrame(0, tuple(parts)),)


@pytest.mark.parametrize(
    ("text", "negative", "seed"),
    [
        ("a --neg blurry, grey", "blurry, grey", None),
        ("a --seed 7", None, 7),
        ("a --seed 0", None, 0),
        (f"a --seed 00{MAX_SEED}", None, MAX_SEED),
        ("a --neg b --seed 7", "b", 7),
        ("a --seed 7 --neg b", "b", 7),
        ("a\n--neg b\n  c\n\t--seed\n8", "b c", 8),
        (r"a --neg b\|c \--seed 7", "b|c --seed 7", None),
    ],
)
def test_options(text: str, negative: str | None, seed: int | None) -> None:
    assert parse_prompts(f"0: {text}") == (KeyFrame(0, (Part("a"),), negative, seed),)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("", 1, 1, "no key frame found: write lines such as '0: a corgi'"),
        ("\n# only\r\n  # comments", 1, 1, "no key frame found"),
        ("a corgi", 1, 1, "before any key frame"),
        ("# c\n\n  a corgi\n0: b", 3, 3, "before any key frame"),
        ('{"0": "a corgi"}', 1, 1, "expected '0: a corgi'"),
        ("max_f/2: a", 1, 1, "before any key frame"),
        # Keys that are none, rather than prose that continues a prompt.
        ("-5: a", 1, 1, "'-5:' begins no key frame"),
        ("0: a\n -5: b", 2, 2, "'-5:' begins no key frame"),
        ("0: a\n\u22125: b", 2, 1, "begins no key frame"),
        ("0: a\n+5: b", 2, 1, "'+5:' begins no key frame"),
        ("0: a\n1.5: b", 2, 1, "expected 0 to 999999 in digits"),
        ("0: a\n5.0: b", 2, 1, "'5.0:' begins no key frame"),
        ("0: a\n.5: b", 2, 1, "'.5:' begins no key frame"),
        ("0: a\n1,000: b", 2, 1, "'1,000:' begins no key frame"),
        ("0: a\n1e3: b", 2, 1, "'1e3:' begins no key frame"),
        ("0: a\n0-10: b", 2, 1, "'0-10:' begins no key frame"),
        ("0: a\n2.5s: b", 2, 1, "'2.5s:' begins no key frame"),
        ("0: a\n2 s : b", 2, 1, "'2 s :' begins no key frame"),
        ("0: a\n\uff15: b", 2, 1, "begins no key frame"),
        ("0: a\n5\uff1a b", 2, 1, "begins no key frame"),
        ("0: a\n1000000: b", 2, 1, "expected 0 to 999999"),
        ("0: a\n1000000000: b", 2, 1, "expected 0 to 999999"),
        ("0: a\n1" + "0" * 4000 + ": b", 2, 1, "expected 0 to 999999"),
        ("0: a\n 5: b\n\n0 : c", 4, 1, "key frame 0 stands on line 1 and again on line 4"),
        ("5: a\n05: b", 2, 1, "key frame 5 stands on line 1 and again on line 2"),
        ("0:", 1, 1, "key frame 0 has no prompt"),
        ("0: a\n  7:  \n# c\n9: b", 2, 3, "key frame 7 has no prompt"),
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
        ("0: a::0", 1, 4, "weights sum to zero"),
        ("0:  a::1 | b::-1", 1, 5, "weights sum to zero"),
        ("0: a::0.1 | b::0.2 | c::-0.3", 1, 4, "weights sum to zero"),
        ("0: a --hold 0.3", 1, 6, "unknown option '--hold': known: neg, seed"),
        ("0: a --ease in-out", 1, 6, "unknown option '--ease'"),
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
        ("0: a --neg b | c", 1, 14, "'|' after an option"),
        ("0: a --neg b::2", 1, 13, "'::' after an option"),
        ("0: a\n5: b\ud800", 2, 5, "save the text as UTF-8"),
        ("\ufeff-1: a", 1, 1, "'-1:' begins no key frame"),
        ("0: a\r\n\r\n1: b::x", 3, 5, "weight 'x' is not usable"),
    ],
)
def test_errors_say_where_and_what(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(PromptError) as caught:
        parse_prompts(text, "film.txt")
    message = str(caught.value)
    assert message.startswith(f"film.txt:{line}:{column}: ")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert words in message
    assert len(message.splitlines()) == 1
    assert len(message) < 200


_FRAMES = st.integers(0, MAX_FRAMES - 1)
# Mostly what the grammar gives a meaning to, so that combinations of marks are met.
_TEXTS = (
    st.text(
        st.one_of(st.sampled_from("\\|:-# a1n\u2028"), st.characters(codec="utf-8")), max_size=20
    )
    .map(lambda text: text.replace("\n", " ").replace("\r", " ").strip())
    .filter(bool)
)
_WEIGHTS = st.floats(-MAX_WEIGHT, MAX_WEIGHT)
_PARTS = (
    st.lists(st.builds(Part, _TEXTS, st.just(1.0) | _WEIGHTS), min_size=1, max_size=4)
    .filter(lambda parts: abs(sum(part.weight for part in parts)) > 2 * MIN_WEIGHT_SUM)
    .map(tuple)
)
_KEY_FRAMES = st.builds(
    KeyFrame, _FRAMES, _PARTS, st.none() | _TEXTS, st.none() | st.integers(0, MAX_SEED)
)
_SEQUENCES = st.lists(
    _KEY_FRAMES, min_size=1, max_size=5, unique_by=lambda key_frame: key_frame.frame
).map(lambda key_frames: tuple(sorted(key_frames, key=lambda key_frame: key_frame.frame)))


@given(_SEQUENCES)
@example((KeyFrame(0, (Part("a:", 2.0), Part("a\\", 2.0), Part("\\:", 2.0), Part("--neg"))),))
@example((KeyFrame(0, (Part("a:::"), Part("|--neg"), Part("\\--neg"), Part("\\|"))),))
def test_format_is_the_inverse_of_parse(key_frames: tuple[KeyFrame, ...]) -> None:
    assert parse_prompts(format_prompts(key_frames)) == key_frames


@given(_SEQUENCES, st.randoms(use_true_random=False))
def test_the_order_of_lines_is_irrelevant(key_frames: tuple[KeyFrame, ...], random: Random) -> None:
    lines = format_prompts(key_frames).split("\n")[:-1]
    random.shuffle(lines)
    assert parse_prompts("\n".join(lines)) == key_frames


def test_format_writes_what_a_person_would() -> None:
    text = "0: a corgi | rain::0.5 --neg blurry --seed 7\n60: a \\(lion\\)\n"
    assert format_prompts(parse_prompts(text)) == text


_SNIPPETS = st.sampled_from(
    ["0: a\n", "5:", "7 :", "\n", "\r\n", " --neg ", " --seed 3", "::", "1.5", "|", "\\", "#", "a"]
)


@given(st.text() | st.lists(_SNIPPETS | st.text(max_size=3)).map("".join))
@example("0: a\ud800\n")
def test_any_text_gives_key_frames_or_an_error_with_a_place(text: str) -> None:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    outcome = outcome_of(text)
    if isinstance(outcome, PromptError):
        assert 1 <= outcome.line <= len(lines)
        assert 1 <= outcome.column <= max(len(lines[outcome.line - 1]), 1)
        assert len(str(outcome).splitlines()) == 1
    else:
        assert outcome
        assert parse_prompts(format_prompts(outcome)) == outcome


@given(st.integers(0), st.integers(0, 30))
def test_frames_are_read_in_full_or_refused(frame: int, num_zeros: int) -> None:
    text = f"{'0' * num_zeros}{frame}: a"
    if frame < MAX_FRAMES:
        assert parse_prompts(text) == (key_frame(frame, "a"),)
    else:
        with pytest.raises(PromptError, match="expected 0 to 999999"):
            parse_prompts(text)


@pytest.mark.parametrize(
    ("head", "repeated", "tail"),
    [
        ("0: a", " ", "b"),
        ("0: a\n5", " ", "x"),
        ("0: a::", "1", "x"),
        ("0: a --seed ", "0", "x"),
        ("0: ", "\\", "a"),
        ("0: a", "\n", "b"),
        ("0: a", " -", "b"),
    ],
)
def test_long_texts_take_linear_time(head: str, repeated: str, tail: str) -> None:
    # What takes quadratic time at this length runs into the suite's time limit.
    outcome = outcome_of(head + repeated * 1_000_000 + tail)
    assert len(str(outcome)) < 200 if isinstance(outcome, PromptError) else len(outcome) == 1
