"""SDXL's denoise graph: a small one of its kind, against its own UNet, as ONNX and as an engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor

from giffusion.engine.contract import denoise_spec
from giffusion.engine.runtimes.tensorrt.build import check_network, parse_graph
from giffusion.engine.runtimes.tensorrt.package import TensorRtPackage
from giffusion.export.graphs import DenoiseGraph, example_inputs
from giffusion.export.onnx import export_graph
from giffusion.export.stages import load_stage

TOKENS, PROMPT_DIM, TIME_DIM, POOLED_DIM = 8, 32, 32, 24
SPEC = denoise_spec(TOKENS, PROMPT_DIM, TIME_DIM, POOLED_DIM)


def make_unet(dtype: torch.dtype) -> UNet2DConditionModel:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(TIME_DIM, 64),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        cross_attention_dim=PROMPT_DIM,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=6 * 16 + POOLED_DIM,
    )
    return unet.to(dtype).eval()


def make_inputs(graph: DenoiseGraph) -> dict[str, Tensor]:
    return example_inputs(
        graph,
        num_tokens=TOKENS,
        prompt_dim=PROMPT_DIM,
        time_dim=TIME_DIM,
        side=8,
        pooled_dim=POOLED_DIM,
    )


def export(dtype: torch.dtype, folder: Path) -> tuple[DenoiseGraph, dict[str, Tensor], Path]:
    unet = make_unet(dtype)
    weights, path = folder / "weights.safetensors", folder / "denoise.onnx"
    save_file(unet.state_dict(), weights)
    graph = DenoiseGraph(unet)
    inputs = make_inputs(graph)
    export_graph(graph, SPEC, inputs, path=path, weights=[weights], side_multiple=2)
    return graph, inputs, path


def test_size_ids_and_pooled_embeddings_reach_the_unet() -> None:
    graph = DenoiseGraph(make_unet(torch.float32))
    inputs = make_inputs(graph)
    assert list(inputs) == [tensor.name for tensor in SPEC.inputs]
    slots = torch.arange(len(inputs["mix"]))
    inputs["mix"] = (inputs["row_slot"] == slots[:, None]).float()
    with torch.no_grad():
        before = graph(**inputs)
        for name in ("pooled", "size_ids"):
            changed = inputs[name].clone()
            changed[0] += 100
            after = graph(**{**inputs, name: changed})
            assert not torch.equal(after[0], before[0])
            assert torch.equal(after[1:], before[1:]), "row 0 is slot 0's alone"


def test_onnx_runtime_computes_what_torch_does(tmp_path: Path) -> None:
    graph, inputs, path = export(torch.float32, tmp_path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        expected = graph(**inputs).numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tensorrt_reads_it_in_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    _, _, path = export(dtype, tmp_path)
    package = TensorRtPackage("tensorrt-rtx")
    network = parse_graph(package, package.trt.Builder(package.logger), path)
    check_network(package, network, path, SPEC, [{"slots": 2, "rows": 4, "h": 8, "w": 8}])


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
        assert load_stage(tmp_path, stage, "fp32").vae.dtype == torch.float32
