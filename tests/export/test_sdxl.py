"""SDXL's own parts of the graphs: size ids and pooled embeddings, and half precision.

What a whole SDXL model renders is in `test_families.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.runtimes.tensorrt.build import check_network, parse_graph
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.export.graphs import example_inputs
from giffusion.export.onnx import export_graph
from giffusion.export.stages import load_stage, shapes_of_stage, stage_weights
from tests.export.renders import OpenModel


def test_size_ids_and_pooled_embeddings_reach_the_unet(exported: OpenModel) -> None:
    model = exported("sdxl")
    spec = model.spec("denoise")
    graph = load_stage(model.folder, "denoise")
    inputs = example_inputs(spec, side=8)
    assert list(inputs) == [tensor.name for tensor in spec.inputs]
    slots = torch.arange(len(inputs["mix"]))
    inputs["mix"] = (inputs["row_slot"] == slots[:, None]).float()
    with torch.no_grad():
        before = graph(**inputs)
        for name in ("pooled", "size_ids"):
            changed = inputs[name].clone()
            changed[1] += 100
            after = graph(**{**inputs, name: changed})
            assert not torch.equal(after[1], before[1])
            others = [0, *range(2, len(before))]
            assert torch.equal(after[others], before[others]), "row 1 is slot 1's alone"


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_tensorrt_reads_it_in_half_precision(exported: OpenModel, dtype: str) -> None:
    model = exported("sdxl")
    spec, path = model.spec("denoise"), model.folder / f"half.{dtype}.onnx"
    export_graph(
        shapes_of_stage(model.folder, "denoise", dtype),
        spec,
        path=path,
        weights=stage_weights(model.folder, "denoise"),
        side_multiple=model.manifest.size_multiple // LATENT_SCALE,
    )
    package = TensorRtPackage("tensorrt-rtx")
    network = parse_graph(package, package.trt.Builder(package.logger), path)
    check_network(package, network, path, spec, [{"slots": 2, "rows": 4, "h": 8, "w": 8}])
    path.unlink()


@pytest.mark.parametrize(
    ("embedding", "forced", "expected"),
    [
        ("text_time", True, torch.bfloat16),
        ("text_time", False, torch.float16),
        (None, True, torch.float16),
    ],
)
def test_only_an_autoencoder_that_overflows_leaves_fp16(
    tmp_path: Path, embedding: str | None, forced: bool, expected: torch.dtype
) -> None:
    AutoencoderKL(
        block_out_channels=(16,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        force_upcast=forced,
    ).save_pretrained(tmp_path / "vae")
    (tmp_path / "unet").mkdir()
    config = json.dumps({"addition_embed_type": embedding})
    (tmp_path / "unet" / "config.json").write_text(config)
    for stage in ("decode", "encode"):
        assert {p.dtype for p in load_stage(tmp_path, stage, "fp16").parameters()} == {expected}
        shapes = shapes_of_stage(tmp_path, stage, "fp16")
        assert {p.dtype for p in shapes.parameters()} == {expected}
        assert {p.dtype for p in load_stage(tmp_path, stage).parameters()} == {torch.float32}
