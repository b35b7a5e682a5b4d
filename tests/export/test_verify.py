"""Graphs compared with their networks: the bundled ones pass, and damage of every kind is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from giffusion.engine.errors import ModelError
from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import Model, graph_names, load_model
from giffusion.export.manifests import sha256
from giffusion.export.verify import BOUNDS, Check, verify_model
from tests.conftest import OpenCpu
from tests.export.renders import OpenModel


def checks(folder: Path) -> list[Check]:
    found: list[Check] = []
    verify_model(folder, found.append)
    return found


def wrong(folder: Path) -> set[str]:
    return {check.graph for check in checks(folder) if not check.ok}


@pytest.fixture
def folder(exported: OpenModel, tmp_path: Path) -> Path:
    """A small model to damage."""
    return Path(shutil.copytree(exported("sd1").folder, tmp_path / "model"))


def renew(folder: Path) -> None:
    """Lists the files of a model as what they are now, as if it had been exported so."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["graphs"] = {name: sha256(folder / f"{name}.onnx") for name in manifest["graphs"]}
    manifest["sources"] = {path: sha256(folder / path) for path in manifest["sources"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    load_model(folder)


def test_every_graph_of_the_bundled_model_is_right(mini: Model, open_cpu: OpenCpu) -> None:
    open_cpu("openvino", "bf16")  # skips where this CPU has no bfloat16
    found = checks(mini.folder)
    assert {check.graph for check in found} == set(graph_names())
    # Two outputs of each decoder: pictures in both pixel formats.
    assert len(found) == len(graph_names()) + 3
    for check in found:
        assert check.ok, check
        assert 0 <= check.mean_error <= check.max_error
        assert check.detail
    exact = [c for c in found if "." not in c.graph and "relative" in c.detail]
    assert len(exact) == 3
    assert max(check.max_error for check in exact) < BOUNDS["fp32"] / 10


@pytest.mark.parametrize("family", ["sd2", "sdxl", "lcm"])
def test_every_graph_of_a_family_is_right(exported: OpenModel, family: str) -> None:
    found = checks(exported(family).folder)
    assert all(check.ok for check in found), found
    pooled = [check for check in found if check.detail.startswith("pooled")]
    assert len(pooled) == (family == "sdxl")


def entry(initializer: Any, key: str) -> Any:
    return next(item for item in initializer.external_data if item.key == key)


def move_weight(graph: Path, other: Callable[[int], int]) -> None:
    """Points a graph's largest weight to another place in its file."""
    model = onnx.load(graph, load_external_data=False)

    stored = [i for i in model.graph.initializer if i.external_data]
    largest = max(stored, key=lambda i: int(entry(i, "length").value))
    offset = entry(largest, "offset")
    offset.value = str(other(int(offset.value)))
    onnx.save(model, graph)


@pytest.mark.parametrize("stage", ["text", "denoise", "decode", "encode"])
def test_a_weight_read_from_another_place_is_told(folder: Path, stage: str) -> None:
    move_weight(folder / f"{stage}.onnx", lambda offset: offset - 4096)
    renew(folder)
    assert wrong(folder) == {stage}


def test_a_graph_that_does_not_open_is_told_in_its_line(folder: Path) -> None:
    move_weight(folder / "denoise.onnx", lambda offset: 1 << 40)
    renew(folder)
    (check,) = [check for check in checks(folder) if not check.ok]
    assert check.graph == "denoise"
    assert "\n" not in check.detail
    assert "denoise.onnx" in check.detail


def test_graphs_of_another_scaling_factor_are_told(folder: Path) -> None:
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"scaling_factor": 0.5}))
    renew(folder)
    assert wrong(folder) == {"decode", "encode"}


def test_a_network_without_its_weights_is_a_line(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"{}")
    renew(folder)
    with pytest.raises(ModelError, match="is not a safetensors file: expected") as caught:
        verify_model(folder, lambda check: None)
    assert "\n" not in str(caught.value)
