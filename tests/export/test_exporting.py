"""`giffusion export` from end to end: what is made renders, and what cannot be leaves nothing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import load_file

from giffusion.engine.conditions.noise import initial_noise
from giffusion.engine.errors import GiffusionError
from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import graph_names, load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.exporting import ExportSettings, export_checkpoint, read_source
from giffusion.server.cli import main
from tests.export import families
from tests.export.additions.lora_styles import Pairs, random_pairs, write_pairs
from tests.export.renders import OpenModel, guided, render

GRAPHS = ("fp32",)
SETTINGS = guided("ddim", negative="the moon")
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder; tests only read it."""
    return families.save("sd1", tmp_path_factory.mktemp("source") / "sd1")


def quiet(line: str) -> None:
    """Takes progress that nobody watches."""


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(checkpoint: str | Path, output: Path, settings: ExportSettings | None = None) -> str:
    """Returns the message of an export that is refused and leaves nothing behind."""
    place = output.parent
    before = digests(place)
    with pytest.raises(GiffusionError) as caught:
        export_checkpoint(checkpoint, output, settings, progress=quiet)
    assert digests(place) == before
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_the_command_exports_what_renders_the_same_pixels(
    source: Path, exported: OpenModel, onnxruntime: Runtime, tmp_path: Path, capfd: Capture
) -> None:
    output, before = tmp_path / "corgis", digests(source)
    assert main(["export", str(source), "-o", str(output), "--graphs", "fp32"]) == 0
    out, err = capfd.readouterr()
    assert out == (
        f"{output}: model corgis; render with --model {output}, or give it its name with "
        f"`giffusion models add {output}`\n"
    )
    assert "corgis: tracing denoise in fp32\n" in err
    assert [path.name for path in tmp_path.iterdir()] == ["corgis"]
    assert digests(source) == before
    model = load_model(output)
    assert model.manifest.graphs.keys() == set(graph_names(GRAPHS))
    origin = {path: digest for path, digest in before.items() if path in model.manifest.origin}
    assert model.manifest.origin == origin
    assert {f"{part}/{WEIGHTS_FILES[part]}" for part in ("unet", "vae")} < origin.keys()
    pictures = render(model, onnxruntime, SETTINGS).pictures
    assert np.std(pictures) > 1
    expected = render(exported("sd1"), onnxruntime, SETTINGS).pictures
    np.testing.assert_array_equal(pictures, expected)
    pipeline: Any = StableDiffusionPipeline.from_pretrained(output, local_files_only=True)
    assert pipeline.unet.config.cross_attention_dim == families.PROMPT_DIM


def test_in_place_graphs_appear_beside_the_weights(
    onnxruntime: Runtime, exported: OpenModel, tmp_path: Path, capfd: Capture
) -> None:
    folder = families.save("sd1", tmp_path / "sd1")
    before = digests(folder)
    words = ["export", str(folder), "-o", str(tmp_path / "." / "sd1"), "--graphs", "fp32"]
    assert main([*words, "--json", "--name", "mine"]) == 0
    out, _ = capfd.readouterr()
    assert json.loads(out) == {"name": "mine", "folder": str(folder)}
    assert out.count("\n") == 1
    after = digests(folder)
    assert {path: after[path] for path in before} == before
    added = {f"{name}.onnx" for name in graph_names(GRAPHS)} | {MANIFEST}
    assert after.keys() - before.keys() == added
    pictures = render(load_model(folder), onnxruntime, SETTINGS).pictures
    expected = render(exported("sd1"), onnxruntime, SETTINGS).pictures
    np.testing.assert_array_equal(pictures, expected)


def add_pairs(pipeline: Any, pairs: Pairs, scale: float) -> None:
    """Adds a LoRA to a pipeline's weights: W + scale · up @ down."""
    for (part, name), (down, up) in pairs.items():
        parameters = dict(getattr(pipeline, part).named_parameters())
        # transformers 5 leaves the prefix out.
        weight = parameters.get(name, parameters.get(name.removeprefix("text_model.")))
        assert weight is not None
        delta = up.reshape(len(up), -1) @ down.reshape(len(down), -1)
        with torch.no_grad():
            weight += scale * torch.from_numpy(delta).reshape(weight.shape)


def test_a_lora_an_embedding_and_a_decoder_in_half_precision_are_what_diffusers_renders(
    source: Path, onnxruntime: Runtime, tmp_path: Path
) -> None:
    pairs = random_pairs(read_folder(source))
    lora = write_pairs(tmp_path / "style.safetensors", pairs, "kohya")
    cat = np.random.default_rng(1).standard_normal((2, families.PROMPT_DIM), np.float32)
    save_file({"<cat>": cat}, tmp_path / "cat.safetensors")
    torch.manual_seed(9)
    tiny = families.tiny_vae()
    tiny.save_pretrained(tmp_path / "taesd")
    output = tmp_path / "edited"
    settings = ExportSettings(
        loras=((lora, 0.5),),
        embeddings=((tmp_path / "cat.safetensors", None),),
        decoder=f"taesd:{tmp_path / 'taesd'}",
        dtype="fp16",
        graphs=GRAPHS,
    )
    manifest = export_checkpoint(source, output, settings, progress=quiet)
    assert manifest.token_vectors == {"<cat>": 2}
    weights = [file for file in manifest.sources if file.endswith(".safetensors")]
    assert {file.partition("/")[0] for file in weights} == {
        "unet",
        "text_encoder",
        "vae",
        "decoder",
    }
    for file in weights:
        assert {tensor.dtype for tensor in load_file(output / file).values()} == {torch.float16}
    added = [lora, tmp_path / "cat.safetensors", *(tmp_path / "taesd").glob("*.safetensors")]
    made_of = {hashlib.sha256(path.read_bytes()).hexdigest() for path in added}
    assert len(made_of) == 3
    assert made_of < set(manifest.origin.values())

    (picture,) = render(load_model(output), onnxruntime, SETTINGS, prompts=["a <cat>"]).pictures
    without, expected = (by_diffusers(tiny, cat, chosen) for chosen in ({}, pairs))
    assert np.abs(without - expected).max() * 255 > 5
    difference = np.abs(picture / 255 - expected).max() * 255
    # A sum that rounds to the other of two half-precision numbers may move a level.
    assert difference <= 1.02, f"largest difference {difference} of 255"

    again = read_source(output, ExportSettings())
    for part in ("unet", "vae", "text_encoder", "decoder"):
        stored = load_file(output / part / WEIGHTS_FILES[part])
        assert again.parts[part].tensors.keys() == stored.keys()
    assert again.vocabularies["tokenizer"].config["token_vectors"] == {"<cat>": 2}


def by_diffusers(decoder: Any, cat: NDArray[np.float32], pairs: Pairs) -> NDArray[np.float32]:
    """Renders a prompt with a LoRA, an embedding and a decoder, in half precision's weights."""
    pipeline = families.make("sd1")
    add_pairs(pipeline, pairs, 0.5)
    table = pipeline.text_encoder.get_input_embeddings().weight
    with torch.no_grad():
        table[len(families.WORDS) : len(families.WORDS) + 2] = torch.from_numpy(cat)
    # The pipeline itself puts the second token behind the first.
    pipeline.tokenizer.add_tokens(["<cat>", "<cat>_1"])
    pipeline.vae = decoder
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        part.half().float()
    noise = initial_noise(0, (4, families.LATENT_SIDE, families.LATENT_SIDE))
    picture: NDArray[np.float32] = pipeline(
        "a <cat>",
        negative_prompt="the moon",
        guidance_scale=4.0,
        num_inference_steps=4,
        latents=torch.from_numpy(noise)[None],
        output_type="np",
    ).images[0]
    return picture


class Stopped(BaseException):
    """What a user's Ctrl-C or a failing library may raise."""


@pytest.mark.parametrize("at", ["tracing denoise in fp32", "unet"])
def test_an_export_that_is_stopped_leaves_nothing_behind(
    source: Path, tmp_path: Path, at: str
) -> None:
    def stop(line: str) -> None:
        if at in line:
            raise Stopped

    with pytest.raises(Stopped):
        export_checkpoint(source, tmp_path / "out", ExportSettings(graphs=GRAPHS), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_taken_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    expected = "exists and is not an empty folder: choose another -o, nothing was overwritten"
    assert refusal(tmp_path / "none", tmp_path / "out") == f"{tmp_path / 'out'} {expected}"
    (tmp_path / "file").write_text("mine")
    assert expected in refusal("nobody/at-all", tmp_path / "file")
    message = refusal(tmp_path / "none", tmp_path / "no" / "such" / "out")
    assert str(tmp_path / "no" / "such") in message


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "none", tmp_path / "out")
    assert message == (
        f"checkpoint {tmp_path / 'none'} does not exist: expected a diffusers folder, a "
        ".safetensors file, a folder made by Optimum, or a hub id such as org/name"
    )
    (tmp_path / "empty").mkdir()
    assert "model_index.json is missing" in refusal(tmp_path / "empty", tmp_path / "out")


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(pickle.dumps({"state_dict": {}}, 2))
    message = refusal(file, tmp_path / "out")
    assert f"{file} is a pickle, which can run code when it is read: convert it with" in message
    assert f"`giffusion convert {file} -o {tmp_path / 'model.safetensors'}`" in message


EDITS = {
    "loras": ((Path("a.safetensors"), 1.0),),
    "embeddings": ((Path("a.safetensors"), None),),
    "vae": Path("vae"),
    "decoder": "taesd:a",
    "controlnet": Path("controlnet"),
    "dtype": "fp32",
    "prediction": "epsilon",
}


@pytest.mark.parametrize("name", EDITS)
def test_what_is_made_by_optimum_or_is_in_place_is_not_edited(
    tmp_path: Path, source: Path, name: str
) -> None:
    settings: Any = ExportSettings(**{name: EDITS[name]})  # type: ignore[arg-type]
    graphs = tmp_path / "optimum"
    (graphs / "unet").mkdir(parents=True)
    (graphs / "unet" / "model.onnx").write_bytes(b"")
    message = refusal(graphs, tmp_path / "out", settings)
    assert message.startswith(f"{graphs} was made by Optimum and has graphs in place of weights")
    assert message.endswith("export the checkpoint that it was made of")
    message = refusal(source, source, settings)
    assert message == f"{source} is the checkpoint itself, which is not changed: choose another -o"


def test_every_edit_is_known_as_one() -> None:
    others = {"graphs", "optimum", "name", "prediction"}
    assert {field.name for field in fields(ExportSettings)} == {*EDITS, *others}
    for name, value in EDITS.items():
        edited: Any = {name: value}
        assert ExportSettings(**edited).edits == (name not in others)
    assert not ExportSettings().edits


def test_a_folders_prediction_is_its_schedulers(source: Path, tmp_path: Path) -> None:
    message = refusal(source, tmp_path / "out", ExportSettings(prediction="epsilon"))
    assert message.startswith("prediction 'epsilon' goes with a single file: ")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ExportSettings(graphs=("fp16",)), "types fp16 lack fp32"),
        (ExportSettings(graphs=("fp32", "int8")), "unknown type of graphs 'int8'"),
        (ExportSettings(dtype="fp8"), "'fp8'"),
        (ExportSettings(loras=((Path("none.safetensors"), 1.0),)), "none.safetensors"),
        (ExportSettings(embeddings=((Path("none.bin"), None),)), "none.bin"),
        (ExportSettings(vae=Path("none")), "none"),
        (ExportSettings(decoder="taehv:x"), "unknown decoder 'taehv:x'"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    source: Path, tmp_path: Path, settings: ExportSettings, expected: str
) -> None:
    assert expected in refusal(source, tmp_path / "out", settings)


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "unet" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def without_text_encoder(folder: Path) -> None:
    for path in (folder / "text_encoder").iterdir():
        path.unlink()
    (folder / "text_encoder").rmdir()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (edited(cross_attention_dim=96), "by its config.json"),
        (edited(layers_per_block=3), "it is incomplete, or its config.json is another model's"),
        (without_text_encoder, "text_encoder/config.json is missing"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, in_place: bool, damage: Callable[[Path], None], expected: str
) -> None:
    folder = families.save("sd1", tmp_path / "sd1")
    damage(folder)
    assert expected in refusal(folder, folder if in_place else tmp_path / "out")


@pytest.mark.parametrize("words", [["--dtype", "fp8"], ["--graphs", "fp64"], ["--lora", ":1"]])
def test_the_command_refuses_in_a_line(
    source: Path, tmp_path: Path, words: list[str], capfd: Capture
) -> None:
    assert main(["export", str(source), "-o", str(tmp_path / "out"), *words]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("giffusion: ")
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["torch", "diffusers", "safetensors", "onnx_ir"])
def test_without_the_packages_of_the_extra_it_says_how_to_get_them(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text(
        f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')"
    )
    done = subprocess.run(
        [sys.executable, "-m", "giffusion.server", "export", "none", "-o", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"giffusion: `giffusion export` does not work here: No module named '{name}'; "
        "pip install 'giffusion[export]'\n"
    )
