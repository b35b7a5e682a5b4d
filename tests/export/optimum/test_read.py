"""Optimum's folders as model folders: fused graphs beside the networks that they are made of."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from giffusion.engine.manifest import Manifest
from giffusion.engine.model import GRAPHS, graph_spec, load_model
from giffusion.export.graphs import DecodeGraph, DenoiseGraph, EncodeGraph, TextGraph
from giffusion.export.graphs import example_inputs as inputs_of
from giffusion.export.optimum.folder import open_optimum
from giffusion.export.optimum.read import export_optimum, fuse_stage
from tests.export.optimum.graphs import model, run

Folders = Callable[[str], tuple[Path, Path]]
Read = Callable[[str], tuple[Path, Manifest]]
SIDES = (4, 8)


@pytest.fixture(scope="module")
def read(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Returns a kind's model folder, made of Optimum's, and its manifest."""
    made: dict[str, tuple[Path, Manifest]] = {}

    def once(kind: str) -> tuple[Path, Manifest]:
        if kind not in made:
            out = tmp_path_factory.mktemp(f"{kind}-read")
            made[kind] = out, export_optimum(folders(kind)[1], out, progress=lambda _: None)
        return made[kind]

    return once


def fused(kind: str, stage: str) -> Any:
    parts = model(kind)
    if stage == "text":
        return TextGraph(*(parts[name] for name in parts if name.startswith("text_encoder")))
    if stage == "denoise":
        return DenoiseGraph(parts["unet"])
    return {"decode": DecodeGraph, "encode": EncodeGraph}[stage](parts["vae"])


def check(path: Path, kind: str, stage: str, manifest: Manifest) -> None:
    """Compares a graph with the torch module of the same networks, at sizes of its own."""
    graph, spec = fused(kind, stage), graph_spec(manifest, stage)
    for side in SIDES:
        inputs = inputs_of(spec, side=side)
        with torch.no_grad():
            expected = graph(**inputs)
        result = run(path, {name: value.numpy() for name, value in inputs.items()})
        assert list(result) == [tensor.name for tensor in spec.outputs]
        expected = expected if isinstance(expected, tuple) else (expected,)
        for got, wanted in zip(result.values(), expected, strict=True):
            if got.dtype == np.uint8:
                assert np.abs(got.astype(int) - wanted.numpy()).max() <= 1
            else:
                np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stage", GRAPHS)
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_a_fused_graph_is_the_networks(read: Read, kind: str, stage: str) -> None:
    folder, manifest = read(kind)
    check(folder / f"{stage}.onnx", kind, stage, manifest)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_the_folder_opens_as_a_model(read: Read, folders: Folders, kind: str) -> None:
    folder, manifest = read(kind)
    opened = load_model(folder)
    assert opened.manifest == manifest
    assert manifest.graphs.keys() == set(GRAPHS)
    assert manifest.text_dims == ((32, 48) if kind == "xl" else (48,))
    assert (manifest.pooled_dim, manifest.guidance_dim) == (
        (40, 24) if kind == "xl" else (None,) * 2
    )
    assert {f"{part}/model.onnx" for part in ("unet", "vae_encoder")} <= manifest.origin.keys()
    for path in folder.glob("*.onnx"):
        content = path.read_bytes()
        assert str(folder).encode() not in content
        assert str(folders(kind)[1]).encode() not in content
        assert weights_files(path) <= manifest.sources.keys()
        assert path.stat().st_size < sum(
            (folder / file).stat().st_size for file in weights_files(path)
        )


def weights_files(path: Path) -> set[str]:
    """The files that a graph's weights are in."""
    tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
    return {str(t.location) for t in tensors if isinstance(t, ir.ExternalTensor)}


def test_timesteps_may_differ_from_row_to_row(
    read: Read,
) -> None:
    folder, manifest = read("sd")
    spec = graph_spec(manifest, "denoise")
    inputs = {name: value.numpy() for name, value in inputs_of(spec, side=4).items()}
    before = run(folder / "denoise.onnx", inputs)["next_state"]
    inputs["time_proj"] = inputs["time_proj"].copy()
    inputs["time_proj"][1] += 1
    after = run(folder / "denoise.onnx", inputs)["next_state"]
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed[1]


def test_weights_may_be_a_file_beside_the_graph(
    read: Read, folders: Folders, tmp_path: Path
) -> None:
    optimum = Path(shutil.copytree(folders("sd")[1], tmp_path / "optimum"))
    path = optimum / "unet" / "model.onnx"
    ir.save(ir.load(path), path, external_data="model.onnx_data")
    assert path.with_name("model.onnx_data").stat().st_size > path.stat().st_size
    check_denoise(optimum, read("sd")[1], tmp_path / "out")


def check_denoise(optimum: Path, manifest: Manifest, out: Path) -> None:
    out.mkdir()
    files = fuse_stage(open_optimum(optimum), "denoise", manifest, out)
    assert weights_files(out / "denoise.onnx") == set(files) == {"unet/model.onnx_data"}
    check(out / "denoise.onnx", "sd", "denoise", manifest)


class _Traced(torch.nn.Module):
    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any) -> Any:
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


@pytest.mark.parametrize(
    ("opset", "timestep"),
    [(14, torch.tensor(3)), (14, torch.tensor([3.0])), (18, torch.tensor(3.0))],
)
def test_graphs_of_the_older_tracer_are_fused(
    read: Read,
    folders: Folders,
    tmp_path: Path,
    opset: int,
    timestep: Any,
) -> None:
    optimum = shutil.copytree(folders("sd")[1], tmp_path / "optimum")
    unet = model("sd")["unet"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Traced(unet),
            (torch.randn(2, 4, 8, 8), timestep, torch.randn(2, 8, 48)),
            optimum / "unet" / "model.onnx",
            input_names=["sample", "timestep", "encoder_hidden_states"],
            output_names=["out_sample"],
            dynamic_axes={
                "sample": {0: "batch_size", 2: "height", 3: "width"},
                "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
            },
            opset_version=opset,
            dynamo=False,
        )
    check_denoise(optimum, read("sd")[1], tmp_path / "out")
