"""Embeddings of prompts: weights of words scale their tokens, and the mean is restored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.conditions.embedder import PromptEmbedder, weigh_tokens
from giffusion.engine.model import Model
from tests.conftest import OpenCpu


@pytest.fixture(scope="module")
def embedder(mini: Model, open_cpu: OpenCpu) -> Iterator[PromptEmbedder]:
    embedder = PromptEmbedder(mini, open_cpu("onnxruntime", "fp32"))
    yield embedder
    embedder.close()


def test_marks_that_weigh_nothing_change_no_bit(embedder: PromptEmbedder) -> None:
    plain = embedder.embed("a red house, fog")
    for marked in ("(a:1) red house, fog", "a ((red:2):0.5) house, fog", "a red house, fog()"):
        np.testing.assert_array_equal(embedder.embed(marked), plain)


def test_escaped_brackets_are_text(embedder: PromptEmbedder) -> None:
    marked = embedder.embed(r"a \(red\) house")
    assert not np.array_equal(marked, embedder.embed("a red house"))
    assert not np.array_equal(marked, embedder.embed("a (red) house"))


def test_a_weighted_word_is_scaled_and_the_mean_restored(
    embedder: PromptEmbedder, mini: Model
) -> None:
    plain, marked = embedder.embed("a red house"), embedder.embed("a (red:1.5) house")
    _, weights = mini.tokenizer.encode_weighted("a (red:1.5) house")
    scaled = plain.astype(np.float64)
    scaled[weights != 1] *= 1.5
    assert (weights != 1).any()
    expected = scaled * (plain.mean(dtype=np.float64) / scaled.mean())
    np.testing.assert_allclose(marked, expected, rtol=1e-5)
    assert marked.dtype == np.float32
    assert marked.mean(dtype=np.float64) == pytest.approx(plain.mean(dtype=np.float64), rel=1e-4)


_VALUES = st.floats(-4, 4, width=32)


@given(
    st.lists(_VALUES, min_size=6, max_size=6), st.lists(st.floats(0, 10), min_size=3, max_size=3)
)
def test_weighing_is_the_web_uis_formula(values: list[float], weights: list[float]) -> None:
    embeds = np.array(values, np.float32).reshape(3, 2)
    factors = np.array(weights, np.float32)
    weighed = weigh_tokens(embeds, factors)
    assert np.isfinite(weighed).all()
    scaled = embeds * factors[:, None]
    old, new = embeds.mean(dtype=np.float64), scaled.mean(dtype=np.float64)
    if abs(new) > 1e-3:
        np.testing.assert_allclose(weighed, scaled * (old / new), rtol=1e-5, atol=1e-6)


def test_a_mean_of_zero_is_left_alone() -> None:
    embeds = np.array([[1, 1], [-1, 1]], np.float32)
    weights = np.array([1, 0], np.float32)
    assert weigh_tokens(np.array([[1, -1], [3, 3]], np.float32), weights).tolist() == [
        [1, -1],
        [0, 0],
    ]
    assert weigh_tokens(embeds, np.zeros(2, np.float32)).tolist() == [[0, 0], [0, 0]]


def test_weights_of_one_return_the_embeddings_themselves() -> None:
    embeds: NDArray[np.float32] = np.ones((3, 2), np.float32)
    assert weigh_tokens(embeds, np.ones(3, np.float32)) is embeds
