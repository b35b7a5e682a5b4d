"""Prompts written on by a text-generation checkpoint: a transformers folder such as GPT-2's.

`giffusion inspire --generator` calls it. The invariant: nothing is fetched, nothing in the folder
is run, weights are safetensors that fill the whole network, and a text hangs on the checkpoint, its
beginning and the seed alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from giffusion.engine.errors import ModelError, one_line
from giffusion.engine.inspiration.choice import Chooser
from giffusion.export.checkpoint.json_files import read_json
from giffusion.export.pickles.convert import PICKLE_SUFFIXES

MAX_NEW_TOKENS = 48
"""Tokens that are written on; text encoders of Stable Diffusion read 77."""
MAX_LENGTH = 1000
"""Characters of a prompt; what is longer ends at a word before."""
TOP_K = 50
TEMPERATURE = 0.9
_FOLDER = "a transformers folder of a text-generation model, such as GPT-2's"
_LIMITS = ("n_positions", "max_position_embeddings", "n_ctx")
_LOOSE_ENDS = " \t,;:.-–—|"
_Logits = NDArray[np.float64]


def continue_prompts(folder: Path, beginnings: Sequence[str], *, seed: int) -> list[str]:
    """Writes texts on, each to the end of its line.

    Args:
        folder: the checkpoint: `config.json`, a tokenizer and safetensors.
        beginnings: what the texts begin with, one or more; equal ones are continued differently.
        seed: of all choices.

    Returns:
        One text of one line for each beginning: plain, not empty and without white space at its
        ends.

    Raises:
        ModelError: the folder is no such checkpoint, or a beginning is longer than it reads.
    """
    _check_folder(folder)
    with _quiet(), _in_one_line(folder):
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        model = _load(folder)
    chooser = Chooser(seed)
    prompts = []
    for index, beginning in enumerate(beginnings):
        ids = _token_ids(folder, model, tokenizer, beginning)
        draws = (chooser.share("token", index, place) for place in range(MAX_NEW_TOKENS))
        with _in_one_line(folder):
            text = str(tokenizer.decode(_written_on(model, tokenizer, ids, draws)))
        prompts.append(clean_prompt(beginning, text))
    return prompts


def clean_prompt(beginning: str, text: str) -> str:
    """Joins a beginning with the first line of what follows, as a plain prompt.

    Args:
        beginning: not empty, of one line.
        text: anything.
    """
    line = text.split("\n", 1)[0]
    plain = "".join(c if _is_text(c) else " " for c in beginning + line)
    words = " ".join(plain.split())
    if len(words) > MAX_LENGTH:
        words = words[:MAX_LENGTH].rpartition(" ")[0] or words[:MAX_LENGTH]
    return words.rstrip(_LOOSE_ENDS) or beginning


def _is_text(character: str) -> bool:
    # The replacement character stands for bytes that were no text.
    return unicodedata.category(character) not in ("Cc", "Cs", "Co", "Cn") and character != "\ufffd"


def _check_folder(folder: Path) -> None:
    read_json(folder / "config.json", _FOLDER)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        output = folder / "model.safetensors"
        raise ModelError(
            f"{pickles[0]} is a pickle, which may run commands: expected safetensors; make "
            f"them by `giffusion convert {quote(str(pickles[0]))} -o {quote(str(output))}`"
        )
    raise ModelError(f"{folder} has no weights: expected {_FOLDER}, with model.safetensors")


def _load(folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        # The configuration may name another, and with it a repository of code.
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    model, info = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := sorted(map(str, info.get(kind, ()))):
            what = kind.removesuffix("_keys")
            raise ModelError(f"{folder} has {what} weights, such as {names[0]}: expected {_FOLDER}")
    return model.eval()


def _token_ids(folder: Path, model: Any, tokenizer: Any, beginning: str) -> list[int]:
    ids: list[int] = tokenizer(beginning)["input_ids"]
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else 0
    ids = ids or [start]
    limit = _limit(model)
    if len(ids) >= limit:
        raise ModelError(
            f"{folder} reads {limit} tokens and the topics have {len(ids)}: give fewer or shorter"
        )
    if max(ids) >= model.config.vocab_size:
        raise ModelError(
            f"{folder} has a tokenizer of more tokens than its model's {model.config.vocab_size}: "
            f"expected {_FOLDER}"
        )
    return ids


def _limit(model: Any) -> int:
    found = (getattr(model.config, name, None) for name in _LIMITS)
    return next((limit for limit in found if isinstance(limit, int)), 1024)


@torch.inference_mode()
def _written_on(model: Any, tokenizer: Any, ids: list[int], draws: Iterator[float]) -> list[int]:
    """Returns the ids that follow some ids, to the end of a line or of the text."""
    written: list[int] = []
    past, given = None, ids
    room = _limit(model) - len(ids)
    for _, draw in zip(range(room), draws, strict=False):
        output = model(input_ids=torch.tensor([given]), past_key_values=past, use_cache=True)
        past = output.past_key_values
        logits = output.logits[0, -1, : len(tokenizer)].double().numpy()
        token = sampled(logits, draw)
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
        if "\n" in tokenizer.decode(written):
            break
        given = [token]
    return written


def sampled(logits: _Logits, draw: float) -> int:
    """Chooses one of the `TOP_K` likeliest tokens.

    Args:
        logits: (V,) unnormalised log-probabilities.
        draw: where in their distribution, from 0 to below 1.

    Raises:
        ModelError: a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise ModelError("it computes no finite numbers: its weights are damaged")
    # A stable sort: of equal logits the first token stands first on every machine.
    best = np.argsort(-logits, kind="stable")[:TOP_K]
    shares = np.exp((logits[best] - logits[best[0]]) / TEMPERATURE)
    sums = np.cumsum(shares)
    return int(best[min(int(np.searchsorted(sums, draw * sums[-1], "right")), len(best) - 1)])


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets transformers say errors alone, and show no bars."""
    logging: Any = transformers_logging  # part of it is without types
    before = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _in_one_line(folder: Path) -> Iterator[None]:
    """Says in a line what a library says of a folder that it does not understand."""
    try:
        yield
    except ModelError as error:
        text = str(error)
        raise ModelError(text if str(folder) in text else f"{folder}: {text}") from None
    except Exception as error:  # transformers, tokenizers and safetensors raise all kinds
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{folder} has code of its own, which is not run: expected {_FOLDER}, with a "
                "network and a tokenizer that transformers knows by itself"
            ) from error
        reason = one_line(error)[:300]
        raise ModelError(f"{folder} cannot be used: {reason}; expected {_FOLDER}") from error
