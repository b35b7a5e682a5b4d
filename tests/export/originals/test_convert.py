"""Networks in the original layout: small ones value by value, published ones name by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils as theirs
from safetensors.torch import save_file

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.export.checkpoint.checkpoint import Part
from giffusion.export.checkpoint.tensors import DTYPES, Computed, Tensor, stored_tensors
from giffusion.export.originals.convert import original_parts, original_vae
from giffusion.export.originals.published import FAMILIES, published
from tests.export import families
from tests.export.originals import original_layout as layout
from tests.export.originals.published_models import NETWORKS, published_model

SMALL = ("sd1", "sd2", "lcm", "sdxl")


@cache
def pipeline(family: str) -> Any:
    return families.make(family)


def stored(state: layout.State, folder: Path) -> dict[str, Tensor]:
    path = folder / "original.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return {tensor.name: tensor for tensor in stored_tensors(path)}


def shaped(state: Mapping[str, torch.Tensor]) -> dict[str, Tensor]:
    """Stands for tensors of which only the shapes are known."""
    return {name: Computed(DTYPES["F16"], tuple(t.shape), _unread) for name, t in state.items()}


def _unread() -> Any:
    raise AssertionError("a tensor was read")


def assert_same(part: Part, state: Mapping[str, torch.Tensor]) -> None:
    assert part.tensors.keys() == state.keys()
    for name, tensor in part.tensors.items():
        assert tensor.shape == tuple(state[name].shape), name
        values = tensor.read()
        assert values.shape == tensor.shape, name
        assert values.flags.c_contiguous, name
        np.testing.assert_array_equal(values, state[name].numpy(), err_msg=name)


@pytest.mark.parametrize("family", SMALL)
def test_every_tensor_gets_its_name_and_value(family: str, tmp_path: Path) -> None:
    tensors = stored(layout.original(pipeline(family)), tmp_path)
    parts = original_parts(tensors, layout.configs(pipeline(family)), "a file")
    states = layout.states(pipeline(family))
    assert parts.keys() == states.keys()
    for name, part in parts.items():
        assert_same(part, states[name])


@pytest.mark.parametrize("family", SMALL)
def test_unet_and_vae_as_diffusers_converts_them(family: str, tmp_path: Path) -> None:
    state, configs = layout.original(pipeline(family)), layout.configs(pipeline(family))
    parts = original_parts(stored(state, tmp_path), configs, "a file")
    unet = theirs.convert_ldm_unet_checkpoint(dict(state), configs["unet"])
    if family == "lcm":  # Which theirs leaves out.
        unet["time_embedding.cond_proj.weight"] = state[
            "model.diffusion_model.time_embed.cond_proj.weight"
        ]
    assert_same(parts["unet"], unet)
    assert_same(parts["vae"], theirs.convert_ldm_vae_checkpoint(dict(state), configs["vae"]))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_clip_as_diffusers_converts_it(family: str, tmp_path: Path) -> None:
    state, configs = layout.original(pipeline(family)), layout.configs(pipeline(family))
    parts = original_parts(stored(state, tmp_path), configs, "a file")
    assert_same(parts["text_encoder"], theirs.convert_ldm_clip_checkpoint(dict(state)))


@pytest.mark.parametrize(
    ("family", "part", "prefix"),
    [
        ("sd2", "text_encoder", "cond_stage_model.model."),
        ("sdxl", "text_encoder_2", "conditioner.embedders.1.model."),
    ],
)
def test_open_clip_as_diffusers_converts_it(
    family: str, part: str, prefix: str, tmp_path: Path
) -> None:
    state, configs = layout.original(pipeline(family)), layout.configs(pipeline(family))
    parts = original_parts(stored(state, tmp_path), configs, "a file")
    network = getattr(pipeline(family), part)
    assert_same(parts[part], theirs.convert_open_clip_checkpoint(network, dict(state), prefix))


@pytest.mark.parametrize("family", FAMILIES)
def test_published_models_map_one_to_one(family: str) -> None:
    state = layout.original(published_model(family))
    configs = published(family)
    configs = {part: configs[part] for part in NETWORKS.keys() & configs.keys()}
    parts = original_parts(shaped(state), configs, "a file")
    for name, expected in layout.states(published_model(family)).items():
        found = {name: tensor.shape for name, tensor in parts[name].tensors.items()}
        assert found == {name: tuple(tensor.shape) for name, tensor in expected.items()}


def test_published_models_have_the_names_that_tell_them() -> None:
    names = theirs.CHECKPOINT_KEY_NAMES
    for family, key in (("sd1", "v1"), ("sd2", "v2"), ("sdxl", "xl_base")):
        state = layout.original(published_model(family))
        assert names[key] in state
        assert theirs.infer_diffusers_model_type(state) == key


def test_sd2_leaves_out_the_layer_that_its_encoder_does_not_use(tmp_path: Path) -> None:
    state = layout.original(pipeline("sd2"))
    prefix = "cond_stage_model.model."
    last = f"{prefix}transformer.resblocks.2."
    extra = {
        name.replace("resblocks.2.", "resblocks.3."): torch.ones(3)
        for name in state
        if name.startswith(last)
    }
    extra |= {f"{prefix}text_projection": torch.ones(3, 3), f"{prefix}logit_scale": torch.ones(1)}
    configs = layout.configs(pipeline("sd2"))
    part = original_parts(stored(state | extra, tmp_path), configs, "a file")["text_encoder"]
    assert_same(part, layout.states(pipeline("sd2"))["text_encoder"])
    beyond = {f"{prefix}transformer.resblocks.4.ln_1.weight": torch.ones(3)}
    with pytest.raises(ModelError, match=r"resblocks\.4\.ln_1\.weight"):
        original_parts(stored(state | extra | beyond, tmp_path), configs, "a file")


def test_sd2_in_sgm_names(tmp_path: Path) -> None:
    state = {
        name.replace("cond_stage_model.", "conditioner.embedders.0."): tensor
        for name, tensor in layout.original(pipeline("sd2")).items()
    }
    parts = original_parts(stored(state, tmp_path), layout.configs(pipeline("sd2")), "a file")
    assert_same(parts["text_encoder"], layout.states(pipeline("sd2"))["text_encoder"])


def test_clip_of_old_names(tmp_path: Path) -> None:
    old = "cond_stage_model.transformer."
    state = {
        name.replace(f"{old}text_model.", old): tensor
        for name, tensor in layout.original(pipeline("sd1")).items()
    }
    state[f"{old}embeddings.position_ids"] = torch.zeros(1, 8)
    parts = original_parts(stored(state, tmp_path), layout.configs(pipeline("sd1")), "a file")
    assert_same(parts["text_encoder"], layout.states(pipeline("sd1"))["text_encoder"])


def test_lcm_tells_the_width_of_its_guidance(tmp_path: Path) -> None:
    state = layout.original(pipeline("lcm"))
    key = "model.diffusion_model.time_embed.cond_proj.weight"
    renamed = dict(state)
    renamed["model.diffusion_model.time_embedding.cond_proj.weight"] = renamed.pop(key)
    for written in (state, renamed):
        parts = original_parts(stored(written, tmp_path), layout.configs(pipeline("lcm")), "a file")
        assert parts["unet"].config["time_cond_proj_dim"] == 32
        assert_same(parts["unet"], layout.states(pipeline("lcm"))["unet"])


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_vae_alone(family: str, prefix: str) -> None:
    expected = layout.states(published_model(family))["vae"]
    state = {prefix + name: tensor for name, tensor in layout.vae(expected).items()}
    state[f"{prefix}loss.logvar"] = torch.zeros(1)
    part = original_vae(shaped(state), family)
    assert part.config == published(family)["vae"]
    assert {name: tensor.shape for name, tensor in part.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in expected.items()
    }


def test_a_vae_of_an_unknown_family() -> None:
    with pytest.raises(SettingsError, match=r"unknown family of models 'sd3': .*known: sd1"):
        original_vae({}, "sd3")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.diffusion_model.out.2.bias", None, r"its UNet lacks the tensor 'conv_out\.bias'"),
        ("first_stage_model.quant_conv.bias", None, r"its VAE lacks the tensor 'quant_conv\.bias'"),
        (
            "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias",
            None,
            r"its text encoder lacks the tensor '.*k_proj\.bias' and 2 more tensors",
        ),
        (
            "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias",
            (145,),
            r"k_proj\.bias .* in the shape \[145\]: expected \[48\]",
        ),
        (
            "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias",
            (),
            r"k_proj\.bias .* in the shape \[\]: expected \[48\]",
        ),
        (
            "first_stage_model.decoder.mid.attn_1.q.weight",
            (16, 16, 3, 3),
            r"to_q\.weight .* \[16, 16, 3, 3\]: expected \[16, 16\]",
        ),
        ("model.diffusion_model.input_blocks.1.0.in_layers.7.bias", (1,), "has the tensor"),
        ("model.diffusion_model.input_blocks.1.1.adapter.weight", (1,), "has the tensor"),
        ("model.diffusion_model.input_blocks.99.0.out_layers.0.bias", (1,), "has the tensor"),
        ("model.diffusion_model.out", (1,), "has the tensor"),
        ("first_stage_model.decoder.up.9.block.0.norm1.bias", (1,), "has the tensor"),
        ("first_stage_model.encoder.mid.block_3.norm1.bias", (1,), "has the tensor"),
        ("cond_stage_model.model.visual.proj", (1,), "has the tensor"),
        ("cond_stage_model.model.transformer.resblocks.1.ls_1.gamma", (1,), "has the tensor"),
        ("cond_stage_model.", (1,), "has the tensor"),
        ("something.else", (1,), "a file has the tensor 'something.else', of unknown meaning"),
    ],
)
def test_what_is_missing_unknown_or_of_another_shape_is_refused(
    name: str, shape: tuple[int, ...] | None, message: str, tmp_path: Path
) -> None:
    state = layout.original(pipeline("sd2"))
    state.pop(name, None)
    if shape is not None:
        state[name] = torch.zeros(shape)
    with pytest.raises(ModelError, match=message) as caught:
        original_parts(stored(state, tmp_path), layout.configs(pipeline("sd2")), "a file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("first_stage_model.", "VAE"),
        ("cond_stage_model.", "text encoder"),
        ("model.diffusion_model.", "UNet"),
    ],
)
def test_a_missing_part_is_named(prefix: str, name: str, tmp_path: Path) -> None:
    state = layout.original(pipeline("sd1"))
    state = {key: tensor for key, tensor in state.items() if not key.startswith(prefix)}
    with pytest.raises(ModelError, match=f"a file has no {name}: expected tensors named {prefix}"):
        original_parts(stored(state, tmp_path), layout.configs(pipeline("sd1")), "a file")
