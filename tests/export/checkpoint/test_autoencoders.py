"""Other autoencoders put into a checkpoint, in every form that they come in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.export.checkpoint.autoencoders import replace_decoder, replace_vae
from giffusion.export.checkpoint.check import check_part
from giffusion.export.checkpoint.checkpoint import Checkpoint, Part
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.networks import network_class
from giffusion.export.originals.published import published
from tests.export.families import save, tiny_vae, vae
from tests.export.originals.original_layout import vae as original_names
from tests.export.originals.original_layout import write_sparse

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_folder(save("sd1", tmp_path_factory.mktemp("saved") / "sd1"))


def other_vae(folder: Path, **changes: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    module = vae(**changes)
    module.save_pretrained(folder)
    return dict(module.state_dict())


def other_tiny_vae(folder: Path) -> Any:
    torch.manual_seed(1)
    module = tiny_vae().eval()
    module.save_pretrained(folder)
    return module


def assert_is(part: Part, expected: dict[str, torch.Tensor]) -> None:
    assert part.tensors.keys() == expected.keys()
    for name, tensor in part.tensors.items():
        assert np.array_equal(tensor.read(), expected[name].numpy()), name


def assert_only_changed(before: Checkpoint, after: Checkpoint, part: str) -> None:
    for name, value in before.parts.items():
        assert name == part or after.parts[name] is value
    changed = {name for name in after.sources if name.startswith(f"{part}/")}
    assert changed
    others = {name: path for name, path in before.sources.items() if name not in changed}
    assert {name: path for name, path in after.sources.items() if name not in changed} == {
        name: path for name, path in others.items() if not name.startswith(f"{part}/")
    }
    assert all(after.sources[name] != before.sources.get(name) for name in changed)


def refusal(checkpoint: Checkpoint, path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        replace_vae(checkpoint, path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["folder", "pipeline", "pipeline with a config", "file", "alone"])
def test_an_autoencoder_with_diffusers_names_is_put_in(
    form: str, sd1: Checkpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "vae"
    expected = other_vae(folder)
    path = {"folder": folder, "file": folder / WEIGHTS, "alone": tmp_path / "x.safetensors"}
    shutil.copy(folder / WEIGHTS, tmp_path / "x.safetensors")
    if form == "pipeline with a config":
        (tmp_path / "model_index.json").touch()
        (tmp_path / "config.json").write_text("{}")
    changed = replace_vae(sd1, path.get(form, tmp_path))
    assert_is(changed.parts["vae"], expected)
    assert_only_changed(sd1, changed, "vae")
    assert changed.pipeline["vae"] == ["diffusers", "AutoencoderKL"]
    assert sd1.parts["vae"].tensors != changed.parts["vae"].tensors


def test_a_small_autoencoder_is_put_in(sd1: Checkpoint, tmp_path: Path) -> None:
    expected = other_tiny_vae(tmp_path / "taesd").state_dict()
    changed = replace_vae(sd1, tmp_path / "taesd")
    assert_is(changed.parts["vae"], expected)
    assert changed.pipeline["vae"] == ["diffusers", "AutoencoderTiny"]


@pytest.mark.parametrize(("family", "scale"), [("sd1", 0.18215), ("sdxl", 0.13025)])
@pytest.mark.parametrize("prefix", ["", "first_stage_model."])
def test_a_file_in_the_original_layout_is_put_in(
    family: str, scale: float, prefix: str, tmp_path: Path
) -> None:
    checkpoint = read_folder(save(family, tmp_path / family))
    config = published(family)["vae"]
    with torch.device("meta"):
        state = network_class("vae", config).from_config(config).state_dict()
    shapes = {prefix + name: tuple(tensor.shape) for name, tensor in original_names(state).items()}
    path = write_sparse(tmp_path / "vae.safetensors", {**shapes, "model_ema.decay": ()})
    part = replace_vae(checkpoint, path).parts["vae"]
    assert {name: tensor.shape for name, tensor in part.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in state.items()
    }
    assert part.config["scaling_factor"] == scale


def test_an_original_files_refusal_names_the_file(sd1: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    save_file({"encoder.conv_in.weight": torch.zeros(1), "model_ema.decay": torch.ones(1)}, path)
    message = refusal(sd1, path)
    assert message.startswith(f"{path}: ")
    assert "model_ema" not in message


def test_an_autoencoder_of_another_scale_is_refused(sd1: Checkpoint, tmp_path: Path) -> None:
    other_vae(tmp_path / "vae", scaling_factor=0.13025)
    message = refusal(sd1, tmp_path / "vae")
    assert "scaled by 0.13025: expected 0.18215" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"latent_channels": 16}, "16 latent channels"),
        (
            {
                "block_out_channels": (16, 16),
                "down_block_types": ("DownEncoderBlock2D",) * 2,
                "up_block_types": ("UpDecoderBlock2D",) * 2,
            },
            "8 times",
        ),
    ],
)
def test_autoencoders_of_other_models_are_refused(
    changes: dict[str, Any], words: str, sd1: Checkpoint, tmp_path: Path
) -> None:
    other_vae(tmp_path / "vae", **changes)
    assert words in refusal(sd1, tmp_path / "vae")


def test_what_is_no_autoencoder_is_refused(sd1: Checkpoint, tmp_path: Path) -> None:
    assert "is missing" in refusal(sd1, tmp_path / "none.safetensors")
    assert "is missing" in refusal(sd1, tmp_path)
    (tmp_path / "vae.txt").touch()
    assert "no .safetensors file" in refusal(sd1, tmp_path / "vae.txt")
    (tmp_path / "vae.pt").write_bytes(b"\x80\x02.")
    assert "giffusion convert" in refusal(sd1, tmp_path / "vae.pt")
    other_vae(tmp_path / "vae", block_out_channels=(8, 16, 16, 16))
    shutil.copy(tmp_path / "vae" / WEIGHTS, tmp_path / "narrow.safetensors")
    message = refusal(sd1, tmp_path / "narrow.safetensors")
    assert "has the shape" in message or "lacks" in message


def original_decoder(module: Any, file: Path) -> None:
    """Writes TAESD's own layout: a clamp comes first there, so each layer is one further."""
    prefix = "decoder.layers."
    tensors = {
        f"{int(layer) + 1}.{rest}": tensor
        for name, tensor in module.state_dict().items()
        if name.startswith(prefix)
        for layer, _, rest in [name.removeprefix(prefix).partition(".")]
    }
    save_file(tensors, file)


@pytest.mark.parametrize("form", ["folder", "its file", "original"])
def test_a_decoder_is_put_in_beside_the_autoencoder(
    form: str, sd1: Checkpoint, tmp_path: Path
) -> None:
    module = other_tiny_vae(tmp_path / "taesd")
    file = tmp_path / "taesd_decoder.safetensors"
    original_decoder(module, file)
    path = {"folder": tmp_path / "taesd", "its file": tmp_path / "taesd" / WEIGHTS}
    changed = replace_decoder(sd1, f"taesd:{path.get(form, file)}")
    part = changed.parts["decoder"]
    own = {n: t for n, t in module.state_dict().items() if n.startswith("decoder.")}
    assert_is(part, own)
    assert_only_changed(sd1, changed, "decoder")
    assert changed.pipeline == sd1.pipeline
    # The configuration makes a decoder that computes the same.
    built = network_class("decoder", part.config).from_config(dict(part.config)).eval()
    built.load_state_dict(own, strict=False)
    latents = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        assert torch.equal(built.decode(latents).sample, module.decode(latents).sample)


@pytest.mark.parametrize("blocks", [(3, 3, 3, 1), (2, 1, 3, 2), (1, 1, 1, 1)])
def test_the_layers_tell_how_many_blocks_there_are(
    blocks: tuple[int, ...], sd1: Checkpoint, tmp_path: Path
) -> None:
    kind = network_class("decoder", {"_class_name": "AutoencoderTiny"})
    widths = (8,) * 4
    module = kind(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_decoder_blocks=blocks,
    )
    original_decoder(module, tmp_path / "x.safetensors")
    part = replace_decoder(sd1, f"taesd:{tmp_path / 'x.safetensors'}").parts["decoder"]
    assert tuple(part.config["num_decoder_blocks"]) == blocks
    check_part(part, "x", kind, prefix="decoder.")


def test_the_published_decoder_has_64_channels_and_ten_blocks(
    sd1: Checkpoint, tmp_path: Path
) -> None:
    module = network_class("decoder", {"_class_name": "AutoencoderTiny"})()
    original_decoder(module, tmp_path / "taesd_decoder.safetensors")
    names = load_file(tmp_path / "taesd_decoder.safetensors")
    # Names and shapes of the published file.
    assert names["1.weight"].shape == (64, 4, 3, 3)
    assert names["19.weight"].shape == (3, 64, 3, 3)
    assert {"3.conv.0.weight", "7.weight", "12.weight", "17.weight", "18.conv.4.bias"} <= set(names)
    assert not {"2.weight", "6.weight", "7.bias"} & set(names)
    path = tmp_path / "taesd_decoder.safetensors"
    config = replace_decoder(sd1, f"taesd:{path}").parts["decoder"].config
    for key in ("decoder_block_out_channels", "num_decoder_blocks", "latent_channels", "act_fn"):
        assert json.dumps(config[key]) == json.dumps(module.config[key])


@pytest.mark.parametrize("spec", ["", "taesd", "taesd:", "taehv:x", "vae.safetensors"])
def test_unknown_decoders_are_refused(spec: str, sd1: Checkpoint) -> None:
    with pytest.raises(SettingsError, match="expected taesd:PATH"):
        replace_decoder(sd1, spec)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"0.weight": (16, 3, 3, 3)}, "lacks the first layer"),
        ({"1.weight": (16, 16, 3, 3)}, "16 latent channels"),
        ({"1.weight": (16,)}, "lacks the first layer"),
        ({"1.weight": (16, 4, 3, 3)}, "expected four widths"),
        ({"1.weight": (16, 4, 3, 3), "x.weight": (1,)}, "has 'x.weight'"),
        ({"1.weight": (16, 4, 3, 3), **{f"{i}.conv.0.bias": (1,) for i in (3, 5, 7, 9)}}, "lacks"),
    ],
)
def test_files_that_are_no_decoder_are_refused(
    tensors: dict[str, tuple[int, ...]], words: str, sd1: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in tensors.items()}, path)
    with pytest.raises(ModelError, match=str(path)) as caught:
        replace_decoder(sd1, f"taesd:{path}")
    assert words in str(caught.value)


def test_a_missing_decoder_and_a_full_one_are_refused(sd1: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is missing"):
        replace_decoder(sd1, f"taesd:{tmp_path / 'none.safetensors'}")
    other_vae(tmp_path / "vae")
    with pytest.raises(ModelError, match="expected AutoencoderTiny"):
        replace_decoder(sd1, f"taesd:{tmp_path / 'vae'}")
