"""The training's command line on a corpus of four pictures, from nothing to a pipeline."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from giffusion.models.train import main
from giffusion.models.training.checkpoints import load_tensors
from giffusion.models.training.networks import TOY, autoencoder
from giffusion.models.training.prepared import save_prepared
from giffusion.models.training.scenes import NOTHING, Scenes
from giffusion.models.training.tokens import train_tokenizer

# The samplers of diffusers warn with the NumPy that is installed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NAMES = ["disc", "square", "bar", "frame"]
COUNT = 16


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    captions = [f"a picture of a {NAMES[i % 4]}" for i in range(COUNT)]
    layers = torch.full((COUNT, 2), NOTHING, dtype=torch.int16)
    layers[:, 0] = torch.arange(COUNT) % 4
    place = torch.tensor([0.0, 0.0, 0.8, 0.0]).expand(COUNT, 2, 4).half()
    no = torch.zeros(COUNT, 2, dtype=torch.bool)
    colours = torch.ones(COUNT, 2, 3).half()
    scenes = Scenes(layers, place, no, no, colours, colours, torch.zeros(COUNT, 2).half())
    pictures = [_webp(number) for number in range(4)]
    tokenizer = train_tokenizer(captions, 512)
    save_prepared(folder, pictures, NAMES, scenes, captions, [], tokenizer)
    return folder


def _webp(number: int) -> bytes:
    image = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(image)
    shape = (draw.ellipse, draw.rectangle)[number % 2]
    shape((30, 30 + 30 * number, 220, 220), fill=(60 * number, 200 - 40 * number, 90, 255))
    stream = io.BytesIO()
    image.save(stream, "webp", lossless=True)
    return stream.getvalue()


def _arguments(data: Path, tmp_path: Path, *more: str) -> list[str]:
    folders = [
        "--data",
        str(data),
        "--work",
        str(tmp_path / "work"),
        "--out",
        str(tmp_path / "out"),
    ]
    size = ["--size", "toy", "--batch", "2", "--autoencoder-batch", "4", "--sample-steps", "1"]
    size += ["--listen-batch", "4"]
    return [*folders, *size, "--device", "cpu", *more]


def test_a_training_ends_in_a_pipeline_that_diffusers_runs(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = tmp_path / "pack"
    more = ["--steps", "2", "--turbo-minutes", "1", "--turbo-walks", "2", "--pack", str(pack)]
    assert main(_arguments(data, tmp_path, *more)) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        *("model", "turbo", "log.txt"),
        *("samples.png", "samples-walks.png", "turbo.png", "turbo-walks.png"),
    }
    assert (pack / "result.tar.0").is_file()
    pipeline = StableDiffusionPipeline.from_pretrained(out / "model", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a picture of a disc", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    with safe_open(out / "model" / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert (
        json.loads((out / "model" / "model_index.json").read_text())["vae"][1] == "AutoencoderTiny"
    )

    # All but the U-Net is the model's; its text encoder has learned phrasings since.
    with safe_open(out / "model" / "text_encoder" / "model.safetensors", "pt") as file:
        before = file.get_tensor("embeddings.token_embedding.weight")
    listened = tmp_path / "listened"
    more = ["--listen", str(out / "model"), "--out", str(listened), "--steps", "2"]
    assert main([*_arguments(data, tmp_path), *more]) == 0
    with safe_open(listened / "model" / "text_encoder" / "model.safetensors", "pt") as file:
        assert not before.equal(file.get_tensor("embeddings.token_embedding.weight"))
    for part in ("unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert (listened / "model" / part).read_bytes() == (out / "model" / part).read_bytes()

    # With pictures its cross-attention learns as well, and the turbo takes the same difference,
    # whoever wrote the tokenizer's JSON.
    vocabulary = listened / "model" / "tokenizer" / "tokenizer.json"
    vocabulary.write_text(json.dumps(json.loads(vocabulary.read_text())))
    unet = listened / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    # After two steps a U-Net says hardly anything yet, from which nothing is learned.
    spoken = {
        name: value + 0.05 * torch.randn_like(value) for name, value in load_file(unet).items()
    }
    save_file(spoken, unet)
    seen, listening = tmp_path / "seen", ["--listen-pictures", "2", "--steps", "20"]
    more = ["--listen", str(listened / "model"), "--listen-turbo", str(out / "turbo")]
    assert main([*_arguments(data, tmp_path), *more, *listening, "--out", str(seen)]) == 0
    model, turbo, learned, followed = (
        load_file(folder / "diffusion_pytorch_model.safetensors")
        for folder in (unet.parent, out / "turbo", seen / "model/unet", seen / "turbo")
    )
    learned_of = set()
    for name, before in model.items():
        difference = learned[name].float() - before.float()
        expected = turbo[name].float() + difference
        assert torch.allclose(followed[name].float(), expected, atol=2e-3), name
        if difference.any():
            learned_of.add(name)
    assert learned_of
    assert all(".attn2." in name for name in learned_of)

    # The scenes are encoded once for both stages.
    assert capsys.readouterr().out.count("latents (") == 1
    # It goes on where it ended: the steps are done, and nothing is trained again.
    assert main(_arguments(data, tmp_path, "--steps", "2", "--resume")) == 0
    assert "saved at step 2" in capsys.readouterr().out


def test_a_training_begins_on_small_pictures_with_an_autoencoder_from_elsewhere(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first"
    assert main(_arguments(data, first, "--steps", "1")) == 0
    capsys.readouterr()
    vae = first / "out" / "model" / "vae"
    more = ["--image", "96", "--coarse-image", "32", "--autoencoder", str(vae)]
    more += ["--minutes", "8", "--coarse-minutes", "4", "--steps", "4"]
    assert main(_arguments(data, tmp_path, *more)) == 0
    said = capsys.readouterr().out
    assert said.index(f"latents ({COUNT}, 4, 4, 4)") < said.index(f"latents ({COUNT}, 4, 12, 12)")
    assert "autoencoder: step" not in said
    published = [
        AutoencoderTiny.from_pretrained(folder, low_cpu_mem_usage=False).state_dict()
        for folder in (vae, tmp_path / "out" / "model" / "vae")
    ]
    for name, value in published[0].items():
        assert value.equal(published[1][name])

    # What was encoded and trained is not done again.
    assert main(_arguments(data, tmp_path, *more, "--resume")) == 0
    said = capsys.readouterr().out
    assert "latents" not in said
    assert "saved at step 4" in said


def test_a_given_decoder_is_trained_on_and_its_encoder_stays(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vae"
    autoencoder(TOY).save_pretrained(folder)  # type: ignore[operator]
    more = ["--autoencoder", str(folder), "--autoencoder-minutes", "1", "--steps", "2"]
    assert main(_arguments(data, tmp_path, *more)) == 0
    before, after = (
        AutoencoderTiny.from_pretrained(one, low_cpu_mem_usage=False).state_dict()
        for one in (folder, tmp_path / "out" / "model" / "vae")
    )
    assert before.keys() == after.keys()
    changed = {name for name, value in before.items() if not value.half().equal(after[name].half())}
    assert changed
    assert all(name.startswith("decoder.") for name in changed)


def test_an_interrupted_training_keeps_its_steps(data: Path, tmp_path: Path) -> None:
    # What is started in the background by a script ignores the signal, and so would this.
    code = "import signal, sys; from giffusion.models.train import main; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    command = [sys.executable, "-W", "ignore", "-c", code]
    more = ["--minutes", "9", "--autoencoder-minutes", "0.01", "--listen-minutes", "0"]
    with subprocess.Popen(
        [*command, *_arguments(data, tmp_path, *more)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "diffusion: step" in line:
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130
    step = int(rest.split("saved at step ")[1].split()[0])
    assert step >= 20
    _, notes = load_tensors(tmp_path / "work" / "diffusion.safetensors")
    assert int(notes["step"]) == step
    assert (tmp_path / "out" / "model" / "model_index.json").is_file()


def test_a_mistake_is_answered_in_a_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3,
        decoder_block_out_channels=(8,) * 3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    ).save_pretrained(flat)
    for arguments, message in (
        (_arguments(tmp_path / "absent", tmp_path), "no corpus"),
        (_arguments(data, tmp_path, "--batch", "0"), "--batch 0: expected more than 0"),
        (_arguments(data, tmp_path, "--autoencoder-batch", "6"), "expected a multiple of 4"),
        (_arguments(data, tmp_path, "--coarse-image", "100"), "--coarse-image 100: expected a mul"),
        (_arguments(data, tmp_path, "--coarse-minutes", "9"), "--coarse-minutes 9.0: expected 0"),
        (_arguments(data, tmp_path, "--autoencoder", str(data)), f"{data}: no config.json"),
        (_arguments(data, tmp_path, "--autoencoder", str(flat)), "of 3 levels and 4 latent chan"),
        (
            _arguments(data, tmp_path, "--autoencoder-minutes", "0"),
            "-minutes 0.0: expected",
        ),
        (_arguments(data, tmp_path, "--turbo-minutes", "8"), "together less than --minutes 8.0"),
        (_arguments(data, tmp_path, "--listen-pictures", "-1"), "--listen-pictures -1: expected 0"),
        (_arguments(data, tmp_path, "--listen-turbo", str(flat)), "expected --listen and its mod"),
        (
            _arguments(data, tmp_path, "--listen", str(flat), "--listen-turbo", str(flat)),
            f"{flat}: U-Nets learn with --listen-pictures above 0 only",
        ),
        (
            _arguments(data, tmp_path, "--listen", str(flat)),
            f"{flat}: its tokenizer is no",
        ),
        (
            _arguments(data, tmp_path, "--listen", str(tmp_path / "out" / "model")),
            "the result would replace it: name another --out",
        ),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("train: ")
        assert error.count("\n") == 1
        assert message in error or message == "no corpus"
