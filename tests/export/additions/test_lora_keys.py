from __future__ import annotations

from typing import Any

import pytest

from giffusion.export.additions.lora_keys import layer_names, original_names, split_key
from giffusion.export.originals.unet import unet_tensors
from tests.export import families
from tests.export.additions.in_memory import checkpoint_of


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("lora_unet_conv_in.lora_down.weight", ("lora_unet_conv_in", "down")),
        ("lora_unet_conv_in.lora_mid.weight", ("lora_unet_conv_in", "mid")),
        ("lora_unet_conv_in.alpha", ("lora_unet_conv_in", "alpha")),
        ("unet.conv_in.lora.up.weight", ("unet.conv_in", "up")),
        ("unet.conv_in.lora_A.weight", ("unet.conv_in", "down")),
        ("base_model.model.conv_in.lora_B.default.weight", ("conv_in", "up")),
        ("unet.a.processor.to_out_lora.down.weight", ("unet.a.processor.to_out_lora", "down")),
        ("unet.a.processor.to_q_lora.alpha", ("unet.a.processor.to_q_lora", "alpha")),
        ("text_encoder.fc1.lora_linear_layer.up.weight", ("text_encoder.fc1", "up")),
        ("text_encoder.fc1.lora_linear_layer.alpha", ("text_encoder.fc1", "alpha")),
        ("unet.conv_in.weight", None),
        ("lora_unet_conv_in.lora_down.bias", None),
        ("unet.conv_in.lora_A.other.weight", None),
        (".alpha", None),
        ("", None),
    ],
)
def test_names_split_into_layer_and_piece(key: str, parts: tuple[str, str] | None) -> None:
    assert split_key(key) == parts


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_original_names_are_those_of_single_files(family: str) -> None:
    """The reader of single files, which goes the other way, has every one of them."""
    unet: Any = families.make(family).unet
    weights = checkpoint_of(families.make(family)).parts["unet"].tensors
    of_original = {
        f"{original}.weight": tensor
        for name, tensor in weights.items()
        if name.endswith(".weight") and len(tensor.shape) > 1
        for original in original_names(name.removesuffix(".weight"), 2)
    }
    renamed, unknown = unet_tensors(of_original, dict(unet.config))
    # Upsamplers are listed in both of the places that they have, of which a model has one.
    others = [*unknown, *(name for name in renamed if name not in weights)]
    assert all(name.endswith(".conv.weight") for name in others)
    matrices = {n: t for n, t in weights.items() if n.endswith(".weight") and len(t.shape) > 1}
    assert {name: renamed.get(name) for name in matrices} == matrices


def test_no_two_weights_share_a_spelling() -> None:
    for family in ("sd1", "sdxl"):
        checkpoint = checkpoint_of(families.make(family))
        names = layer_names(checkpoint)
        weights = {
            (part, tensor)
            for part in ("unet", "text_encoder", "text_encoder_2")
            if part in checkpoint.parts
            for tensor in checkpoint.parts[part].tensors
            if tensor.endswith(".weight")
        }
        assert set(names.values()) == weights
        for part, tensor in weights:
            assert names[f"{part}.{tensor.removesuffix('.weight')}"] == (part, tensor)
