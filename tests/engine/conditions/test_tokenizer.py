"""Prompts to ids as transformers gives them, and what is said of the end that does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from giffusion.engine.conditions.emphasis import EmphasisError
from giffusion.engine.conditions.tokenizer import PromptTokenizer
from giffusion.engine.errors import ModelError
from giffusion.engine.model import load_model
from giffusion.models import find_model

MODEL = load_model(find_model("mini"))
PATH = MODEL.folder / "tokenizer" / "tokenizer.json"
NUM_TOKENS = 24
BEGIN, END = 0, 1
PLAIN = Tokenizer.from_file(str(PATH))
LONG = (
    "a corgi and a lion, running through the fresh snow in the mountains at dawn with a red scarf "
    "and a blue hat"
)

PROMPTS = [
    "",
    " ",
    "a corgi",
    "A Corgi, IN THE SNOW!",
    "  two  spaces   and\ttabs ",
    "trending on artstation, 8k, (masterpiece:1.2)",
    "écran à l’été, naïve façade",
    "日本語の猫と犬が雪の中で遊ぶ、とても綺麗な写真",
    "🐕‍🦺🐕‍🦺🐕‍🦺 dogs 🐈",
    "مرحبا بالعالم",
    "a </s> in the text, and <s>",
    "e\u0301 combined",
    "null\x00 and bell\x07",
    LONG,
    LONG * 40,
    "word " * 22,
    "ab" * 500,
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
words = st.lists(st.sampled_from(LONG.split()), max_size=40).map(" ".join)


def open_tokenizer(num_tokens: int = NUM_TOKENS, pad_token_id: int = END) -> PromptTokenizer:
    return PromptTokenizer(PATH, num_tokens=num_tokens, pad_token_id=pad_token_id)


@pytest.fixture(scope="module")
def reference() -> Callable[[str], list[int]]:
    """The model's folder as transformers reads it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(PATH.parent, local_files_only=True)

    def encode(prompt: str) -> list[int]:
        ids: list[int] = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=NUM_TOKENS
        )["input_ids"]
        return ids

    return encode


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_are_those_of_transformers(prompt: str, reference: Callable[[str], list[int]]) -> None:
    assert MODEL.tokenizer.encode(prompt).tolist() == reference(prompt)


@given(prompt=text | words)
def test_ids_of_any_text_are_those_of_transformers(
    prompt: str, reference: Callable[[str], list[int]]
) -> None:
    ids = MODEL.tokenizer.encode(prompt)
    assert ids.shape == (NUM_TOKENS,)
    assert ids.dtype == np.int32
    assert ids.tolist() == reference(prompt)


@given(prompt=text, num_tokens=st.integers(2, 40), pad_token_id=st.integers(0, 4095))
def test_a_row_is_begin_text_end_and_padding(
    prompt: str, num_tokens: int, pad_token_id: int
) -> None:
    plain = PLAIN.encode(prompt, add_special_tokens=False).ids
    ids = open_tokenizer(num_tokens, pad_token_id).encode(prompt).tolist()
    kept = plain[: num_tokens - 2]
    assert ids == [BEGIN, *kept, END, *[pad_token_id] * (num_tokens - 2 - len(kept))]


# What brackets do to a text is for the tests of weights.
without_marks = text.map(lambda prompt: re.sub(r"[()\[\]\\]", "", prompt)) | words


@given(prompt=without_marks, num_tokens=st.integers(2, 40))
def test_what_is_cut_is_the_tail_and_nothing_is_lost_between(prompt: str, num_tokens: int) -> None:
    tokenizer = open_tokenizer(num_tokens)
    cut = tokenizer.cut(prompt)
    encoding = PLAIN.encode(prompt, add_special_tokens=False)
    if len(encoding.ids) <= num_tokens - 2:
        assert cut is None
        return
    assert cut is not None
    assert cut == cut.strip()
    assert prompt.rstrip().endswith(cut)
    end_of_kept = max((end for _, end in encoding.offsets[: num_tokens - 2]), default=0)
    start_of_cut = len(prompt.rstrip()) - len(cut)
    between = prompt[end_of_kept:start_of_cut]
    assert not between.strip(), "neither kept nor reported"
    # A character of several tokens may be split: then it is reported whole.
    assert len(prompt[start_of_cut:end_of_kept].strip()) <= 1


def test_the_end_of_a_long_prompt() -> None:
    assert MODEL.tokenizer.cut(LONG) == "scarf and a blue hat"
    assert MODEL.tokenizer.cut(LONG.removesuffix(" scarf and a blue hat")) is None
    assert MODEL.tokenizer.cut("") is None
    kept = LONG.removesuffix("scarf and a blue hat")
    np.testing.assert_array_equal(MODEL.tokenizer.encode(kept), MODEL.tokenizer.encode(LONG))


def test_marks_change_no_id() -> None:
    ids, weights = MODEL.tokenizer.encode_weighted("a (red:1.5) house, [(fog)] \\(x\\)")
    plain = "a red house, fog (x)"
    assert ids.tolist() == MODEL.tokenizer.encode(plain).tolist()
    assert ids.dtype == np.int32
    assert weights.dtype == np.float32
    assert weights.shape == (NUM_TOKENS,)
    spans = PLAIN.encode(plain).offsets
    red = [i for i, (begin, end) in enumerate(spans) if plain[begin:end].strip() in ("red", "re")]
    assert [weights[i] for i in red] == [np.float32(1.5)] * len(red) != []
    fog = 1.1 * (1 / 1.1)
    assert set(weights.tolist()) == {1.0, 1.5, float(np.float32(fog))}


def test_a_token_weighs_the_mean_of_its_letters() -> None:
    """A space before a word, which the tokenizer counts as the word's own, does not count."""
    plain = "a running dog"
    encoding = PLAIN.encode(plain)
    (token,) = (i for i, (b, e) in enumerate(encoding.offsets) if plain[b:e] == " running")
    for prompt, expected in [
        ("a (running:1.5) dog", 1.5),
        ("a (run:1.7)ning dog", (3 * 1.7 + 4) / 7),
        ("(a :3)running dog", 1.0),
    ]:
        ids, weights = MODEL.tokenizer.encode_weighted(prompt)
        assert ids.tolist() == MODEL.tokenizer.encode(plain).tolist()
        assert weights[token] == pytest.approx(expected, rel=1e-6)


def test_begin_end_and_padding_weigh_one() -> None:
    ids, weights = MODEL.tokenizer.encode_weighted("(a dog:2)")
    num_text = len(PLAIN.encode("a dog", add_special_tokens=False).ids)
    assert ids[0] == BEGIN
    assert weights.tolist() == [1, *[2] * num_text, *[1] * (NUM_TOKENS - num_text - 1)]
    _, weights = MODEL.tokenizer.encode_weighted(f"({LONG * 3}:2)")
    assert weights.tolist() == [1, *[2] * (NUM_TOKENS - 2), 1]


@given(prompt=text | words, num_tokens=st.integers(2, 40))
def test_an_escaped_prompt_is_the_prompt(prompt: str, num_tokens: int) -> None:
    tokenizer = open_tokenizer(num_tokens)
    escaped = re.sub(r"[()\[\]\\]", r"\\\g<0>", prompt)
    ids, weights = tokenizer.encode_weighted(escaped)
    assert ids.tolist() == tokenizer.encode(prompt).tolist()
    assert (weights == 1).all()


def test_what_is_cut_has_no_marks() -> None:
    marked = LONG.replace("scarf", "(scarf:1.3)").replace("blue", "[blue]").replace("hat", "\\(hat")
    assert MODEL.tokenizer.cut(marked) == "scarf and a blue (hat"
    with pytest.raises(EmphasisError):
        MODEL.tokenizer.cut("a (b")


def test_a_tokenizers_own_padding_and_truncation_are_off(tmp_path: Path) -> None:
    """Files often come with the settings of their last use."""
    own = Tokenizer.from_file(str(PATH))
    own.enable_truncation(5)
    own.enable_padding(length=77, pad_id=9)
    path = tmp_path / "tokenizer.json"
    own.save(str(path))
    tokenizer = PromptTokenizer(path, num_tokens=NUM_TOKENS, pad_token_id=END)
    np.testing.assert_array_equal(tokenizer.encode("a dog"), MODEL.tokenizer.encode("a dog"))
    assert tokenizer.cut(LONG) == MODEL.tokenizer.cut(LONG)


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError) as caught:
        PromptTokenizer(path, num_tokens=NUM_TOKENS, pad_token_id=END)
    assert str(caught.value) == f"{path} is missing: expected the tokenizer in tokenizer.json form"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}}}).encode(),
        PATH.read_bytes()[:5000],
    ],
)
def test_a_malformed_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        PromptTokenizer(path, num_tokens=NUM_TOKENS, pad_token_id=END)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a tokenizer: ")
    assert len(message.splitlines()) == 1


def test_spaces_that_are_cut_are_nothing_lost() -> None:
    tokenizer = PromptTokenizer(PATH, num_tokens=NUM_TOKENS, pad_token_id=END)
    assert tokenizer.cut("a" + " a" * (NUM_TOKENS - 3) + "  ") is None


def with_tokens(folder: Path, *names: str) -> Path:
    """The bundled tokenizer with added tokens, as a textual inversion brings them."""
    own = Tokenizer.from_file(str(PATH))
    own.add_tokens([AddedToken(name, normalized=False) for name in names])
    path = folder / "tokenizer.json"
    own.save(str(path))
    return path


def open_with(path: Path, vectors: dict[str, int], num_tokens: int = NUM_TOKENS) -> PromptTokenizer:
    return PromptTokenizer(path, num_tokens=num_tokens, pad_token_id=END, token_vectors=vectors)


def test_a_token_of_several_vectors_becomes_all_of_them(tmp_path: Path) -> None:
    path = with_tokens(tmp_path, "<fur>", "<fur>_1", "<fur>_2", "<one>")
    tokenizer = open_with(path, {"<fur>": 3})
    first = MODEL.tokenizer.encode("")  # begin and end
    ids = tokenizer.encode("<fur>").tolist()
    added = [PLAIN.get_vocab_size() + i for i in range(3)]
    assert ids == [BEGIN, *added, *first[1 : NUM_TOKENS - 3].tolist()]
    assert tokenizer.encode("a <fur> <one>").tolist().count(added[0] + 3) == 1
    plain = tokenizer.encode("a dog").tolist()
    assert plain == MODEL.tokenizer.encode("a dog").tolist()
    twice = tokenizer.encode("<fur> <fur>").tolist()
    assert [token for token in twice if token in added] == added * 2


def test_vectors_weigh_what_their_token_weighs(tmp_path: Path) -> None:
    path = with_tokens(tmp_path, "<fur>", "<fur>_1")
    ids, weights = open_with(path, {"<fur>": 2}).encode_weighted("a (<fur>:1.5) dog")
    added = PLAIN.get_vocab_size()
    assert ids.tolist() == open_with(path, {"<fur>": 2}).encode("a <fur> dog").tolist()
    assert [weights[ids.tolist().index(token)] for token in (added, added + 1)] == [1.5, 1.5]
    assert sorted(set(weights.tolist())) == [1.0, 1.5]


def test_a_row_may_end_within_a_tokens_vectors(tmp_path: Path) -> None:
    names = ["<fur>", *(f"<fur>_{i}" for i in range(1, 8))]
    path = with_tokens(tmp_path, *names)
    tokenizer = open_with(path, {"<fur>": 8}, num_tokens=6)
    added = PLAIN.get_vocab_size()
    expected = [BEGIN, *range(added, added + 4), END]
    assert tokenizer.encode("<fur> by the sea").tolist() == expected
    assert tokenizer.cut("<fur> by the sea") == "<fur> by the sea"
    fits = open_with(path, {"<fur>": 8}, num_tokens=10)
    assert fits.cut("<fur>") is None
    assert fits.cut("<fur> by the sea") == "by the sea"


def test_vectors_that_the_tokenizer_lacks_are_refused(tmp_path: Path) -> None:
    path = with_tokens(tmp_path, "<fur>", "<fur>_1")
    with pytest.raises(ModelError) as caught:
        open_with(path, {"<fur>": 3})
    assert str(caught.value) == (f"{path} has 2 of the 3 tokens of '<fur>': export the model again")
    with pytest.raises(ModelError, match="has 0 of the 2 tokens of '<hair>'"):
        open_with(path, {"<hair>": 2})
