"""The weights in a pickle: what is kept, what is left out, what is refused without being run."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from giffusion.export.pickles.pickled_weights import convert_weights, explain

ZIP = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def save(value: object, path: Path, *, is_zip: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def convert(source: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    stream = BytesIO()
    report = convert_weights(source, stream)
    return load(stream.getvalue()), report


def refusal(source: Path) -> str:
    stream = BytesIO()
    try:
        convert_weights(source, stream)
    except Exception as error:
        assert not stream.getvalue()
        message = explain(error)
        assert "\n" not in message
        # What torch advises.
        assert "weights_only" not in message
        return message
    pytest.fail("it was converted")


class Malice:
    """Something whose pickle calls a function when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


@ZIP
def test_weights_are_kept_bit_for_bit(tmp_path: Path, is_zip: bool) -> None:
    single = torch.randn(6, 5)
    weights = {
        "single": single,
        "shared": single[2:],
        "transposed": single.half().t(),
        "brain": single.bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }
    found, report = convert(save(weights, tmp_path / "model.ckpt", is_zip=is_zip))
    assert report == {"num_tensors": len(weights), "left_out": [], "cast": []}
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_is_no_weight_is_left_out_and_said(tmp_path: Path) -> None:
    state = {
        "weight": torch.ones(2),
        "positions": torch.arange(3),
        "flag": torch.tensor(True),
        "epoch": torch.ones(5),
        "sigma": torch.ones(1, dtype=torch.float64) / 3,
    }
    trained = {"state_dict": state, "epoch": 7, "optimizer_states": [{"lr": 0.1}]}
    found, report = convert(save(trained, tmp_path / "a.ckpt"))
    assert sorted(report["left_out"]) == ["flag", "optimizer_states", "positions"]
    assert report["cast"] == ["sigma"]
    assert found.keys() == {"weight", "epoch", "sigma"}
    assert found["sigma"].dtype == torch.float32
    assert found["sigma"].item() == pytest.approx(1 / 3)


def test_an_embedding_is_kept_by_the_name_that_other_programs_read(tmp_path: Path) -> None:
    vectors = torch.randn(2, 8)
    embedding = {"string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "cat"}
    found, _ = convert(save(embedding, tmp_path / "cat.pt"))
    assert found.keys() == {"emb_params"}
    assert torch.equal(found["emb_params"], vectors)


def test_a_trainers_bookkeeping_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the original releases of Stable Diffusion 1 have it.
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    for package in (name, "pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setattr(sys.modules[name], "ModelCheckpoint", callback, raising=False)
    best = torch.tensor([0.5]).numpy()[0]
    trained = {
        "state_dict": {"weight": torch.ones(2)},
        "callbacks": {callback: {"best_model_score": best}},
    }
    found, report = convert(save(trained, tmp_path / "a.ckpt"))
    assert found.keys() == {"weight"}
    assert report["left_out"] == ["callbacks"]


@ZIP
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "posix.system"), (eval, "eval")], ids=["system", "eval"]
)
def test_code_in_a_pickle_does_not_run(
    tmp_path: Path, is_zip: bool, function: Callable[..., object], name: str
) -> None:
    marker = tmp_path / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w')"
    malicious = {"state_dict": {"weight": torch.ones(2)}, "x": Malice(function, code)}
    source = save(malicious, tmp_path / "model.ckpt", is_zip=is_zip)
    assert f"it asks for {name}, which weights have no need of: do not trust it" in refusal(source)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_in_a_bare_pickle_does_not_run(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "marker"
    source = tmp_path / "model.pkl"
    source.write_bytes(pickle.dumps(Malice(os.system, f"touch {marker}"), protocol))
    message = refusal(source)
    assert "do not trust it" in message or "it is no pickle of weights" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([torch.ones(1)], "it holds a list: expected tensors by name"),
        ({"epoch": 3}, "it holds no tensors of weights"),
        ({"ids": torch.arange(2)}, "it holds no tensors of weights"),
        ({"w": torch.ones(2, dtype=torch.complex64)}, "torch.complex64: expected float16"),
        ({"w": torch.eye(2).to_sparse()}, "tensor w is torch.sparse_coo"),
        ({3: torch.ones(2)}, "a tensor is called 3"),
        ({"__metadata__": torch.ones(2)}, "a tensor is called '__metadata__'"),
        ({"w": torch.ones(2, 2, dtype=torch.int8)}, "torch.int8: expected float16"),
        (
            {"string_to_param": {"a": torch.ones(2), "b": torch.ones(2)}},
            "an embedding of 2 words: expected one",
        ),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, value: object, message: str) -> None:
    assert message in refusal(save(value, tmp_path / "model.ckpt"))


def test_no_damage_of_a_byte_escapes(tmp_path: Path) -> None:
    whole = save({"w": torch.ones(4)}, tmp_path / "model.ckpt", is_zip=False).read_bytes()
    source = tmp_path / "damaged.ckpt"
    num_refused = 0
    for place in range(0, len(whole), 7):
        source.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        stream = BytesIO()
        try:
            convert_weights(source, stream)
        except Exception as error:
            num_refused += 1
            assert explain(error).isprintable()  # noqa: PT017 - some damage is none
        else:
            assert load(stream.getvalue())
    assert num_refused > 10


@pytest.mark.parametrize("length", [0, 1, 30, 200, 400])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    source = save({"w": torch.randn(2000)}, tmp_path / "model.ckpt", is_zip=False)
    source.write_bytes(source.read_bytes()[:length])
    assert refusal(source)
