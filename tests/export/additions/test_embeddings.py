from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from giffusion.engine.conditions.tokenizer import PromptTokenizer
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.export.additions.embeddings import TABLE, add_embedding, parse_embedding
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part, Vocabulary
from giffusion.export.checkpoint.tensors import Computed
from giffusion.export.checkpoint.vocabularies import openai_vocabulary
from tests.export import families
from tests.export.additions.in_memory import checkpoint_of, load

NUM_WORDS = len(families.WORDS)
WIDTHS = {"text_encoder": 32, "text_encoder_2": families.PROMPT_DIM}
TOKENIZERS = {"text_encoder": "tokenizer", "text_encoder_2": "tokenizer_2"}
PROMPT = "a red <Cat> on the <cat>moon <cat>_1"


@cache
def small(family: str) -> Checkpoint:
    return checkpoint_of(families.make(family))


def vectors(num: int, width: int = families.PROMPT_DIM, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.5, (num, width)).astype(np.float32)


def file(folder: Path, tensors: Mapping[str, NDArray[Any]], name: str = "sign") -> Path:
    path = folder / f"{name}.safetensors"
    save_file(dict(tensors), path)
    return path


def sdxl_file(folder: Path, num: int = 2) -> Path:
    of_parts = {"clip_l": vectors(num, 32), "clip_g": vectors(num, families.PROMPT_DIM)}
    return file(folder, of_parts, "<cat>")


def ids(vocabulary: Vocabulary, prompt: str) -> list[int]:
    tokenizer = Tokenizer.from_str(json.dumps(vocabulary.tokenizer))
    numbers: list[int] = tokenizer.encode(prompt).ids
    return numbers


def table(checkpoint: Checkpoint, part: str = "text_encoder") -> NDArray[Any]:
    return checkpoint.parts[part].tensors[TABLE].read()


def refusal(path: Path, token: str | None = None, checkpoint: Checkpoint | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        add_embedding(checkpoint or small("sd1"), path, token)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def with_config(checkpoint: Checkpoint, part: str, **config: Any) -> Checkpoint:
    old = checkpoint.parts[part]
    return replace(
        checkpoint, parts={**checkpoint.parts, part: Part({**old.config, **config}, old.tensors)}
    )


@pytest.mark.parametrize(
    ("tensors", "num", "token"),
    [
        ({"<cat>": vectors(1)[0]}, 1, "<cat>"),
        ({"<cat>": vectors(3)}, 3, "<cat>"),
        ({"emb_params": vectors(2)}, 2, "sign"),
        ({"clip_l": vectors(1)}, 1, "sign"),
    ],
)
def test_vectors_become_rows_behind_those_of_the_known_tokens(
    tensors: dict[str, NDArray[np.float32]], num: int, token: str, tmp_path: Path
) -> None:
    path = file(tmp_path, tensors)
    edited = add_embedding(small("sd1"), path)
    new, old = table(edited), table(small("sd1"))
    (wanted,) = tensors.values()
    np.testing.assert_array_equal(new[NUM_WORDS : NUM_WORDS + num], wanted.reshape(num, -1))
    np.testing.assert_array_equal(new[:NUM_WORDS], old[:NUM_WORDS])
    np.testing.assert_array_equal(new[NUM_WORDS + num :], old[NUM_WORDS + num :])
    vocabulary = edited.vocabularies["tokenizer"]
    names = [token, *(f"{token}_{i}" for i in range(1, num))]
    assert ids(vocabulary, " ".join(names)) == [2, *range(NUM_WORDS, NUM_WORDS + num), 3]
    assert vocabulary.config["token_vectors"] == {token: num}
    assert edited.sources == {f"embedding sign.safetensors:{token}": path}
    assert "token_vectors" not in small("sd1").vocabularies["tokenizer"].config


def test_a_table_without_spare_rows_grows(tmp_path: Path) -> None:
    part = small("sd1").parts["text_encoder"]
    tight = Computed(
        part.tensors[TABLE].dtype, (NUM_WORDS, 48), lambda: part.tensors[TABLE].read()[:NUM_WORDS]
    )
    exact = Part({**part.config, "vocab_size": NUM_WORDS}, {**part.tensors, TABLE: tight})
    checkpoint = replace(small("sd1"), parts={**small("sd1").parts, "text_encoder": exact})
    edited = add_embedding(checkpoint, file(tmp_path, {"<cat>": vectors(3)}))
    assert edited.parts["text_encoder"].config["vocab_size"] == NUM_WORDS + 3
    assert edited.parts["text_encoder"].tensors[TABLE].shape == table(edited).shape
    assert len(table(edited)) == NUM_WORDS + 3
    again = add_embedding(edited, file(tmp_path, {"<dog>": vectors(2, seed=1)}))
    assert len(table(again)) == NUM_WORDS + 5
    assert again.vocabularies["tokenizer"].config["token_vectors"] == {"<cat>": 3, "<dog>": 2}
    np.testing.assert_array_equal(table(again)[-2:], vectors(2, seed=1))


def test_adding_reads_no_table(tmp_path: Path) -> None:
    def fail() -> NDArray[Any]:
        raise AssertionError("read")

    part = small("sd1").parts["text_encoder"]
    unread = Computed(part.tensors[TABLE].dtype, part.tensors[TABLE].shape, fail)
    lazy = Part(part.config, {**part.tensors, TABLE: unread})
    checkpoint = replace(small("sd1"), parts={**small("sd1").parts, "text_encoder": lazy})
    add_embedding(checkpoint, file(tmp_path, {"<cat>": vectors(1)}))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@torch.no_grad()
def test_ids_and_hidden_states_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    """Beside `tokenizer.add_tokens` and an embedding table that was resized and written to."""
    checkpoint, pipeline = small(family), families.make(family)
    tensors = {"<cat>": vectors(2)} if family == "sd1" else {}
    path = file(tmp_path, tensors) if tensors else sdxl_file(tmp_path)
    edited = add_embedding(checkpoint, path)
    for part in [part for part in TOKENIZERS if part in checkpoint.parts]:
        model, tokenizer = getattr(pipeline, part), getattr(pipeline, TOKENIZERS[part])
        assert tokenizer.add_tokens(["<cat>", "<cat>_1"]) == 2
        width = model.config.hidden_size
        rows = torch.from_numpy(vectors(2, width))
        model.get_input_embeddings().weight[NUM_WORDS : NUM_WORDS + 2] = rows
        wanted_ids = tokenizer(PROMPT)["input_ids"]
        assert wanted_ids.count(NUM_WORDS) == 2
        assert ids(edited.vocabularies[TOKENIZERS[part]], PROMPT) == wanted_ids
        fresh = getattr(families.make(family), part)
        load(fresh, edited.parts[part])
        ours, theirs = (
            m(torch.tensor([wanted_ids[:8]]), output_hidden_states=True).hidden_states
            for m in (fresh, model)
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_engines_tokenizer_finds_the_tokens(tmp_path: Path) -> None:
    edited = add_embedding(small("sd1"), file(tmp_path, {"<cat>": vectors(2)}))
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(edited.vocabularies["tokenizer"].tokenizer))
    tokenizer = PromptTokenizer(path, num_tokens=8, pad_token_id=3)
    numbers, weights = tokenizer.encode_weighted("a (<cat> <cat>_1:1.5) dog")
    assert numbers.tolist() == [2, 4, NUM_WORDS, NUM_WORDS + 1, 7, 3, 3, 3]
    assert weights.tolist() == [1, 1, 1.5, 1.5, 1, 1, 1, 1]


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_clips_own_tokenizer_takes_tokens(pad_token: str, tmp_path: Path) -> None:
    vocabulary = openai_vocabulary(pad_token)
    checkpoint = replace(small("sd1"), vocabularies={"tokenizer": vocabulary})
    part = checkpoint.parts["text_encoder"]
    rows = 49_408
    big = Computed(part.tensors[TABLE].dtype, (rows, 48), lambda: np.zeros((rows, 48), np.float32))
    part = Part({**part.config, "eos_token_id": 2}, {**part.tensors, TABLE: big})
    checkpoint = replace(checkpoint, parts={**checkpoint.parts, "text_encoder": part})
    edited = add_embedding(checkpoint, file(tmp_path, {"emb_params": vectors(2)}, "EasyNegative"))
    new = edited.vocabularies["tokenizer"]
    numbers = ids(new, "blurry, easynegative EasyNegative_1 cat")
    assert [number for number in numbers if number >= rows] == [rows, rows + 1]
    assert ids(new, "a photo of a cat") == ids(vocabulary, "a photo of a cat")
    # The legacy 2 makes transformers take the largest id, an added token, for the end.
    assert edited.parts["text_encoder"].config["eos_token_id"] == 49_407
    assert edited.parts["text_encoder"].config["vocab_size"] == rows + 2
    assert "vocabulary already" in refusal(
        file(tmp_path, {"emb_params": vectors(1)}, "Cat"), None, checkpoint
    )


def test_a_listing_in_the_tokenizers_config_goes_on(tmp_path: Path) -> None:
    vocabulary = small("sd1").vocabularies["tokenizer"]
    listed = {**vocabulary.config, "added_tokens_decoder": {"2": {"content": "<s>"}}}
    checkpoint = replace(
        small("sd1"), vocabularies={"tokenizer": Vocabulary(vocabulary.tokenizer, listed)}
    )
    edited = add_embedding(checkpoint, file(tmp_path, {"<cat>": vectors(1)}))
    entries = edited.vocabularies["tokenizer"].config["added_tokens_decoder"]
    assert entries["2"] == {"content": "<s>"}
    assert entries[str(NUM_WORDS)] == {
        "content": "<cat>",
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": True,
        "special": False,
    }


def test_half_precision_tables_stay_so(tmp_path: Path) -> None:
    pipeline = families.make("sd1")
    pipeline.text_encoder.to(torch.float16)
    checkpoint = checkpoint_of(pipeline)
    edited = add_embedding(checkpoint, file(tmp_path, {"<cat>": vectors(1)}))
    assert table(edited).dtype == np.float16
    np.testing.assert_array_equal(table(edited)[NUM_WORDS], vectors(1)[0].astype(np.float16))
    huge = np.full((1, 48), 1e6, np.float32)
    assert "out of the range of FLOAT16" in refusal(
        file(tmp_path, {"<cat>": huge}), None, checkpoint
    )


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"<cat>": vectors(1, 768)}, "768 numbers, as for SD 1, expected 48"),
        ({"<cat>": vectors(1, 1024)}, "as for SD 2"),
        ({"<cat>": vectors(1, 33)}, "33 numbers, expected 48"),
        ({"<cat>": vectors(0)}, "shape"),
        ({"<cat>": vectors(76)}, "1 to 75 vectors"),
        ({"<cat>": vectors(1).reshape(1, 1, 48)}, "shape"),
        ({"<cat>": np.asarray(1, np.float32)}, "shape"),
        ({"<cat>": np.full((1, 48), math.inf, np.float32)}, "not finite"),
        ({"<cat>": np.full((1, 48), math.nan, np.float32)}, "not finite"),
        ({"<cat>": np.ones((1, 48), np.int64)}, "I64"),
        ({"clip_l": vectors(1, 768), "clip_g": vectors(1, 1280)}, "SDXL's two text encoders"),
        ({"<cat>": vectors(1), "<dog>": vectors(1)}, "a checkpoint of 2 tensors"),
        (
            {"a.lora_down.weight": vectors(1), "a.lora_up.weight": vectors(1)},
            "a LoRA, which is added with --lora",
        ),
        ({"a.lora_down.weight": vectors(1)}, "a LoRA"),
        ({}, "an empty file"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tensors: dict[str, NDArray[Any]], says: str, tmp_path: Path
) -> None:
    assert says in refusal(file(tmp_path, tensors))


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"<cat>": vectors(1, 32)}, "vectors for one text encoder (<cat>)"),
        ({"clip_g": vectors(1, 48)}, "vectors for one text encoder (clip_g)"),
        ({"clip_l": vectors(1, 32), "clip_g": vectors(2, 48)}, "1 and 2 vectors"),
        ({"clip_l": vectors(1, 48), "clip_g": vectors(1, 48)}, "expected 32"),
        ({"clip_l": vectors(1, 32), "clip_g": vectors(1, 48), "t5": vectors(1)}, "t5"),
    ],
)
def test_sdxl_takes_vectors_for_both_text_encoders_only(
    tensors: dict[str, NDArray[Any]], says: str, tmp_path: Path
) -> None:
    assert says in refusal(file(tmp_path, tensors), None, small("sdxl"))


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("dog", "vocabulary already"),
        ("DOG", "vocabulary already"),
        ("</s>", "vocabulary already"),
        ("", "cannot be a token"),
        ("my cat", "without blanks"),
        ("my\ncat", "without blanks"),
        ("cat\u3000", "without blanks"),
        ("x" * 101, "1 to 100 characters"),
        ("<s>cat", "other tokens are parts of it"),
    ],
)
def test_tokens_that_prompts_cannot_have_are_refused(token: str, says: str, tmp_path: Path) -> None:
    path = file(tmp_path, {"<cat>": vectors(1)})
    assert says in refusal(path, token)


def test_tokens_are_added_once_and_not_among_those_of_others(tmp_path: Path) -> None:
    path = file(tmp_path, {"<cat>": vectors(2)})
    edited = add_embedding(small("sd1"), path)
    assert "'<cat>'" in refusal(path, None, edited)
    assert "'<Cat>'" in refusal(path, "<Cat>", edited)
    assert "'<cat>_1'" in refusal(path, "<cat>_1", edited)
    assert "'<b>_1'" in refusal(path, "<b>", add_embedding(small("sd1"), path, "<b>_1"))


def test_a_tokenizer_that_does_not_belong_to_the_table_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, {"<cat>": vectors(1)})
    part = small("sd1").parts["text_encoder"]
    short = Computed(part.tensors[TABLE].dtype, (5, 48), lambda: vectors(5))
    short_part = Part(part.config, {**part.tensors, TABLE: short})
    checkpoint = replace(small("sd1"), parts={**small("sd1").parts, "text_encoder": short_part})
    assert "next id is 11" in refusal(path, None, checkpoint)
    for tokenizer in ({}, {"model": 3}):
        broken = {"tokenizer": Vocabulary(tokenizer, {})}
        with pytest.raises(ModelError, match=r"tokenizer\.json is malformed"):
            add_embedding(replace(small("sd1"), vocabularies=broken), path)
    good = dict(small("sd1").vocabularies["tokenizer"].tokenizer)
    gap = {**good, "model": {**good["model"], "vocab": {**good["model"]["vocab"], "far": 30}}}
    with pytest.raises(ModelError, match="without gaps"):
        add_embedding(replace(small("sd1"), vocabularies={"tokenizer": Vocabulary(gap, {})}), path)


def test_the_end_token_is_corrected_only_where_it_is_the_legacy_one(tmp_path: Path) -> None:
    path = file(tmp_path, {"<cat>": vectors(1)})
    for given_id, wanted in ((2, 3), (3, 3), (7, 7)):
        checkpoint = with_config(small("sd1"), "text_encoder", eos_token_id=given_id)
        edited = add_embedding(checkpoint, path)
        assert edited.parts["text_encoder"].config["eos_token_id"] == wanted


def test_missing_files_are_refused(tmp_path: Path) -> None:
    assert "missing" in refusal(tmp_path / "none.safetensors")
    assert "not a safetensors file" in refusal(tmp_path / ("x" * 300))
    damaged = tmp_path / "a.safetensors"
    damaged.write_bytes(b'\x09\0\0\0\0\0\0\0{"a":[}')
    assert "not a safetensors file" in refusal(damaged)


@pytest.mark.parametrize(
    ("text", "path", "token"),
    [
        ("a.safetensors", "a.safetensors", None),
        ("a.safetensors:<cat>", "a.safetensors", "<cat>"),
        ("C:\\a.safetensors", "C:\\a.safetensors", None),
        ("C:\\a.safetensors:cat", "C:\\a.safetensors", "cat"),
        ("d:1/a.safetensors", "d:1/a.safetensors", None),
    ],
)
def test_options_split_at_the_last_colon(text: str, path: str, token: str | None) -> None:
    assert parse_embedding(text) == (Path(path), token)


def test_options_that_are_a_file_are_not_split(tmp_path: Path) -> None:
    path = tmp_path / "odd:name"
    assert parse_embedding(str(path)) == (tmp_path / "odd", "name")
    path.touch()
    assert parse_embedding(str(path)) == (path, None)


@pytest.mark.parametrize("text", ["", "  ", ":cat", "a:", "a: "])
def test_options_without_a_file_or_a_token_are_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_embedding(text)
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(codec="utf-8")))
def test_any_option_is_split_or_refused(text: str) -> None:
    message = ""
    try:
        parse_embedding(text)
    except SettingsError as error:
        message = str(error)
    assert "\n" not in message
