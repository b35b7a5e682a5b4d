"""`giffusion convert`: a pickle's weights as a safetensors file."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from giffusion.engine.errors import ModelError
from giffusion.server.commands.convert import run


def test_what_was_kept_and_what_was_not_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    ids = {f"ids.{number}": torch.arange(2) for number in range(7)}
    torch.save({"weight": torch.ones(2), "sigma": torch.ones(1).double(), **ids}, source)
    run(argparse.Namespace(file=source, output=output))
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{output}: 2 tensors, read under: ")
    assert printed.err.splitlines() == [
        "left out, being no weights: ids.0, ids.1, ids.2, ids.3, ids.4 and 2 more",
        "cast from float64 to float32: sigma",
    ]
    assert load_file(output).keys() == {"weight", "sigma"}


def test_what_is_no_pickle_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "model.ckpt"
    source.write_text("text")
    with pytest.raises(ModelError, match="is not a pickle"):
        run(argparse.Namespace(file=source, output=tmp_path / "model.safetensors"))
