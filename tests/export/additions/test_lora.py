from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from giffusion.engine.errors import GiffusionError, ModelError, SettingsError
from giffusion.export.additions.lora import fuse_loras, parse_lora
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part
from giffusion.export.checkpoint.tensors import Computed
from tests.export import families
from tests.export.additions.in_memory import checkpoint_of, load
from tests.export.additions.lora_styles import (
    RANK,
    STYLES,
    Pairs,
    Weight,
    kohya,
    random_pairs,
    write_pairs,
)

QUERY = ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight")
CONV = ("unet", "down_blocks.0.resnets.0.conv1.weight")
PROJ = ("unet", "down_blocks.0.attentions.0.proj_in.weight")
NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN, UP = f"{NAME}.lora_down.weight", f"{NAME}.lora_up.weight"
WIDTH = 32


@cache
def small(family: str) -> Checkpoint:
    return checkpoint_of(families.make(family))


def value(checkpoint: Checkpoint, weight: Weight) -> NDArray[np.float64]:
    part, name = weight
    return checkpoint.parts[part].tensors[name].read().astype(np.float64)


def expected(checkpoint: Checkpoint, pairs: Pairs, weight: Weight, factor: float) -> Any:
    """W + factor · up @ down in float64."""
    down, up = (matrix.astype(np.float64) for matrix in pairs[weight])
    subscripts = "or,ri->oi" if up.ndim == 2 else "orab,rihw->oihw"
    return value(checkpoint, weight) + factor * np.einsum(subscripts, up, down)


def file(folder: Path, tensors: Mapping[str, NDArray[Any]], **metadata: str) -> Path:
    path = folder / "a.safetensors"
    save_file(dict(tensors), path, metadata=metadata or None)
    return path


def pair(rank: int = RANK, out: int = WIDTH, inner: int = WIDTH) -> dict[str, NDArray[np.float32]]:
    return {DOWN: np.ones((rank, inner), np.float32), UP: np.ones((out, rank), np.float32)}


def refusal(path: Path, checkpoint: Checkpoint | None = None) -> str:
    with pytest.raises(ModelError) as caught:
        fuse_loras(checkpoint or small("sd1"), [(path, 1.0)])
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("alpha", [None, 3.0])
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_style_adds_what_the_formula_says(
    family: str, style: str, alpha: float | None, tmp_path: Path
) -> None:
    checkpoint = small(family)
    pairs = random_pairs(checkpoint)
    fused = fuse_loras(
        checkpoint, [(write_pairs(tmp_path / "a.safetensors", pairs, style, alpha), -0.7)]
    )
    factor = -0.7 * (1 if alpha is None else alpha / RANK)
    for weight in pairs:
        wanted = expected(checkpoint, pairs, weight, factor)
        np.testing.assert_allclose(value(fused, weight), wanted, atol=1e-6)
        assert not np.allclose(wanted, value(checkpoint, weight), atol=1e-3)


def test_weights_without_a_layer_are_untouched(tmp_path: Path) -> None:
    checkpoint = small("sdxl")
    pairs = random_pairs(checkpoint)
    path = write_pairs(tmp_path / "a.safetensors", pairs, "kohya")
    fused = fuse_loras(checkpoint, [(path, 1.0)])
    assert list(fused.parts) == list(checkpoint.parts)
    for part, old in checkpoint.parts.items():
        new = fused.parts[part]
        assert new.config == old.config
        assert list(new.tensors) == list(old.tensors)
        for name, tensor in new.tensors.items():
            assert (tensor.shape, tensor.dtype) == (
                old.tensors[name].shape,
                old.tensors[name].dtype,
            )
            assert (tensor is old.tensors[name]) == ((part, name) not in pairs)
    assert fused.sources == {"lora a.safetensors:1": path}


def test_fusing_reads_no_weight_until_it_is_read(tmp_path: Path) -> None:
    read: list[Weight] = []

    def watched(weight: Weight) -> Any:
        read.append(weight)
        return small("sd1").parts[weight[0]].tensors[weight[1]].read()

    parts = {
        part: Part(
            old.config,
            {
                n: Computed(t.dtype, t.shape, partial(watched, (part, n)))
                for n, t in old.tensors.items()
            },
        )
        for part, old in small("sd1").parts.items()
    }
    path = write_pairs(tmp_path / "a.safetensors", random_pairs(small("sd1")), "kohya")
    fused = fuse_loras(replace(small("sd1"), parts=parts), [(path, 1.0)])
    assert read == []
    value(fused, QUERY)
    assert read == [QUERY]


def lora_layer(
    down: torch.Tensor, up: torch.Tensor, scale: float
) -> Callable[[Any, Any, torch.Tensor], torch.Tensor]:
    """What a LoRA layer adds to the output of its module."""

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if down.ndim == 2:
            return output + scale * torch.nn.functional.linear(inputs[0] @ down.T, up)
        inner = torch.nn.functional.conv2d(
            inputs[0], down, stride=module.stride, padding=module.padding
        )
        return output + scale * torch.nn.functional.conv2d(inner, up)

    return hook


def add_hooks(model: Any, pairs: Pairs, part: str, scale: float) -> list[Any]:
    modules = dict(model.named_modules())
    return [
        modules[key if key in modules else key.removeprefix("text_model.")].register_forward_hook(
            lora_layer(torch.from_numpy(down), torch.from_numpy(up), scale)
        )
        for (of_part, name), (down, up) in pairs.items()
        if of_part == part and (key := name.removesuffix(".weight"))
    ]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@torch.no_grad()
def test_fused_networks_compute_what_lora_layers_beside_them_do(
    family: str, tmp_path: Path
) -> None:
    pipeline, checkpoint = families.make(family), small(family)
    pairs = {
        weight: matrices
        for weight, matrices in random_pairs(checkpoint).items()
        if "text_projection" not in weight[1]
    }
    fused = fuse_loras(
        checkpoint, [(write_pairs(tmp_path / "a.safetensors", pairs, "kohya", 1.0), 0.8)]
    )
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn((1, 4, 8, 8), generator=generator)
    prompt = torch.randn((1, 8, families.PROMPT_DIM), generator=generator)
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "unet": lambda: pipeline.unet(latents, 400, prompt).sample,
        "text_encoder": lambda: pipeline.text_encoder(torch.tensor([[2, 5, 7, 3]]))[0],
    }
    for part, run in runs.items():
        model = getattr(pipeline, part)
        plain = run()
        hooks = add_hooks(model, pairs, part, 0.8 / RANK)
        beside = run()
        for hook in hooks:
            hook.remove()
        load(model, fused.parts[part])
        torch.testing.assert_close(run(), beside, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(plain, beside, atol=1e-2)


def test_several_loras_add_up_in_order_and_are_rounded_once(tmp_path: Path) -> None:
    pipeline = families.make("sd1")
    pipeline.unet.to(torch.bfloat16)
    checkpoint = checkpoint_of(pipeline)
    every = [random_pairs(checkpoint, seed) for seed in range(3)]
    files = [write_pairs(tmp_path / f"{i}.safetensors", p, "kohya") for i, p in enumerate(every)]
    scales = [0.3, -1.2, 0.45]
    fused = fuse_loras(checkpoint, list(zip(files, scales, strict=True)))
    dtype = checkpoint.parts["unet"].tensors[QUERY[1]].dtype
    assert fused.parts["unet"].tensors[QUERY[1]].dtype == dtype
    total = value(checkpoint, QUERY).astype(np.float32)
    for pairs, scale in zip(every, scales, strict=True):
        down, up = pairs[QUERY]
        total = total + np.float32(scale) * (up @ down)
    stored = fused.parts["unet"].tensors[QUERY[1]].read()
    assert stored.dtype == dtype.numpy()
    np.testing.assert_array_equal(stored, total.astype(dtype.numpy()))


def test_loras_can_be_fused_again(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "a.safetensors", random_pairs(small("sd1")), "kohya")
    fused = fuse_loras(fuse_loras(small("sd1"), [(path, 1.5)]), [(path, -1.5), (path, 0.0)])
    np.testing.assert_allclose(value(fused, CONV), value(small("sd1"), CONV), atol=1e-6)
    assert len(fused.sources) == 3
    again = fuse_loras(small("sd1"), [(path, 1.0), (path, 1.0)])
    assert list(again.sources) == ["lora a.safetensors:1", "lora a.safetensors:1 #2"]


def test_cp_decomposition_is_three_convolutions_in_a_row(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    down = torch.randn((2, 32, 1, 1), generator=generator)
    mid = torch.randn((2, 2, 3, 3), generator=generator)
    up = torch.randn((32, 2, 1, 1), generator=generator)
    name = kohya(CONV[0], CONV[1].removesuffix(".weight"))[0].removesuffix(".lora_down.weight")
    tensors = {
        f"{name}.lora_down.weight": down.numpy(),
        f"{name}.lora_mid.weight": mid.numpy(),
        f"{name}.lora_up.weight": up.numpy(),
        f"{name}.alpha": np.asarray(4, np.int64),
    }
    fused = fuse_loras(small("sd1"), [(file(tmp_path, tensors), 0.5)])
    picture = torch.randn((1, 32, 6, 6), generator=generator)
    conv = partial(torch.nn.functional.conv2d, padding=1)
    old, new = (
        conv(picture, torch.from_numpy(c.parts["unet"].tensors[CONV[1]].read().copy()))
        for c in (small("sd1"), fused)
    )
    three = torch.nn.functional.conv2d(conv(torch.nn.functional.conv2d(picture, down), mid), up)
    torch.testing.assert_close(new - old, three, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "dims"), [("sd1", 2), ("sd2", 4)])
def test_linear_layers_and_small_convolutions_are_one(
    family: str, dims: int, tmp_path: Path
) -> None:
    """SD 1's projections are 1×1 convolutions, SD 2's linear: LoRAs are found for either."""
    checkpoint = small(family)
    shape = checkpoint.parts["unet"].tensors[PROJ[1]].shape
    assert len(shape) == 6 - dims
    down, up = np.full((1, 32), 0.5, np.float32), np.full((32, 1), 0.5, np.float32)
    if dims == 4:
        down, up = down[..., None, None], up[..., None, None]
    keys = kohya(PROJ[0], PROJ[1].removesuffix(".weight"))
    fused = fuse_loras(checkpoint, [(file(tmp_path, {keys[0]: down, keys[1]: up}), 1.0)])
    assert fused.parts["unet"].tensors[PROJ[1]].read().shape == shape
    np.testing.assert_allclose(value(fused, PROJ), value(checkpoint, PROJ) + 0.25, atol=1e-6)


def test_a_file_from_before_parts_had_prefixes_is_the_unets(tmp_path: Path) -> None:
    layer = QUERY[1].removesuffix(".to_q.weight")
    tensors = {
        f"{layer}.processor.to_q_lora.down.weight": np.full((1, 32), 1, np.float32),
        f"{layer}.processor.to_q_lora.up.weight": np.full((32, 1), 2, np.float32),
    }
    fused = fuse_loras(small("sd1"), [(file(tmp_path, tensors), 0.5)])
    np.testing.assert_allclose(value(fused, QUERY), value(small("sd1"), QUERY) + 1, atol=1e-6)


PEFT_QUERY = f"unet.{QUERY[1].removesuffix('.weight')}"
PEFT_PAIR = {
    f"{PEFT_QUERY}.lora_A.weight": np.ones((4, WIDTH), np.float32),
    f"{PEFT_QUERY}.lora_B.weight": np.ones((WIDTH, 4), np.float32),
}


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"lora_alpha": 8}, 2.0),
        ({"lora_alpha": 8, "use_rslora": True}, 4.0),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"o_q": 2}}, 2.0),
        ({"r": 4}, 1.0),
    ],
)
def test_pefts_own_alpha_counts(config: dict[str, Any], factor: float, tmp_path: Path) -> None:
    metadata = json.dumps({f"unet.{key}": value for key, value in config.items()})
    path = file(tmp_path, PEFT_PAIR, lora_adapter_metadata=metadata)
    fused = fuse_loras(small("sd1"), [(path, 1.0)])
    wanted = value(small("sd1"), QUERY) + factor * 4
    np.testing.assert_allclose(value(fused, QUERY), wanted, rtol=1e-6)


def test_pefts_configuration_beside_the_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    save_file({k.replace("unet.", "base_model.model."): v for k, v in PEFT_PAIR.items()}, path)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 2, "r": 4}')
    fused = fuse_loras(small("sd1"), [(path, 1.0)])
    np.testing.assert_allclose(value(fused, QUERY), value(small("sd1"), QUERY) + 2, rtol=1e-6)


@pytest.mark.parametrize(
    "metadata",
    [
        "[]",
        "{",
        "[" * 100_000,
        '{"unet.lora_alpha": "8"}',
        '{"unet.lora_alpha": NaN}',
        '{"unet.lora_alpha": true}',
        '{"unet.alpha_pattern": 3}',
        '{"unet.alpha_pattern": {"(a+)+$": 3}}',
        '{"unet.use_dora": true}',
        '{"unet.fan_in_fan_out": true}',
    ],
)
def test_other_configurations_of_peft_are_refused(metadata: str, tmp_path: Path) -> None:
    refusal(file(tmp_path, PEFT_PAIR, lora_adapter_metadata=metadata))


@pytest.mark.parametrize(
    ("key", "method"),
    [
        (f"{NAME}.hada_w1_a", "LoHa"),
        (f"{NAME}.lokr_w1", "LoKr"),
        (f"{NAME}.oft_blocks", "OFT"),
        (f"{NAME}.oft_R.weight", "OFT"),
        (f"{NAME}.dora_scale", "DoRA"),
        (f"{PEFT_QUERY}.lora_magnitude_vector", "DoRA"),
        (f"{NAME}.on_input", "IA3"),
        (f"{NAME}.a1.weight", "GLoRA"),
        ("bundle_emb.cat.string_to_param.*", "bundled embeddings"),
        (f"{NAME}.diff_b", "differences"),
        (f"{PEFT_QUERY}.lora_B.bias", "biases"),
        (f"{NAME}.unheard_of", "unheard_of"),
    ],
)
def test_other_methods_are_refused_by_name(key: str, method: str, tmp_path: Path) -> None:
    message = refusal(file(tmp_path, pair() | {key: np.ones((2, 2), np.float32)}))
    assert method in message
    assert key in message


def test_layers_that_the_checkpoint_lacks_are_refused_with_the_family(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_2_attentions_1_transformer_blocks_9_attn2_to_k"
    other = {
        f"{name}.lora_down.weight": np.ones((2, 2048), np.float32),
        f"{name}.lora_up.weight": np.ones((1280, 2), np.float32),
    }
    sd1 = small("sd1")
    unet = sd1.parts["unet"]
    unet = Part({**unet.config, "cross_attention_dim": 768}, unet.tensors)
    sd1 = replace(sd1, parts={**sd1.parts, "unet": unet})
    message = refusal(file(tmp_path, pair() | other), sd1)
    assert f"1 of its 2 layers match no weight of small, such as {name}" in message
    assert "seems to be for SDXL, expected one for SD 1" in message


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "FLUX"),
        ("transformer.transformer_blocks.0.attn.to_q", "SD 3"),
        ("lora_te2_text_model_encoder_layers_31_self_attn_q_proj", "SDXL"),
        ("text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj", "SDXL"),
        ("lora_te_text_model_encoder_layers_22_self_attn_q_proj", "SD 2"),
    ],
)
def test_families_are_told_by_names_or_widths(name: str, family: str, tmp_path: Path) -> None:
    style = ("lora_A", "lora_B") if "." in name else ("lora_down", "lora_up")
    keys = [f"{name}.{piece}.weight" for piece in style]
    tensors = {keys[0]: np.ones((2, 1024), np.float32), keys[1]: np.ones((1024, 2), np.float32)}
    assert f"seems to be for {family}," in refusal(file(tmp_path, tensors))


@pytest.mark.parametrize(
    "tensors",
    [
        pair(inner=WIDTH + 1),
        pair(out=WIDTH - 1),
        pair(rank=0),
        pair() | {UP: np.ones((WIDTH, RANK + 1), np.float32)},
        pair() | {DOWN: np.ones((), np.float32)},
        pair() | {DOWN: np.ones((RANK, WIDTH, 3, 3), np.float32)},
        pair() | {UP: np.ones((WIDTH, RANK, 3, 3), np.float32)},
        pair() | {f"{NAME}.lora_mid.weight": np.ones((RANK, 1, 3, 3), np.float32)},
        pair() | {f"{NAME}.alpha": np.ones(2, np.float32)},
        pair() | {f"{NAME}.alpha": np.asarray(math.nan, np.float32)},
        pair() | {DOWN: np.ones((RANK, WIDTH), np.int32)},
        {DOWN: np.ones((RANK, WIDTH), np.float32)},
        {UP: np.ones((WIDTH, RANK), np.float32)},
        {f"{NAME}.alpha": np.ones((), np.float32)},
        pair() | PEFT_PAIR,
    ],
    ids=lambda tensors: " ".join(f"{k.split('.')[-2]}{v.shape}" for k, v in tensors.items()),
)
def test_matrices_that_do_not_fit_are_refused_by_name(
    tensors: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    message = refusal(file(tmp_path, tensors))
    assert NAME in message or PEFT_QUERY in message


@pytest.mark.parametrize(
    ("tensors", "looks"),
    [
        ({"emb_params": np.ones((2, 48), np.float32)}, "textual inversion"),
        ({"<cat>": np.ones(48, np.float32)}, "textual inversion"),
        ({"clip_l": np.ones((1, 8), np.float32), "clip_g": np.ones((1, 9), np.float32)}, "textual"),
        (
            {"model.diffusion_model.out.2.bias": np.ones(4, np.float32), "a": np.ones(1)},
            "whole checkpoint",
        ),
        ({}, "empty"),
    ],
)
def test_files_without_a_loras_names_are_told_apart(
    tensors: dict[str, NDArray[Any]], looks: str, tmp_path: Path
) -> None:
    assert looks in refusal(file(tmp_path, tensors))


def test_what_is_not_finite_is_refused_when_it_is_read(tmp_path: Path) -> None:
    pipeline = families.make("sd1")
    pipeline.unet.to(torch.float16)
    checkpoint = checkpoint_of(pipeline)
    path = file(tmp_path, pair())
    fused = fuse_loras(checkpoint, [(path, 1e6)])
    with pytest.raises(ModelError, match=r"to_q.*is not finite as FLOAT16.*lower its scale"):
        value(fused, QUERY)
    with pytest.raises(SettingsError, match=r"scale of LoRA a\.safetensors is inf"):
        fuse_loras(checkpoint, [(path, math.inf)])


def test_missing_files_and_pickles_are_refused(tmp_path: Path) -> None:
    assert "missing" in refusal(tmp_path / "none.safetensors")
    assert "missing" in refusal(tmp_path)
    pickle = tmp_path / "a.pt"
    pickle.write_bytes(b"\x80\x02}q\x00.")
    assert "pickle" in refusal(pickle)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 600), damage=st.binary(max_size=12))
@example(place=0, damage=b"\xff" * 8)
def test_damaged_files_end_in_one_line_or_fuse(place: int, damage: bytes, tmp_path: Path) -> None:
    path = file(tmp_path, pair() | {f"{NAME}.alpha": np.ones((), np.float32)})
    content = bytearray(path.read_bytes())
    content[place : place + len(damage)] = damage
    path.write_bytes(content)
    message = ""
    try:
        value(fuse_loras(small("sd1"), [(path, 1.0)]), QUERY)
    except GiffusionError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1e-1", "a.safetensors", -0.1),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0),
        ("C:\\loras\\a.safetensors:.5", "C:\\loras\\a.safetensors", 0.5),
        ("dir:1/a.safetensors", "dir:1/a.safetensors", 1.0),
        ("odd:2:1", "odd:2", 1.0),
    ],
)
def test_options_split_at_a_last_number(text: str, path: str, scale: float) -> None:
    assert parse_lora(text) == (Path(path), scale)


@pytest.mark.parametrize("text", ["", " ", ":0.5", "a:nan", "a:-inf", "a:1e999"])
def test_options_without_a_file_or_a_finite_scale_are_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_lora(text)
    assert "\n" not in str(caught.value)


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.floats(-1e9, 1e9))
def test_options_come_back(name: str, scale: float) -> None:
    if name.strip():
        assert parse_lora(f"{name}:{scale!r}") == (Path(name), scale)
