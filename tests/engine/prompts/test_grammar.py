"""The grammar's page: each example means what the page says, each wrong one ends in its error."""

from __future__ import annotations

import pytest

from giffusion.engine.conditions.emphasis import parse_emphasis
from giffusion.engine.errors import PromptError
from giffusion.engine.prompts import KeyFrame, format_prompts, parse_prompts
from tests.pages import blocks

BLOCKS = [(block.kind, block.text) for block in blocks("grammar.md")]
ANSWERS = {
    "prompts": ("means", "texts"),
    "weights": ("fragments",),
    "wrong": ("error",),
}
PAIRS = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))


def read(text: str) -> tuple[KeyFrame, ...]:
    return parse_prompts(text, num_frames=101)


def answer(kind: str, kind_of_answer: str, text: str) -> str:
    if kind == "wrong":
        with pytest.raises(PromptError) as caught:
            read(text)
        return str(caught.value)
    if kind == "weights":
        fragments = parse_emphasis(text.rstrip("\n"))
        return "\n".join(f'{f.weight:.4g} × "{f.text}"' for f in fragments)
    key_frames = read(text)
    if kind_of_answer == "texts":
        return "\n".join(part.text for key_frame in key_frames for part in key_frame.parts)
    return format_prompts(key_frames).rstrip("\n")


def test_every_example_has_an_answer() -> None:
    assert len(PAIRS) > 15
    for (kind, _), (kind_of_answer, _) in PAIRS:
        assert kind_of_answer in ANSWERS[kind]
    assert {kind for (kind, _), _ in PAIRS} == ANSWERS.keys()


@pytest.mark.parametrize(("example", "expected"), PAIRS)
def test_examples(example: tuple[str, str], expected: tuple[str, str]) -> None:
    assert answer(example[0], expected[0], example[1]) == expected[1].rstrip("\n")
