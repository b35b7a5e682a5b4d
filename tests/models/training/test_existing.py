"""A trained model that learns phrasings: what it learns, what stays, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from giffusion.models.train import main
from giffusion.models.training.existing import follow
from giffusion.models.training.networks import TOY, Denoiser, autoencoder
from giffusion.models.training.publish import publish, publish_part

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(data: Path, tmp_path: Path) -> Path:
    """A pipeline whose networks say something, and `turbo` beside it."""
    torch.manual_seed(0)
    networks = Denoiser.new(TOY)
    with torch.no_grad():
        # New ones say zero of everything, from which nothing is learned.
        for parameter in networks.unet.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        publish(tmp_path / "model", networks, autoencoder(TOY), data / "tokenizer")
        for parameter in networks.unet.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    publish_part(tmp_path / "turbo", networks.unet)
    return tmp_path / "model"


def arguments(data: Path, model: Path, out: Path, *more: str) -> list[str]:
    files = ["--data", str(data), "--listen", str(model), "--out", str(out)]
    return [*files, "--listen-batch", "4", "--device", "cpu", *more]


def test_the_text_encoder_alone_learns_without_pictures(
    data: Path, model: Path, tmp_path: Path
) -> None:
    # Whoever writes a tokenizer's JSON, it is the same tokenizer.
    vocabulary = model / "tokenizer" / "tokenizer.json"
    vocabulary.write_text(json.dumps(json.loads(vocabulary.read_text())))
    assert main(arguments(data, model, tmp_path / "out", "--steps", "20")) == 0
    changed = set()
    for path in model.rglob("*"):
        other = tmp_path / "out" / "model" / path.relative_to(model)
        if path.is_file() and path.read_bytes() != other.read_bytes():
            changed.add(path.relative_to(model).as_posix())
    assert changed == {"text_encoder/model.safetensors"}


def test_cross_attention_learns_with_pictures_and_a_turbo_follows(
    data: Path, model: Path, tmp_path: Path
) -> None:
    out, turbo = tmp_path / "out", tmp_path / "turbo"
    more = ["--listen-turbo", str(turbo), "--listen-pictures", "2", "--steps", "20"]
    assert main(arguments(data, model, out, *more)) == 0
    before, after, before_turbo, after_turbo = (
        load_file(folder / WEIGHTS)
        for folder in (model / "unet", out / "model" / "unet", turbo, out / "turbo")
    )
    learned = {name for name in before if not before[name].equal(after[name])}
    assert learned
    assert all(".attn2." in name for name in learned)
    followed = {name for name in before if not before_turbo[name].equal(after_turbo[name])}
    assert followed
    assert all(".attn2." in name for name in followed)
    for folder in (out / "model" / "unet", out / "turbo"):
        assert "_name_or_path" not in json.loads((folder / "config.json").read_text())


def test_a_network_follows_by_the_difference() -> None:
    variant, before, after = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
    expected = variant.weight + after.weight - before.weight
    follow(variant, before, after)
    assert torch.allclose(variant.weight, expected)


def test_a_mistake_is_answered_in_a_line(
    data: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, turbo = tmp_path / "out", str(tmp_path / "turbo")
    seen = ["--listen-pictures", "1", "--listen-turbo"]
    other = tmp_path / "other"
    publish_part(other, Denoiser.new(TOY).text_encoder)
    small = tmp_path / "small"
    nets = Denoiser.new(type(TOY)(64, (32, 32), (False, True), 1, 32, 64, 1, 4096, 8, 8))
    publish_part(small, nets.unet)
    capsys.readouterr()
    for given, message in (
        (arguments(data, other, out), f"{other}: its tokenizer is not that of {data}"),
        (arguments(data, model, tmp_path), f"{model}: the result would replace it"),
        (arguments(data, model, out, "--listen-turbo", turbo), "--listen-pictures above 0 only"),
        (arguments(data, model, out, *seen, str(small)), f"{small}: its networks are not the mod"),
        (arguments(data, model, out, *seen, str(other)), "of CLIPTextModel: name the folder of a"),
        (arguments(data, model, out, *seen, str(model)), f"{model}: no config.json"),
        (arguments(data, model, out, "--listen-pictures", "5"), "expected 0 to --listen-batch 4"),
        (arguments(data, model, out, "--listen-pictures", "-1"), "expected 0 to --listen-batch 4"),
    ):
        assert main([*given, "--steps", "1"]) == 1
        error = [line for line in capsys.readouterr().err.splitlines() if "train: " in line]
        assert len(error) == 1
        assert message in error[0]
        assert not (out / "model").exists()

    (out / "turbo").mkdir(parents=True)
    given = arguments(data, model, out, *seen, str(out / "turbo"))
    assert main(given) == 1
    assert f"{out / 'turbo'}: the result would replace it" in capsys.readouterr().err
