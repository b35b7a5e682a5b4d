"""Models in one file: published ones at their size, of holes on the disk, and what is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from giffusion.engine.errors import GiffusionError, ModelError, SettingsError
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.originals.single_file import is_original_layout, read_single_file
from tests.export.originals import original_layout as layout
from tests.export.originals.published_models import published_model

Shapes = dict[str, tuple[int, ...]]
UNET = "model.diffusion_model."
CONV_IN = f"{UNET}input_blocks.0.0.weight"


@cache
def _shapes(family: str) -> Shapes:
    state = layout.original(published_model(family)) | layout.BUFFERS
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def shapes(family: str, **changes: tuple[int, ...]) -> Shapes:
    return _shapes(family) | changes


def read(path: Path, content: Mapping[str, tuple[int, ...]], **options: Any) -> Checkpoint:
    prediction = options.pop("prediction", None)
    return read_single_file(layout.write_sparse(path, content, **options), prediction=prediction)


@pytest.mark.parametrize(
    ("family", "pads", "scheduler"),
    [
        ("sd1", ["<|endoftext|>"], "PNDMScheduler"),
        ("sd2", ["!"], "DDIMScheduler"),
        ("sdxl", ["<|endoftext|>", "!"], "EulerDiscreteScheduler"),
    ],
)
def test_published_models(family: str, pads: list[str], scheduler: str, tmp_path: Path) -> None:
    path = tmp_path / "some model.safetensors"
    checkpoint = read(path, shapes(family))
    assert checkpoint.name == "some model"
    assert checkpoint.sources == {"some model.safetensors": path}
    states = layout.states(published_model(family))
    assert checkpoint.parts.keys() == states.keys()
    for name, part in checkpoint.parts.items():
        found = {key: tensor.shape for key, tensor in part.tensors.items()}
        assert found == {key: tuple(tensor.shape) for key, tensor in states[name].items()}
    assert checkpoint.scheduler["_class_name"] == scheduler
    assert [v.config["pad_token"] for v in checkpoint.vocabularies.values()] == pads
    declared = {name for name, kind in checkpoint.pipeline.items() if _is_component(kind)}
    assert declared == {"scheduler", *checkpoint.parts, *checkpoint.vocabularies}


def _is_component(kind: object) -> bool:
    return isinstance(kind, list) and kind[0] is not None


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_configurations_are_such_as_diffusers_takes(family: str, tmp_path: Path) -> None:
    checkpoint = read(tmp_path / "model.safetensors", shapes(family))
    assert hasattr(diffusers, checkpoint.pipeline["_class_name"])
    scheduler = getattr(diffusers, checkpoint.scheduler["_class_name"])
    scheduler.from_config(dict(checkpoint.scheduler))
    NoiseSchedule.from_config(checkpoint.scheduler)
    for name, kind in (("unet", "UNet2DConditionModel"), ("vae", "AutoencoderKL")):
        config = dict(checkpoint.parts[name].config)
        assert config["_class_name"] == kind
        unused = getattr(diffusers, kind).extract_init_dict(config)[1]
        assert not unused


def test_a_value_of_the_file_is_read(tmp_path: Path) -> None:
    content = {CONV_IN: (320, 4, 3, 3)} | shapes("sd1")
    data = struct.pack("<3e", 1.0, -2.0, 0.5)
    checkpoint = read(tmp_path / "model.safetensors", content, data=data)
    values = checkpoint.parts["unet"].tensors["conv_in.weight"].read()
    assert values.ravel()[:4].tolist() == [1.0, -2.0, 0.5, 0.0]


def test_what_a_file_says_of_itself_is_heeded(tmp_path: Path) -> None:
    metadata = {"modelspec.prediction_type": "epsilon"}
    path = layout.write_sparse(tmp_path / "model.safetensors", shapes("sd2"), metadata)
    assert read_single_file(path).scheduler["prediction_type"] == "epsilon"
    found = read_single_file(path, prediction="v_prediction")
    assert found.scheduler["prediction_type"] == "v_prediction"


def test_the_name_of_a_file_is_heeded(tmp_path: Path) -> None:
    found = read(tmp_path / "sd_turbo.safetensors", shapes("sd2"))
    assert found.scheduler["timestep_spacing"] == "trailing"


@pytest.mark.parametrize(("step", "expected"), [(875_000, "epsilon"), (220_000, "v_prediction")])
def test_training_steps_tell_sd2_base(step: int, expected: str, tmp_path: Path) -> None:
    content: Shapes = {"global_step": ()} | shapes("sd2")
    options = {"dtypes": {"global_step": "I64"}, "data": struct.pack("<q", step)}
    found = read(tmp_path / "model.safetensors", content, **options)
    assert found.scheduler["prediction_type"] == expected


def test_marks_among_the_tensors_are_heeded(tmp_path: Path) -> None:
    content = shapes("sdxl", v_pred=(0,), ztsnr=(0,))
    scheduler = read(tmp_path / "model.safetensors", content).scheduler
    assert scheduler["prediction_type"] == "v_prediction"
    assert scheduler["rescale_betas_zero_snr"] is True


def test_lcm(tmp_path: Path) -> None:
    content = shapes("sd1", **{f"{UNET}time_embed.cond_proj.weight": (320, 256)})
    found = read(tmp_path / "model.safetensors", content)
    assert found.pipeline["_class_name"] == "LatentConsistencyModelPipeline"
    assert found.scheduler["_class_name"] == "LCMScheduler"
    assert found.parts["unet"].config["time_cond_proj_dim"] == 256
    NoiseSchedule.from_config(found.scheduler)
    diffusers.LCMScheduler.from_config(dict(found.scheduler))


def test_buffers_of_integers_are_skipped(tmp_path: Path) -> None:
    key = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    options = {"dtypes": {key: "I64", "global_step": "I64"}}
    found = read(
        tmp_path / "m.safetensors", shapes("sd1", **{key: (1, 77), "global_step": ()}), **options
    )
    assert not any("position_ids" in name for name in found.parts["text_encoder"].tensors)


def test_an_unknown_prediction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'velocity': .*known: epsilon, v_prediction"):
        read_single_file(tmp_path / "model.safetensors", prediction="velocity")


KINDS: dict[str, tuple[Shapes, str]] = {
    "inpainting": ({CONV_IN: (320, 9, 3, 3)}, "an inpainting model with 9 input channels"),
    "pix2pix": ({CONV_IN: (320, 8, 3, 3)}, "an instruct-pix2pix model with 8 input channels"),
    "depth": ({CONV_IN: (320, 5, 3, 3)}, "a depth-to-image model with 5 input channels"),
    "upscaler": ({CONV_IN: (320, 7, 3, 3)}, "the x4 upscaler with 7 input channels"),
    "sixteen": ({CONV_IN: (320, 16, 3, 3)}, "a model with 16 input channels: expected 4"),
    "flat": ({CONV_IN: (320,)}, "without the tensor .* of four axes"),
    "refiner": (
        {
            CONV_IN: (384, 4, 3, 3),
            f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 1280),
        },
        "SDXL's refiner",
    ),
    "width": (
        {
            CONV_IN: (384, 4, 3, 3),
            f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (768, 640),
        },
        "a model that attends to prompts of width 640",
    ),
    "unclip": (shapes("sd2", **{f"{UNET}label_emb.0.0.weight": (1280, 2048)}), "unCLIP"),
    "controlnet": ({"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)}, "a ControlNet"),
    "lora": ({"lora_unet_mid_block.lora_up.weight": (4, 4)}, "a LoRA: .* give it as a LoRA"),
    "peft": ({"unet.mid_block.attn.to_q.lora_A.weight": (4, 4)}, "a LoRA"),
    "embedding": ({"emb_params": (2, 768)}, "an embedding of textual inversion"),
    "vae": ({"encoder.conv_in.weight": (128, 3, 3, 3)}, "a VAE alone: .* give it as a VAE"),
    "prefixed vae": ({"first_stage_model.decoder.conv_in.weight": (4, 4)}, "a VAE alone"),
    "text": ({"text_model.final_layer_norm.bias": (768,)}, "a text encoder alone"),
    "unet": ({"input_blocks.0.0.weight": (320, 4, 3, 3)}, "a UNet alone: its VAE and text encoder"),
    "diffusers": ({"down_blocks.0.resnets.0.norm1.bias": (320,)}, "diffusers' layout"),
    "sd3": ({f"{UNET}joint_blocks.0.x_block.attn.qkv.weight": (4, 4)}, "Stable Diffusion 3"),
    "flux": ({"double_blocks.0.img_attn.qkv.weight": (4, 4)}, "such as Flux"),
    "svd": ({f"{UNET}input_blocks.1.0.time_stack.in_layers.0.bias": (4,)}, "a video model"),
    "edm": (shapes("sdxl", edm_mean=(1, 4, 1, 1)), "Playground 2.5"),
    "other": ({"conv.weight": (3, 3)}, "a file of 1 tensors such as 'conv.weight'"),
    "empty": ({}, "a file without tensors: expected SD 1.x"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_files_are_named(kind: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    with pytest.raises(ModelError, match=message) as caught:
        read(tmp_path / "model.safetensors", content)
    assert str(caught.value).startswith(str(tmp_path / "model.safetensors"))
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_unet_without_the_rest_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    content = {name: shape for name, shape in shapes("sd1").items() if name.startswith(UNET)}
    with pytest.raises(ModelError, match="has no VAE"):
        read(tmp_path / "model.safetensors", content)


def test_an_unknown_tensor_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the tensor 'hypernetwork', of unknown meaning"):
        read(tmp_path / "model.safetensors", shapes("sd1", hypernetwork=(1,)))


@pytest.mark.parametrize(("dtype", "said"), [("F8_E4M3", "fp8"), ("I8", "as I8")])
def test_other_types_are_refused(dtype: str, said: str, tmp_path: Path) -> None:
    name = f"{UNET}out.2.weight"
    with pytest.raises(ModelError, match=f"{said}.*expected F16, F32, BF16"):
        read(tmp_path / "model.safetensors", shapes("sd1"), dtypes={name: dtype})


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"not a safetensors file", struct.pack("<Q", 1 << 60), b"\2" + bytes(7) + b"{}"],
)
def test_malformed_files_are_refused_in_a_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(GiffusionError) as caught:
        read_single_file(path)
    assert "\n" not in str(caught.value)


ENTRIES: list[Any] = [
    {"dtype": "I64", "shape": 5, "data_offsets": [0, 8]},
    {"dtype": "I64", "shape": [], "data_offsets": "none"},
    {"dtype": "I64", "shape": [], "data_offsets": [10**30, 10**30 + 8]},
    {"dtype": "I64", "shape": [], "data_offsets": [-8, 0]},
    {"dtype": "I64"},
    {"dtype": "F8_E4M3", "shape": {}},
    {"dtype": []},
    {},
    [],
    None,
    "I64",
]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["global_step", CONV_IN, "__metadata__"])
def test_malformed_entries_are_refused_in_a_line(name: str, entry: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    text = json.dumps({name: entry}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(GiffusionError) as caught:
        read_single_file(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.safetensors", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(ModelError, match="is missing: expected a checkpoint"):
            read_single_file(path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ModelError) as caught:
        read_single_file(path)
    assert "convert" in str(caught.value)


def test_the_layout_is_told_from_others(tmp_path: Path) -> None:
    original = layout.write_sparse(tmp_path / "a.safetensors", {CONV_IN: (320, 4, 3, 3)})
    other = layout.write_sparse(tmp_path / "b.safetensors", {"conv_in.weight": (320, 4, 3, 3)})
    assert is_original_layout(original)
    assert not is_original_layout(other)
