"""The training's command line on a corpus of four pictures, from nothing to a pipeline."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors import safe_open

from giffusion.models.train import main
from giffusion.models.training.checkpoints import load_tensors
from giffusion.models.training.networks import TOY, Denoiser, autoencoder
from giffusion.models.training.prepared import holds_corpus, load_prepared
from giffusion.models.training.publish import publish_part

# The samplers of diffusers warn with the NumPy that is installed.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
    more += ["--listen-pictures", "2"]
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

    # The scenes are encoded once for both stages.
    assert capsys.readouterr().out.count("latents (") == 1
    # It goes on where it ended: the steps are done, and nothing is trained or downloaded again.
    assert main(_arguments(data, tmp_path, "--steps", "2", "--resume", "--download")) == 0
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
    said, count = capsys.readouterr().out, len(load_prepared(data).scenes)
    assert said.index(f"latents ({count}, 4, 4, 4)") < said.index(f"latents ({count}, 4, 12, 12)")
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
    flat, unet = tmp_path / "flat", tmp_path / "unet"
    publish_part(unet, Denoiser.new(TOY).unet)
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
        (_arguments(data, tmp_path, "--autoencoder", str(unet)), "of UNet2DConditionModel: name"),
        (_arguments(data, tmp_path, "--autoencoder", str(flat)), "of 3 levels and 4 latent chan"),
        (
            _arguments(data, tmp_path, "--autoencoder-minutes", "0"),
            "-minutes 0.0: expected",
        ),
        (_arguments(data, tmp_path, "--turbo-minutes", "8"), "together less than --minutes 8.0"),
        (_arguments(data, tmp_path, "--listen-turbo", str(flat)), "expected --listen and its mod"),
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("train: ")
        assert error.count("\n") == 1
        assert message in error or message == "no corpus"


def test_a_corpus_that_is_absent_is_made_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without npm it ends where the pictures would be fetched, and leaves no corpus.
    monkeypatch.setenv("PATH", str(tmp_path))
    more = ["--download", "--downloads", str(tmp_path / "downloads")]
    assert main(_arguments(tmp_path / "absent", tmp_path, *more)) == 1
    assert "npm pack failed" in capsys.readouterr().err
    assert not holds_corpus(tmp_path / "absent")
