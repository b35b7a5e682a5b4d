"""What the tests of the parser share: short key frames, errors with their place, generated ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import MAX_WEIGHT, MIN_WEIGHT_SUM, KeyFrame, Part, parse_prompts
from giffusion.engine.schedules.easing import EASES
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED


def key_frame(frame: int, *texts: str) -> KeyFrame:
    return KeyFrame(frame, tuple(Part(text) for text in texts))


def outcome_of(text: str, **options: Any) -> tuple[KeyFrame, ...] | PromptError:
    try:
        return parse_prompts(text, **options)
    except PromptError as error:
        return error


def check_refused(text: str, line: int, column: int, words: str, **options: Any) -> None:
    """Checks that a text is refused in one line of moderate length, at a place."""
    with pytest.raises(PromptError) as caught:
        parse_prompts(text, "film.txt", **options)
    message = str(caught.value)
    assert message.startswith(f"film.txt:{line}:{column}: ")
    assert (caught.value.line, caught.value.column) == (line, column)
    assert words in message
    assert len(message.splitlines()) == 1
    assert len(message) < 250


# Mostly what the grammar gives a meaning to, so that combinations of marks are met.
_PIECES = st.sampled_from(
    [*"|:-# a1n\u2028", *("\\\\", "\\(", "\\)", "\\[", "\\]"), *("--", "::", "--n")]
)
_PLAIN = st.lists(_PIECES | st.characters(codec="utf-8", exclude_characters="\\()[]\r\n")).map(
    "".join
)


def _bracketed(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(
        _PLAIN
        | texts.map(lambda text: f"({text}x)")
        | texts.map(lambda text: f"[{text}x]")
        | st.tuples(texts, st.sampled_from(["0", "1.3", ".5", " 2. "])).map(
            lambda pair: f"({pair[0]}:{pair[1]})"
        ),
        max_size=3,
    ).map("".join)


TEXTS = st.recursive(_PLAIN, _bracketed, max_leaves=4).map(str.strip).filter(bool)
"""Texts in the form of `Part.text`."""
_WEIGHTS = st.floats(-MAX_WEIGHT, MAX_WEIGHT)
_PARTS = (
    st.lists(st.builds(Part, TEXTS, st.just(1.0) | _WEIGHTS), min_size=1, max_size=4)
    .filter(lambda parts: abs(sum(part.weight for part in parts)) > 2 * MIN_WEIGHT_SUM)
    .map(tuple)
)
_KEY_FRAMES = st.builds(
    KeyFrame,
    st.integers(0, MAX_FRAMES - 1),
    _PARTS,
    negative=st.none() | TEXTS,
    seed=st.none() | st.integers(0, MAX_SEED),
    hold=st.none() | st.floats(0, 1),
    is_cut=st.booleans(),
    ease=st.none() | st.sampled_from(EASES),
)
SEQUENCES = st.lists(
    _KEY_FRAMES, min_size=1, max_size=5, unique_by=lambda key_frame: key_frame.frame
).map(lambda key_frames: tuple(sorted(key_frames, key=lambda key_frame: key_frame.frame)))
