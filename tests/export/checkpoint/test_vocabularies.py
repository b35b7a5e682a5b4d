"""CLIP's tokenizer as transformers makes it of the same files: the same ids at the same places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from giffusion.engine.conditions.tokenizer import PromptTokenizer
from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import Vocabulary
from giffusion.export.checkpoint.vocabularies import clip_vocabulary, openai_vocabulary

PADS = ["<|endoftext|>", "!"]
PROMPTS = [
    "",
    " ",
    "a photograph of an astronaut riding a horse",
    "A  PHOTO\tof\na Corgi ",
    "it's they've I'm we'll don't I'd you're 'sup",
    "in 1984, 42 dogs & 3.14 cats!",
    "wow!!! ?!.,;:--- ((best quality)), [worst], {x|y}",
    "naïve café, Ångström, ÉCOLE, e\u0301cole, ﬁne, ǅ, İstanbul, ẞ",
    "犬が月の上にいる, собака, الكلب, कुत्ता, 개",
    "a 🐕 on the 🌕, 👩‍🚀 👍🏽 🇫🇷",
    "zero\u200bwidth no\u00a0break \u3000wide \u2028line",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "<|endoftext|> and <|startoftext|> in <|ENDOFTEXT|> text</w>",
    "½ Ⅷ ² ①",
    "\x00\x07 \ufffd",
    "word " * 100,
]


@cache
def vocabulary(pad_token: str) -> Vocabulary:
    return openai_vocabulary(pad_token)


@cache
def ours(pad_token: str) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(vocabulary(pad_token).tokenizer))


@cache
def theirs(pad_token: str) -> Any:
    model = vocabulary(pad_token).tokenizer["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    kind: Any = CLIPTokenizer
    return kind(vocab=dict(model["vocab"]), merges=merges, pad_token=pad_token)


def assert_same(prompt: str, pad_token: str) -> None:
    encoding = ours(pad_token).encode(prompt)
    expected = theirs(pad_token)(prompt, return_offsets_mapping=True)
    assert encoding.ids == expected["input_ids"]
    assert encoding.offsets == expected["offset_mapping"]


@pytest.mark.parametrize("pad_token", PADS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids_and_offsets_are_those_of_transformers(prompt: str, pad_token: str) -> None:
    assert_same(prompt, pad_token)


@given(st.text(max_size=40), st.sampled_from(PADS))
def test_ids_of_any_text_are_those_of_transformers(prompt: str, pad_token: str) -> None:
    assert_same(prompt, pad_token)


def test_ids_are_those_that_stable_diffusion_was_trained_on() -> None:
    # As published with CLIP: "a photo of a cat".
    assert ours("!").encode("a photo of a cat").ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert len(vocabulary("!").tokenizer["model"]["vocab"]) == 49408


def test_a_pad_token_in_a_prompt_is_that_token() -> None:
    assert ours("!").encode("cat!").ids[2] == 0
    assert ours("<|endoftext|>").encode("cat!").ids[2] == 256


@pytest.mark.parametrize("pad_token", PADS)
def test_the_engine_reads_it(pad_token: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(vocabulary(pad_token).tokenizer))
    pad_id = vocabulary(pad_token).tokenizer["model"]["vocab"][pad_token]
    tokenizer = PromptTokenizer(path, num_tokens=77, pad_token_id=pad_id)
    for prompt in PROMPTS:
        expected = theirs(pad_token)(
            prompt, padding="max_length", truncation=True, max_length=77
        ).input_ids
        assert tokenizer.encode(prompt).tolist() == expected
    ids, weights = tokenizer.encode_weighted("a (red:1.5) house")
    assert ids[:5].tolist() == [49406, 320, 736, 1212, 49407]
    assert weights[:5].tolist() == [1.0, 1.0, 1.5, 1.0, 1.0]


@pytest.mark.parametrize("pad_token", PADS)
def test_transformers_loads_it(pad_token: str, tmp_path: Path) -> None:
    made = vocabulary(pad_token)
    (tmp_path / "tokenizer.json").write_text(json.dumps(made.tokenizer))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(made.config))
    kind: Any = CLIPTokenizer
    loaded = kind.from_pretrained(tmp_path)
    assert (loaded.pad_token, loaded.model_max_length) == (pad_token, 77)
    for prompt in PROMPTS:
        assert loaded(prompt).input_ids == theirs(pad_token)(prompt).input_ids


@pytest.mark.parametrize("pad_token", PADS)
@pytest.mark.parametrize("lists_added", [False, True])
def test_a_folder_of_vocab_and_merges_as_transformers_reads_it(
    pad_token: str, lists_added: bool, tmp_path: Path
) -> None:
    model = vocabulary("!").tokenizer["model"]
    merges = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    begin, end = (
        {"content": token, "normalized": True, **flags}
        for token in ("<|startoftext|>", "<|endoftext|>")
    )
    config: dict[str, Any] = {
        "bos_token": {"__type": "AddedToken", **begin},
        "eos_token": {"__type": "AddedToken", **end},
        "unk_token": {"__type": "AddedToken", **end},
        "pad_token": pad_token,
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
    }
    if lists_added:
        moon = {"content": "<moon>", "normalized": True, **flags}
        config["added_tokens_decoder"] = {
            "49406": begin | {"special": True},
            "49407": end | {"special": True},
            "49408": moon | {"special": False},
        }
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(merges))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    kind: Any = CLIPTokenizer
    theirs_json = json.loads(kind.from_pretrained(tmp_path).backend_tokenizer.to_str())
    assert clip_vocabulary(model["vocab"], merges, config).tokenizer == theirs_json


SMALL = {"a": 0, "b": 1, "a</w>": 2, "b</w>": 3, "ab</w>": 4, "[": 5, "]": 6, "PAD": 7}
TOKENS: Mapping[str, Any] = {
    "bos_token": {"content": "[", "__type": "AddedToken", "lstrip": False},
    "eos_token": "]",
    "unk_token": "]",
    "pad_token": "PAD",
}


def test_files_of_a_checkpoint() -> None:
    made = clip_vocabulary(SMALL, ["#version: 0.2", "a b</w>", ""], TOKENS)
    tokenizer = Tokenizer.from_str(json.dumps(made.tokenizer))
    assert tokenizer.encode("AB ba").ids == [5, 4, 1, 2, 6]
    assert made.config["pad_token"] == "PAD"
    assert made.config["tokenizer_class"] == "CLIPTokenizer"


def test_added_tokens_of_a_checkpoint() -> None:
    added = {"8": {"content": "<moon>", "special": False, "normalized": True}}
    config = {**TOKENS, "added_tokens_decoder": added}
    made = clip_vocabulary(SMALL, ["a b</w>"], config)
    tokenizer = Tokenizer.from_str(json.dumps(made.tokenizer))
    assert tokenizer.encode("ab <moon> ab").ids == [5, 4, 8, 4, 6]


@pytest.mark.parametrize(
    ("vocab", "merges", "config", "message"),
    [
        (SMALL, ["a x"], {}, r"merge 'a x' is not of two tokens that make a third"),
        (SMALL, ["a b"], {}, r"merge 'a b' is not of two tokens that make a third"),
        (SMALL, ["a b c"], {}, r"merge 'a b c' is not"),
        (SMALL, ["#version: 0.2", "#version: 0.2"], {}, r"merge '#version: 0\.2' is not"),
        (SMALL, [], {"pad_token": "<pad>"}, r"lacks its special token '<pad>'"),
        (SMALL, [], {"pad_token": 7}, r"pad_token is 7: expected a token"),
        (SMALL, [], {"bos_token": {"text": "["}}, r"bos_token is .*: expected a token"),
        (SMALL, [], {"bos_token": None}, r"lacks its special token '<\|startoftext\|>'"),
        (SMALL | {"c": -1}, [], {}, r"has the id -1 for 'c'"),
        (SMALL | {"c": True}, [], {}, r"has the id True for 'c'"),
        (SMALL | {"c": "8"}, [], {}, r"has the id '8' for 'c'"),
        (SMALL, [], {"added_tokens_decoder": {"9": {"content": "<x>"}}}, r"the id 9: expected 8"),
        (SMALL, [], {"added_tokens_decoder": {"1": {"content": "a"}}}, r"has the id 1: expected 0"),
        (SMALL, [], {"added_tokens_decoder": {"x": {"content": "a"}}}, r"is malformed"),
        (SMALL, [], {"added_tokens_decoder": {"8": "<x>"}}, r"is malformed"),
        (SMALL, [], {"added_tokens_decoder": ["<x>"]}, r"is malformed"),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together_are_refused(
    vocab: Mapping[str, Any], merges: list[str], config: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        clip_vocabulary(vocab, merges, {**TOKENS, **config})
    assert "\n" not in str(caught.value)
