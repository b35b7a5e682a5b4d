"""Text generation, with a tiny GPT-2 and a tokenizer that are made here."""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from giffusion.engine.errors import ModelError
from giffusion.engine.inspiration.key_frames import spaced
from giffusion.engine.prompts import format_prompts, parse_prompts
from giffusion.export.text_generation import clean_prompt, continue_prompts, sampled
from giffusion.server.commands import inspire as command
from giffusion.server.inspire_options import add_inspire_options
from tests.catalogue.slim import edit_json

LINES = [
    "a lighthouse on a cliff, oil painting, stormy sea, highly detailed",
    "a corgi in the snow | watercolour --neg blurry :: (soft light:1.2)",
    "a lion at dawn, golden hour, film grain",
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("text") / "gpt2"
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES * 5, trainer)
    make: Any = PreTrainedTokenizerFast  # without types
    fast = make(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    fast.save_pretrained(folder)
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=len(fast), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.3
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Such a folder to damage."""
    return Path(shutil.copytree(original, tmp_path / "gpt2"))


def test_texts_hang_on_the_seed_alone(original: Path) -> None:
    beginnings = ["ocean, jazz"] * 3
    torch.manual_seed(0)
    texts = continue_prompts(original, beginnings, seed=3)
    torch.manual_seed(1)
    assert continue_prompts(original, beginnings, seed=3) == texts
    assert continue_prompts(original, beginnings[:1], seed=3) == texts[:1]
    assert continue_prompts(original, beginnings, seed=4) != texts
    assert len(set(texts)) == 3
    assert all(text.startswith("ocean, jazz") and len(text) > 20 for text in texts)


def test_the_likeliest_text_is_what_transformers_writes(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by its name: tests of missing extras import the package anew.
    monkeypatch.setattr(sys.modules[continue_prompts.__module__], "TOP_K", 1)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(original)
    model: Any = GPT2LMHeadModel.from_pretrained(original)
    ids = tokenizer("a lion", return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        given = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=48,
            do_sample=False,
            pad_token_id=0,
        )
    theirs = tokenizer.decode(given[0, ids.shape[1] :], skip_special_tokens=True)
    assert continue_prompts(original, ["a lion"], seed=0) == [clean_prompt("a lion", theirs)]


def test_tokens_are_drawn_by_their_shares() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.25])) * 0.9  # the temperature is divided out
    assert [sampled(logits, draw) for draw in (0, 0.49, 0.51, 0.74, 0.76, 0.9999)] == [
        *(0, 0, 1, 1, 2, 2)
    ]
    with pytest.raises(ModelError, match="no finite numbers"):
        sampled(np.array([0.0, np.nan]), 0.5)


@given(st.text(), st.text(st.sampled_from("|:-()[]\\{}#\r\n\x00\u2028 ab1.\ufffd"), max_size=60))
def test_whatever_is_written_is_a_prompt(anything: str, marks: str) -> None:
    for text in (anything, marks):
        prompt = clean_prompt("a lion", text)
        assert prompt.startswith("a lion")
        key_frames = spaced([prompt, prompt], 24)
        assert parse_prompts(format_prompts(key_frames)) == key_frames


def test_only_the_first_line_is_taken() -> None:
    assert clean_prompt("a lion", " at dawn, \nand more") == "a lion at dawn"
    assert clean_prompt("a lion", "\nand more") == "a lion"
    long = clean_prompt("a lion", " | x" * 1000)
    assert len(long) <= 1000
    assert long.endswith("| x")


def inspired(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    add_inspire_options(parser)
    command.run(parser.parse_args(words))
    return capsys.readouterr().out


def test_inspire_writes_on(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ("--generator", str(original), "--key-frames", "3")
    text = inspired(capsys, "ocean, jazz", *line)
    key_frames = parse_prompts(text)
    assert [key_frame.frame for key_frame in key_frames] == [0, 24, 48]
    assert all(key_frame.parts[0].text.startswith("ocean, jazz") for key_frame in key_frames)
    assert parse_prompts(inspired(capsys, "ocean, jazz", *line, "--json")) == key_frames
    alone = parse_prompts(inspired(capsys, *line))
    assert len({key_frame.parts[0].text for key_frame in alone}) == 3


@pytest.mark.parametrize("typed", ["", "y\n" * 9], ids=["silent", "yes"])
def test_code_in_the_folder_is_never_run(
    typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = folder / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nEvil = dict\n")
    # transformers would ask there whether the code may be run.
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    edit_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
        tokenizer_class="Evil",
    )
    assert len(continue_prompts(folder, ["a lion"], seed=0)) == 1
    edit_json(
        folder / "config.json",
        auto_map={"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
        model_type="evil",
    )
    for name in ("config.json", "tokenizer_config.json"):
        with pytest.raises(ModelError, match="has code of its own, which is not run") as caught:
            continue_prompts(folder, ["a lion"], seed=0)
        assert not marker.exists()
        assert "\n" not in str(caught.value)
        edit_json(folder / name, auto_map={})


def test_code_of_a_repository_is_not_asked_for(original: Path, folder: Path) -> None:
    edit_json(folder / "config.json", attn_implementation="evil/kernels")
    assert continue_prompts(folder, ["a lion"], seed=0) == continue_prompts(
        original, ["a lion"], seed=0
    )


def test_what_is_no_such_checkpoint(folder: Path) -> None:
    def refused(words: str, beginning: str = "a lion") -> None:
        with pytest.raises(ModelError, match=words) as caught:
            continue_prompts(folder, [beginning], seed=0)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)

    refused("reads 64 tokens and the topics have", "a lion " * 60)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    refused("has missing weights, such as transformer.h.2")
    (folder / "config.json").write_text(json.dumps(config | {"n_layer": 1}))
    refused("has unexpected weights, such as transformer.h.1")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bananas"}))
    refused("cannot be used: .*bananas")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "clip"}))
    refused("cannot be used")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    refused("cannot be used")
    (folder / "model.safetensors").write_bytes(b"none")
    refused("cannot be used")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    refused("is a pickle, which may run commands: expected safetensors; make them by")
    (folder / "pytorch_model.bin").unlink()
    refused("has no weights")
    (folder / "config.json").unlink()
    refused("config.json is missing: expected a transformers folder of a text-generation model")
