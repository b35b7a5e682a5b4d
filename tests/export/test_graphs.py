"""Each fused torch module beside the plain parts of diffusers and transformers that it fuses."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.configuration_utils import FrozenDict
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from giffusion.engine.contract import (
    STATE_ROWS,
    TABLE_COLUMNS,
    decode_spec,
    denoise_spec,
    encode_spec,
    text_spec,
)
from giffusion.export.graphs import (
    DecodeGraph,
    DenoiseGraph,
    EncodeGraph,
    TextGraph,
    _sum_rows,
    example_axes,
    example_inputs,
)
from giffusion.export.nv12 import nv12

CHANNELS, TOKENS, WIDTH, SIDE = 4, 6, 16, 8


@pytest.fixture(autouse=True)
def no_grad() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def unet() -> Any:
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    ).eval()


@pytest.fixture(scope="module", params=["AutoencoderKL", "AutoencoderTiny"])
def vae(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(2)
    if request.param == "AutoencoderTiny":
        return AutoencoderTiny(
            encoder_block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            scaling_factor=0.7,
        ).eval()
    return AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=CHANNELS,
        scaling_factor=0.18215,
    ).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def denoise_inputs(unet: Any, timesteps: list[float], row_slot: list[int]) -> dict[str, Tensor]:
    slots, rows, latent = len(timesteps), len(row_slot), (CHANNELS, SIDE, SIDE)
    mix = torch.zeros(slots, rows)
    mix[row_slot, torch.arange(rows)] = random(rows, seed=1)
    return {
        "state": random(slots, STATE_ROWS, *latent, seed=2),
        "scale": random(slots, seed=3).abs(),
        "time_proj": unet.time_proj(torch.tensor(timesteps)),
        "row_slot": torch.tensor(row_slot, dtype=torch.int32),
        "cond": random(rows, TOKENS, WIDTH, seed=4),
        "mix": mix,
        "table": random(slots, STATE_ROWS, TABLE_COLUMNS, seed=5),
        "noise": random(slots, *latent, seed=6),
    }


def test_denoise_is_the_unet_then_guidance_then_the_table(unet: Any) -> None:
    timesteps, row_slot = [801.0, 12.0, 333.25], [0, 2, 1, 0, 2, 2]
    inputs = denoise_inputs(unet, timesteps, row_slot)
    result = DenoiseGraph(copy.deepcopy(unet))(**inputs)
    for slot, timestep in enumerate(timesteps):
        state = inputs["state"][slot].double()
        model_input = (inputs["scale"][slot] * inputs["state"][slot, 0])[None]
        output = torch.zeros(CHANNELS, SIDE, SIDE, dtype=torch.float64)
        for row in (row for row, of in enumerate(row_slot) if of == slot):
            sample = unet(model_input, torch.tensor(timestep), inputs["cond"][row : row + 1]).sample
            output += inputs["mix"][slot, row].double() * sample[0].double()
        terms = [*state, output, inputs["noise"][slot].double()]
        for i in range(STATE_ROWS):
            weights = inputs["table"][slot, i].tolist()
            expected = sum(weight * term for weight, term in zip(weights, terms, strict=True))
            torch.testing.assert_close(result[slot, i].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_row_counts_only_in_the_slots_that_give_it_weight(unet: Any) -> None:
    graph = DenoiseGraph(copy.deepcopy(unet))
    inputs = denoise_inputs(unet, [500.0, 400.0], [0, 1, 1])
    before = graph(**inputs)
    inputs["cond"][0] += 1
    after = graph(**inputs)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_identity_table_returns_the_state_at_any_precision_of_the_unet(
    unet: Any, dtype: torch.dtype
) -> None:
    graph = DenoiseGraph(copy.deepcopy(unet).to(dtype))
    inputs = denoise_inputs(unet, [500.0, 400.0], [0, 1])
    inputs["table"] = torch.eye(STATE_ROWS, TABLE_COLUMNS).repeat(2, 1, 1)
    assert torch.equal(graph(**inputs), inputs["state"])
    # What the identity leaves out is there and finite: the model's output reaches a row.
    inputs["table"][:, 0, STATE_ROWS] = 1
    moved = graph(**inputs)[:, 0] - inputs["state"][:, 0]
    assert moved.isfinite().all()
    assert moved.abs().max() > 0.01


def test_text_is_the_last_hidden_state() -> None:
    torch.manual_seed(3)
    config = CLIPTextConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        pad_token_id=0,
        bos_token_id=48,
        eos_token_id=49,
    )
    encoder: Any = CLIPTextModel(config)
    encoder.eval()
    ids = torch.tensor([[48, 3, 4, 49, 49, 49], [48, 49, 49, 49, 49, 49]])
    expected = encoder(ids).last_hidden_state
    assert torch.equal(TextGraph(encoder)(ids.int()), expected)
    halved = TextGraph(encoder.half())(ids.int())
    assert halved.dtype == torch.float32
    torch.testing.assert_close(halved, expected, rtol=0, atol=0.02)


def test_decode_gives_the_bytes_of_the_pipelines_pictures(vae: Any) -> None:
    wide = _Wide(vae)
    latents = random(2, CHANNELS, 2, 3)
    (decoded,) = wide.decode(latents / vae.config.scaling_factor, return_dict=False)
    pictures = VaeImageProcessor().postprocess(decoded, output_type="pil")
    expected = np.stack([np.asarray(picture) for picture in pictures])
    result, as_nv12 = DecodeGraph(wide)(latents)
    assert result.dtype == as_nv12.dtype == torch.uint8
    assert torch.equal(as_nv12, nv12(result.permute(0, 3, 1, 2)))
    assert result.shape == (2, 16, 24, 3)
    assert {0, 255} <= set(np.unique(expected).tolist())
    assert np.array_equal(result.numpy(), expected)


class _Wide(nn.Module):
    """An autoencoder of random weights, its pictures stretched beyond both ends of the range."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae, self.config, self.dtype = vae, vae.config, vae.dtype

    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        (decoded,) = self.vae.decode(latents, return_dict=return_dict)
        return (2 * (decoded - decoded.mean()) / decoded.std(),)


def test_decode_rounds_to_the_nearest_byte_and_clips() -> None:
    values = [-7.0, -1.0, 0.0, 1.0, 9.0, 2 * 0.4 / 255 - 1, 2 * 0.6 / 255 - 1, 2 * 254.6 / 255 - 1]
    decode = DecodeGraph(_Identity(scaling_factor=2.0))
    picture = torch.tensor(values).reshape(1, 1, 2, 4).expand(1, 3, 2, 4)
    rgb, _ = decode(2 * picture)
    assert rgb[0, :, :, 0].flatten().tolist() == [0, 0, 128, 255, 255, 0, 1, 255]


class _Identity(nn.Module):
    """An autoencoder that does nothing."""

    def __init__(self, scaling_factor: float) -> None:
        super().__init__()
        self.config = FrozenDict(scaling_factor=scaling_factor)
        self.dtype = torch.float32

    def decode(self, latents: Tensor, *, return_dict: bool) -> tuple[Tensor]:
        return (latents,)


def test_latents_with_a_mean_and_a_deviation_a_channel_come_back(vae: Any) -> None:
    """Autoencoders such as Playground v2.5's keep both; the formulas are the pipelines'."""
    mean, std = [0.5, -1.0, 0.25, 2.0], [2.0, 0.5, 1.5, 3.0]
    factor = vae.config.scaling_factor
    shape = (1, CHANNELS, 1, 1)
    plain, changed = copy.deepcopy(vae), copy.deepcopy(vae)
    changed.register_to_config(latents_mean=mean, latents_std=std)
    rgb = torch.randint(0, 256, (1, 16, 24, 3), generator=torch.Generator().manual_seed(4))
    unscaled = EncodeGraph(plain)(rgb.to(torch.uint8)) / factor
    expected = (unscaled - torch.tensor(mean).view(shape)) * factor / torch.tensor(std).view(shape)
    latents = EncodeGraph(changed)(rgb.to(torch.uint8))
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-6)
    (back, _), (right, _) = DecodeGraph(changed)(latents), DecodeGraph(plain)(unscaled * factor)
    assert (back.int() - right.int()).abs().max() <= 1


def test_encode_is_the_pipelines_mode_scaled(vae: Any) -> None:
    rgb = torch.randint(0, 256, (2, 16, 24, 3), generator=torch.Generator().manual_seed(4))
    pictures = VaeImageProcessor().preprocess(rgb.numpy().astype(np.float32) / 255)
    encoded = vae.encode(pictures)
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
    result = EncodeGraph(vae)(rgb.to(torch.uint8))
    assert result.shape == (2, CHANNELS, 2, 3)
    torch.testing.assert_close(result, latents * vae.config.scaling_factor, rtol=1e-4, atol=1e-6)


SPECS = [
    text_spec(24, 192),
    text_spec(77, 2048, pooled_dim=1280),
    denoise_spec(24, 192, 64),
    denoise_spec(77, 2048, 320, pooled_dim=1280),
    denoise_spec(77, 768, 320, guidance_dim=256),
    decode_spec(),
    encode_spec(),
]


@pytest.mark.parametrize("side", [4, 16])
def test_example_inputs_are_those_of_the_contract(side: int) -> None:
    for spec in SPECS:
        inputs, again = (example_inputs(spec, side=side) for _ in range(2))
        axes = example_axes(side)
        expected = {tensor.name: (tensor.resolve(axes), tensor.dtype) for tensor in spec.inputs}
        got = {
            name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
            for name, value in inputs.items()
        }
        assert list(got) == list(expected)
        assert got == expected
        assert all(torch.equal(value, again[name]) for name, value in inputs.items())
        # A sum over rows that are all alike would hide which row went where.
        assert all(value.float().std() > 0 for name, value in inputs.items() if name != "size_ids")


def test_idle_rows_in_between_change_nothing() -> None:
    values = torch.randn(3, 4, 16, 16)
    sums = set()
    for places in ([0, 1, 2], [1, 2, 3], [0, 16, 31], [0, 1, 31], [0, 30, 31]):
        rows = torch.zeros(32, 4, 16, 16)
        rows[places] = values
        sums.add(_sum_rows(rows).numpy().tobytes())
    assert len(sums) == 1
