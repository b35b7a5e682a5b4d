"""Writing is the inverse of reading, and any text is read or refused, in linear time."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import KeyFrame, Part, format_prompts, parse_prompts
from tests.engine.prompts.cases import SEQUENCES, TEXTS, outcome_of


@given(SEQUENCES)
@example((KeyFrame(0, (Part("a:", 2.0), Part("a\\\\", 2.0), Part("\\\\:", 2.0), Part("--neg"))),))
@example((KeyFrame(0, (Part("a:::"), Part("|--neg"), Part("\\\\--neg"), Part("\\\\|"))),))
@example((KeyFrame(0, (Part("a:", 0.5),), "\\(:", 0, 0.25, "in"),))
def test_format_is_the_inverse_of_parse(key_frames: tuple[KeyFrame, ...]) -> None:
    assert parse_prompts(format_prompts(key_frames)) == key_frames


@given(SEQUENCES, TEXTS, TEXTS)
def test_heads_and_tails_are_written_into_the_parts(
    key_frames: tuple[KeyFrame, ...], head: str, tail: str
) -> None:
    first = format_prompts([KeyFrame(0, (Part(head),))]).removeprefix("0: ").rstrip("\n")
    last = format_prompts([KeyFrame(0, (Part(tail),))]).removeprefix("0: ").rstrip("\n")
    parsed = parse_prompts(format_prompts(key_frames), head=first, tail=last)
    texts = [part.text for key_frame in parsed for part in key_frame.parts]
    plain = [part.text for key_frame in key_frames for part in key_frame.parts]
    assert texts == [f"{head} {text} {tail}" for text in plain]
    assert parse_prompts(format_prompts(parsed)) == parsed


def test_format_writes_what_a_person_would() -> None:
    text = (
        "0: a (corgi:1.2) | rain::0.5 --neg blurry --seed 7 --hold 0.3 --ease in-out --cut\n"
        "60: a \\(lion\\)\n"
    )
    assert format_prompts(parse_prompts(text)) == text


_MARKS = st.sampled_from(
    [
        *(
            "0: a\n",
            "5:",
            "7 :",
            "\n2.5s: ",
            "\nmax_f/2: b",
            "head: ",
            "\n",
            "\r\n",
            "#",
            "a",
            "\\",
        ),
        "head: ",
        *(" --neg ", " --seed 3", " --hold .5", " --ease in", "::", "1.5", "|", ":1.3)", "fps"),
        *"()[]{}+-*/.,\"'",
    ]
)


@given(st.text() | st.lists(_MARKS | st.text(max_size=3)).map("".join))
@example("0: a\ud800\n")
def test_any_text_gives_key_frames_or_an_error_with_a_place(text: str) -> None:
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    outcome = outcome_of(text, num_frames=100)
    if isinstance(outcome, PromptError):
        assert 1 <= outcome.line <= len(lines)
        assert 1 <= outcome.column <= len(lines[outcome.line - 1]) + 1
        assert len(str(outcome).splitlines()) == 1
    else:
        assert outcome
        assert parse_prompts(format_prompts(outcome)) == outcome


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
        ("0: a", "|a", ""),
        ("0: a", " --neg b", ""),
        ("0: ", "(", ""),
        ("0: a\n", "(1+", ": b"),
        ("0: a\n", "1: b\n", ""),
        ("", "a", ""),
        ('{"0": "', "\\u0041", '"}'),
        ('{"0": "', "\\\\(", '"}'),
        ("{", '"', ""),
        ("{", '"5":"a",', "}"),
    ],
)
def test_long_texts_take_linear_time(head: str, repeated: str, tail: str) -> None:
    # What takes quadratic time at this length runs into the suite's time limit.
    outcome = outcome_of(head + repeated * 1_000_000 + tail)
    assert len(str(outcome)) < 200 if isinstance(outcome, PromptError) else len(outcome) == 1


def test_many_key_frames() -> None:
    key_frames = tuple(KeyFrame(i, (Part(f"a (dog:1.2) {i}"),), seed=i) for i in range(10_000))
    assert parse_prompts(format_prompts(key_frames)) == key_frames
