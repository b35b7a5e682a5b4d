"""Optimum's files beside ours: what its pipelines would run, beside diffusers and transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from giffusion.export.optimum.folder import is_optimum_folder
from tests.export import families
from tests.export.optimum.graphs import POOLED_DIM, model, normal, run

Folders = Callable[[str], tuple[Path, Path]]
ROWS, HEIGHT, WIDTH = 3, 4, 6
"""None of them what is traced with."""


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


def check(result: Any, expected: Any) -> None:
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=2e-5)


def ids(tokenizer: Any) -> Any:
    encoded = tokenizer(
        ["a red house", "the moon", ""],
        padding="max_length",
        max_length=families.NUM_TOKENS,
        return_tensors="pt",
    )
    return encoded.input_ids


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_the_unet_is_diffusers(folders: Folders, kind: str) -> None:
    unet = model(kind)["unet"]
    sample, prompts = (
        normal(ROWS, 4, HEIGHT, WIDTH),
        normal(ROWS, 11, unet.config.cross_attention_dim, seed=1),
    )
    inputs = {"sample": sample, "encoder_hidden_states": prompts}
    options: dict[str, Any] = {}
    if kind == "xl":
        inputs["timestep_cond"] = normal(ROWS, unet.config.time_cond_proj_dim, seed=2)
        options["timestep_cond"] = torch.from_numpy(inputs["timestep_cond"])
        sizes = np.array([[64, 48, 0, 8, 64, 48]] * ROWS, np.float32)
        inputs |= {"text_embeds": normal(ROWS, POOLED_DIM, seed=3), "time_ids": sizes}
        options["added_cond_kwargs"] = {
            name: torch.from_numpy(inputs[name]) for name in ("text_embeds", "time_ids")
        }
    path = folders(kind)[0] / "unet" / "model.onnx"
    for timestep in (0.0, 333.25, 999.0):
        expected = unet(
            torch.from_numpy(sample), torch.tensor(timestep), torch.from_numpy(prompts), **options
        ).sample
        result = run(path, inputs | {"timestep": np.array(timestep, np.float32)})
        assert list(result) == ["out_sample"]
        check(result["out_sample"], expected.numpy())


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_text_encoders_are_transformers(folders: Folders, kind: str) -> None:
    pipeline, folder = model(kind), folders(kind)[0]
    tokens = ids(pipeline["tokenizer"])
    parts = ["text_encoder", "text_encoder_2"][: 2 if kind == "xl" else 1]
    for part in parts:
        encoded = pipeline[part](tokens, output_hidden_states=True)
        result = run(folder / part / "model.onnx", {"input_ids": tokens.numpy()})
        first = ["last_hidden_state", "pooler_output"]
        names = first if part == "text_encoder" else ["text_embeds", "last_hidden_state"]
        states = {f"hidden_states.{i}": state for i, state in enumerate(encoded.hidden_states)}
        assert list(result) == names + (list(states) if kind == "xl" else [])
        for name in result:
            expected = states[name] if name in states else getattr(encoded, name)
            check(result[name], expected.numpy())


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_autoencoders_are_diffusers(folders: Folders, kind: str) -> None:
    vae, folder = model(kind)["vae"], folders(kind)[0]
    latents, picture = normal(ROWS, 4, 3, 5), normal(ROWS, 3, 24, 40, seed=1)
    decoded = run(folder / "vae_decoder" / "model.onnx", {"latent_sample": latents})
    encoded = run(folder / "vae_encoder" / "model.onnx", {"sample": picture})
    expected = vae.encode(torch.from_numpy(picture))
    name, values = (
        ("latent_sample", expected.latents)
        if kind == "xl"
        else ("latent_parameters", expected.latent_dist.parameters)
    )
    assert list(encoded) == [name]
    check(encoded[name], values.numpy())
    check(decoded["sample"], vae.decode(torch.from_numpy(latents)).sample.numpy())


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_weights_are_beside_their_graphs(folders: Folders, kind: str) -> None:
    folder = folders(kind)[0]
    graphs = sorted(folder.glob("*/model.onnx"))
    assert len(graphs) == (5 if kind == "xl" else 4)
    for path in graphs:
        tensors = [value.const_value for value in ir.load(path).graph.initializers.values()]
        stored = {str(t.location) for t in tensors if isinstance(t, ir.ExternalTensor)}
        # ONNX Runtime refuses what lies elsewhere.
        assert stored
        assert all((path.parent / location).is_file() for location in stored)
        assert not any("/" in location for location in stored)
        if not path.parent.name.startswith("vae"):
            assert stored <= {"model.safetensors", "diffusion_pytorch_model.safetensors"}
            assert str(folder).encode() not in path.read_bytes()


def test_axes_have_optimums_names(folders: Folders) -> None:
    folder = folders("xl")[0]
    axes: dict[str, str] = {}
    for part in ("unet", "text_encoder", "vae_decoder", "vae_encoder"):
        graph = ir.load(folder / part / "model.onnx").graph
        axes |= {f"{part}.{v.name}": str(v.shape) for v in (*graph.inputs, *graph.outputs)}
    assert axes["unet.sample"] == axes["unet.out_sample"] == "[batch_size,4,height,width]"
    assert axes["unet.timestep"] == "[]"
    assert axes["unet.encoder_hidden_states"] == "[batch_size,sequence_length,80]"
    assert axes["unet.time_ids"] == "[batch_size,6]"
    assert axes["text_encoder.input_ids"] == "[batch_size,sequence_length]"
    assert axes["vae_decoder.sample"] == "[batch_size,3,latent_height * 8,latent_width * 8]"
    assert axes["vae_encoder.latent_sample"] == "[batch_size,4,sample_height / 8,sample_width / 8]"


def test_a_folder_with_weights_is_no_optimum_folder(folders: Folders, tmp_path: Path) -> None:
    ours, theirs = folders("sd")
    assert not is_optimum_folder(ours)
    assert is_optimum_folder(theirs)
    assert not is_optimum_folder(tmp_path)
    assert not is_optimum_folder(tmp_path / "missing")
