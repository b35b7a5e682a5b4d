"""Keys: frame numbers, times and arithmetic, exactly rounded, and what is no key."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.settings import MAX_FRAMES
from tests.engine.prompts.cases import check_refused


def frame_of(
    key: str, fps: Fraction = Fraction(24), num_frames: int | None = 101, seed: int = 7
) -> int:
    """Returns the frame of a key, which has to be the same in both forms."""
    line = parse_prompts(f"{key}: a", fps=fps, num_frames=num_frames, seed=seed)
    json = parse_prompts(f'{{"{key}": "a"}}', fps=fps, num_frames=num_frames, seed=seed)
    assert line == json
    return line[0].frame


@pytest.mark.parametrize(
    ("key", "frame"),
    [
        ("2.5s", 60),
        ("2.5 s", 60),
        ("0s", 0),
        (".5s", 12),
        ("1.s", 24),
        ("0.020833s", 0),
        ("0.0208334s", 1),
        ("max_f", 100),
        ("max_f/2", 50),
        ("max_f - 1", 99),
        ("max_f/8", 13),
        ("(10+2)*3", 36),
        ("-1 + 2", 1),
        ("0-0.5", 0),
        ("fps*2", 48),
        ("1e1+s%4", 13),
        ("floor(max_f/8)", 12),
        ("min(fps, 7)", 7),
        ("2**3", 8),
        (".5+.5", 1),
        ("10/4", 3),
        ("9/4", 2),
    ],
)
def test_times_and_arithmetic(key: str, frame: int) -> None:
    assert frame_of(key) == frame


def test_times_are_exact() -> None:
    # 2.5 frames: in floats 0.1 * 25 is as well, but 0.7 * 25 and 30000/1001 are not what they seem.
    assert frame_of("0.1s", Fraction(25)) == 3
    assert frame_of("0.7s", Fraction(25)) == 18
    assert frame_of("1001s", Fraction(30000, 1001)) == 30000
    assert frame_of("0.0166833333s", Fraction(30000, 1001)) == 0
    assert frame_of("0.0166833334s", Fraction(30000, 1001)) == 1


@given(st.decimals(0, 900, places=4), st.fractions(1, 1000, max_denominator=1001))
def test_times_are_rounded_half_up(seconds: object, fps: Fraction) -> None:
    assert frame_of(f"{seconds}s", fps) == math.floor(Fraction(str(seconds)) * fps + Fraction(1, 2))


@given(st.integers(0), st.integers(0, 30))
def test_frames_are_read_in_full_or_refused(frame: int, num_zeros: int) -> None:
    key = f"{'0' * num_zeros}{frame}"
    if frame < MAX_FRAMES:
        assert frame_of(key) == frame
    else:
        check_refused(f"{key}: a", 1, 1, "expected")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("-5", "'-5' begins no key frame: expected 0 to 999999 in digits, a time such as '2.5s'"),
        ("\u22125", "begins no key frame"),
        ("+5", "'+5' begins no key frame"),
        ("1.5", "expected 0 to 999999 in digits"),
        ("5.0", "'5.0' begins no key frame"),
        (".5", "'.5' begins no key frame"),
        ("1,000", "'1,000' begins no key frame"),
        ("1_000", "'1_000' begins no key frame"),
        ("1e3", "'1e3' begins no key frame"),
        ("\uff15", "begins no key frame"),
        ("-2s", "'-2s' begins no key frame"),
        ("2S", "'2S' begins no key frame"),
        ("1000000", "expected 0 to 999999"),
        ("1" + "0" * 50, "expected 0 to 999999"),
        ("1" + "0" * 4000, "expected at most 100 characters"),
        ("0-10", "'0-10' begins no key frame: it is frame -10, expected 0 to 999999"),
        ("1e9+1", "it is frame 1000000001, expected 0 to 999999"),
        ("1e300*2", "it is frame 2e+300, expected 0 to 999999"),
        ("99999s", "it is frame 2399976, expected"),
        ("max_f/0", "'max_f/0' has no value"),
        ("1\u2028/0", "'1\\u2028/0' has no value"),
        ("max_f/(2-2)", "begins no key frame"),
        ("5 5", "begins no key frame"),
        ("5^2", "begins no key frame"),
        ("\uff15+1", "begins no key frame"),
    ],
)
def test_what_looks_like_a_key_and_is_none(key: str, words: str) -> None:
    with pytest.raises(PromptError, match=r"film\.txt:2:") as caught:
        parse_prompts(f"0: a\n{key}: b", "film.txt", num_frames=101)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 250


def test_places_inside_of_keys() -> None:
    check_refused("0: a\n 5 5: b", 2, 4, "begins no key frame")
    check_refused('{"0": "a",\n "max_g/2": "b"}', 2, 3, "did you mean 'max_f'?")
    check_refused('{"0": "a",\n "5 \\u0035": "b"}', 2, 5, "begins no key frame")


def test_the_number_of_frames_has_to_be_known_for_max_f() -> None:
    words = "'max_f/2' begins no key frame: max_f needs the number of frames, give it with --frames"
    check_refused("0: a\nmax_f/2: b", 2, 1, words)
    check_refused('{"0": "a", "max_f/2": "b"}', 1, 13, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5: a\n05: b", "key frame 5 stands on line 1 as '5' and again on line 2 as '05'"),
        ("fps: a\n1s: b", "key frame 24 stands on line 1 as 'fps' and again on line 2 as '1s'"),
        # White space that some programs take for a line break.
        ("5: a\n2\u2028+3: b", "on line 1 as '5' and again on line 2 as '2\\u2028+3'"),
        ('{"1s": "a",\n"1.01s": "b"}', "on line 1 as '1s' and again on line 2 as '1.01s'"),
    ],
)
def test_keys_of_one_frame_after_rounding(text: str, words: str) -> None:
    check_refused(text, 2, 2 if text.startswith("{") else 1, words)
