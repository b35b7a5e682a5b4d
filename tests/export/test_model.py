"""Export of whole folders: the bundled one again, a small one of other kinds, and refusals."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from giffusion.engine.contract import GraphSpec
from giffusion.engine.embedder import PromptEmbedder
from giffusion.engine.errors import ModelError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import GRAPHS, Model, graph_names, load_model
from giffusion.engine.noise import initial_noise
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timeline import Timeline
from giffusion.export.__main__ import main
from giffusion.export.model import export_model

MAX_BUNDLED_BYTES = 30_000_000
MAX_OWN_BYTES = 1_000_000
"""A graph file without its weights."""
ELEMENT_TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.UINT8: "uint8",
}
AGAIN = ("fp32", "fp16")
GENERATED = shutil.ignore_patterns("*.onnx", MANIFEST)
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def exported(mini: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The bundled checkpoint, exported anew for CPUs and in one half precision."""
    folder = tmp_path_factory.mktemp("exported") / "copy"
    shutil.copytree(mini.folder, folder, ignore=GENERATED)
    lines: list[str] = []
    name = mini.manifest.name
    manifest = export_model(folder, name=name, dtypes=AGAIN, progress=lines.append)
    assert lines == [f"copy: tracing {stage} in {dtype}" for stage in GRAPHS for dtype in AGAIN]
    model = load_model(folder)
    assert model.manifest == manifest
    return model


@pytest.fixture(scope="module")
def onnxruntime(open_cpu: Callable[[str, str], Runtime]) -> Runtime:
    return open_cpu("onnxruntime", "fp32")


def random_inputs(model: Model, spec: GraphSpec, axes: dict[str, int]) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(0)

    def value(name: str, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if name == "row_slot":
            return (np.arange(axes["rows"]) % axes["slots"]).astype(np.int32)
        if name == "input_ids":
            return random.integers(0, 4096, shape, np.int32)
        if dtype == "uint8":
            return random.integers(0, 256, shape, np.uint8)
        return random.standard_normal(shape, np.float32)

    return {t.name: value(t.name, t.dtype, t.resolve(axes)) for t in spec.inputs}


def run(model: Model, runtime: Runtime, stage: str, axes: dict[str, int]) -> NDArray[Any]:
    spec = model.spec(stage)
    graph = runtime.load(model.graph_path(stage), spec, axes)
    for name, value in random_inputs(model, spec, axes).items():
        graph.write(name, value)
    graph.run()
    return graph.read(spec.outputs[0].name)


@pytest.mark.parametrize(
    ("stage", "axes"),
    [
        ("text", {"prompts": 3}),
        ("denoise", {"slots": 3, "rows": 5, "h": 16, "w": 12}),
        ("decode", {"images": 2, "h": 16, "w": 12}),
        ("encode", {"images": 2, "h": 4, "w": 12}),
    ],
)
def test_the_committed_graphs_are_what_export_writes(
    mini: Model, exported: Model, onnxruntime: Runtime, stage: str, axes: dict[str, int]
) -> None:
    committed, again = (run(model, onnxruntime, stage, axes) for model in (mini, exported))
    assert committed.std() > 0.05
    np.testing.assert_allclose(committed.astype(float), again.astype(float), rtol=0, atol=1e-6)


def test_the_committed_manifest_is_what_export_writes(mini: Model, exported: Model) -> None:
    # The graphs' hashes depend on the tracer's version; what they are of does not.
    texts = [json.loads((m.folder / MANIFEST).read_text()) for m in (mini, exported)]
    names = [text.pop("graphs").keys() for text in texts]
    assert names == [set(graph_names()), set(graph_names(AGAIN))]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("model", ["mini", "exported"])
def test_the_manifest_names_the_files_that_are_there(
    request: pytest.FixtureRequest, model: str
) -> None:
    folder, manifest = (opened := request.getfixturevalue(model)).folder, opened.manifest
    hashes = {f"{stage}.onnx": sha for stage, sha in manifest.graphs.items()} | manifest.sources
    there = {path.name for path in folder.glob("*.onnx")}
    assert {path for path in hashes if path.endswith(".onnx")} == there
    for path, sha in hashes.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == sha, path


def test_the_bundled_model_is_small(mini: Model) -> None:
    files = [path for path in mini.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BUNDLED_BYTES


@pytest.mark.parametrize("name", graph_names())
def test_tensors_are_those_of_the_contract(mini: Model, name: str) -> None:
    graph = onnx.load(mini.folder / f"{name}.onnx", load_external_data=False).graph
    spec = mini.spec(name.partition(".")[0])
    for values, tensors in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
        found = [
            (
                value.name,
                ELEMENT_TYPES[value.type.tensor_type.elem_type],
                tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in values
        ]
        assert found == [(tensor.name, tensor.dtype, tensor.shape) for tensor in tensors]


@pytest.mark.parametrize(
    ("model", "name"),
    [("mini", n) for n in graph_names()] + [("exported", n) for n in graph_names(AGAIN)],
)
def test_graphs_hold_no_trace_of_the_machine(
    request: pytest.FixtureRequest, model: str, name: str
) -> None:
    opened: Model = request.getfixturevalue(model)
    content = (opened.folder / f"{name}.onnx").read_bytes()
    for path in (opened.folder, Path.cwd(), Path.home(), Path(sys.prefix)):
        assert path == Path("/") or os.fsencode(path) not in content
    assert b"site-packages" not in content
    # Two letters and slashes turn up among the bytes of any weights.
    assert not re.search(rb"(^|[^\w.])/[a-zA-Z]{3,}/", content)
    assert not re.search(rb"\.py\b", content)
    user = Path.home().name.encode()
    assert not user or not re.search(rb"\b%s\b" % re.escape(user), content)


@pytest.mark.parametrize("name", graph_names())
def test_weights_are_stored_once(mini: Model, name: str) -> None:
    path = mini.folder / f"{name}.onnx"
    assert path.stat().st_size < MAX_OWN_BYTES
    locations = set()
    for initializer in onnx.load(path, load_external_data=False).graph.initializer:
        where = {item.key: item.value for item in initializer.external_data}
        if not where:
            continue
        locations.add(where["location"])
        end = int(where["offset"]) + int(where["length"])
        assert end <= (mini.folder / where["location"]).stat().st_size
    part = {"text": "text_encoder", "denoise": "unet"}.get(name.partition(".")[0], "vae")
    assert {Path(location).parent.name for location in locations} == {part}
    assert locations <= mini.manifest.sources.keys()


def load_pipeline(folder: Path) -> Any:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(torch.float32)


def test_diffusers_still_loads_the_folder(exported: Model) -> None:
    pipeline = load_pipeline(exported.folder)
    assert type(pipeline) is StableDiffusionPipeline
    result = pipeline("a dog", num_inference_steps=1, output_type="np").images
    assert result.shape == (1, 128, 128, 3)


# A checkpoint of the other kinds that export takes: epsilon prediction, a full autoencoder, linear
# projections, two layers a block, single precision, another pad token than the end token.


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("small") / "small"
    pipeline = StableDiffusionPipeline(
        vae=small_vae(),
        text_encoder=small_text_encoder(),
        tokenizer=small_tokenizer(),
        unet=small_unet(),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type="epsilon",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    with pytest.MonkeyPatch.context() as patch:
        options = ["--name", "a small one", "--dtypes", "fp32"]
        patch.setattr(sys, "argv", ["export", str(folder), *options])
        assert main() == 0
    return folder


def small_vae() -> Any:
    return AutoencoderKL(
        block_out_channels=(16, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        scaling_factor=0.18215,
    )


def small_text_encoder() -> Any:
    config = CLIPTextConfig(
        vocab_size=32,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        hidden_act="gelu",
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
    )
    return CLIPTextModel(config)


def small_tokenizer() -> Any:
    words = ["!", "<unk>", "<s>", "</s>", "a", "red", "house", "dog", "on", "the", "moon"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    kind: Any = PreTrainedTokenizerFast
    return kind(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="!",
        model_max_length=8,
    )


def small_unet() -> Any:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=48,
        attention_head_dim=8,
        norm_num_groups=16,
        use_linear_projection=True,
    )


def test_the_small_models_manifest(small: Path) -> None:
    manifest = load_model(small).manifest
    assert manifest.name == "a small one"
    assert (manifest.size, manifest.size_multiple) == ((64, 64), 16)
    assert (manifest.num_tokens, manifest.prompt_dim, manifest.time_dim) == (8, 48, 32)
    assert manifest.pad_token_id == 0
    for name in graph_names(["fp32"]):
        assert (small / f"{name}.onnx").stat().st_size < MAX_OWN_BYTES


def test_the_small_models_embeddings(small: Path, onnxruntime: Runtime) -> None:
    embed = PromptEmbedder(load_model(small), onnxruntime).embed
    pipeline = load_pipeline(small)
    for prompt in ("", "a red house", "dog " * 20):
        with torch.no_grad():
            expected = pipeline.encode_prompt(prompt, "cpu", 1, False)[0][0]
        np.testing.assert_allclose(embed(prompt), expected.numpy(), rtol=0, atol=1e-5)


def test_the_small_model_renders_what_diffusers_renders(small: Path, onnxruntime: Runtime) -> None:
    model = load_model(small)
    settings = RenderSettings(steps=6, sampler="ddim", guidance=4.0, negative="the moon")
    timeline = Timeline(parse_prompts("0: a red house\n1: a dog --seed 5"), settings)
    frames = Frames()
    with Engine(model, onnxruntime, batch=4) as engine:
        engine.submit("job", timeline, settings, frames)
        engine.run()
    seeds = [plan.seeds[0] for plan in timeline]
    noise = np.stack([initial_noise(seed, (4, 8, 8)) for seed in seeds])
    pipeline = load_pipeline(small)
    expected = pipeline(
        ["a red house", "a dog"],
        negative_prompt=["the moon"] * 2,
        guidance_scale=4.0,
        num_inference_steps=6,
        latents=torch.from_numpy(noise),
        output_type="np",
    ).images
    difference = np.abs(np.stack(frames.pictures) / 255 - expected)
    # Random weights give pictures of little contrast, so rounding to bytes is all that may differ.
    assert expected.std() > 0.02
    assert difference.max() <= 0.51 / 255, f"largest difference {difference.max() * 255} of 255"


def test_the_small_model_encodes_as_diffusers_does(small: Path, onnxruntime: Runtime) -> None:
    model, axes = load_model(small), {"images": 2, "h": 4, "w": 6}
    rgb = random_inputs(model, model.spec("encode"), axes)["rgb"]
    pipeline = load_pipeline(small)
    pictures = pipeline.image_processor.preprocess(rgb.astype(np.float32) / 255)
    with torch.no_grad():
        latents = pipeline.vae.encode(pictures).latent_dist.mode() * 0.18215
    result = run(model, onnxruntime, "encode", axes)
    np.testing.assert_allclose(result, latents.numpy(), rtol=0, atol=1e-5)


class Frames:
    """Keeps the frames of a job."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.pictures: list[NDArray[np.uint8]] = []

    def write(self, index: int, frame: Frame) -> None:
        assert index == len(self.pictures)
        assert isinstance(frame, np.ndarray)
        self.pictures.append(frame)


@pytest.fixture
def checkpoint(mini: Model, tmp_path: Path) -> Iterator[Path]:
    """The bundled checkpoint with configurations to change, and links to its weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(mini.folder, folder, ignore=shutil.ignore_patterns("*.onnx", "*.safetensors"))
    (folder / MANIFEST).unlink()
    for weights in mini.folder.rglob("*.safetensors"):
        (folder / weights.relative_to(mini.folder)).symlink_to(weights)
    yield folder
    # A refused folder is left as it was.
    assert not (folder / MANIFEST).exists()
    assert not list(folder.glob("*.onnx"))


def changed(file: str, **changes: object) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def removed(file: str) -> Edit:
    return lambda folder: (folder / file).unlink()


def replaced(file: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / file).write_text(text)

    return edit


def only_bin(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            changed("unet/config.json", in_channels=9),
            "has 9 input and 4 output channels: expected 4 and 4; inpainting",
        ),
        (changed("unet/config.json", in_channels=8), "has 8 input"),
        (changed("unet/config.json", out_channels=8), "and 8 output channels"),
        (
            changed("unet/config.json", addition_embed_type="text_time"),
            "has addition_embed_type='text_time': expected none; SDXL",
        ),
        (changed("unet/config.json", time_cond_proj_dim=256), "time_cond_proj_dim=256"),
        (changed("unet/config.json", class_embed_type="timestep"), "class_embed_type='timestep'"),
        (
            changed("vae/config.json", _class_name="AutoencoderKLWan"),
            "vae is AutoencoderKLWan: expected AutoencoderKL or AutoencoderTiny",
        ),
        (removed("unet/config.json"), "unet/config.json is missing: expected a diffusers"),
        (removed("vae/config.json"), "vae/config.json is missing: expected a diffusers"),
        (removed("text_encoder/config.json"), "text_encoder/config.json is missing"),
        (removed("scheduler/scheduler_config.json"), "scheduler_config.json is missing"),
        (removed("tokenizer/tokenizer.json"), "tokenizer/tokenizer.json is missing"),
        (removed("tokenizer/tokenizer_config.json"), "tokenizer_config.json is missing"),
        (
            removed("vae/diffusion_pytorch_model.safetensors"),
            "vae/diffusion_pytorch_model.safetensors is missing: expected safetensors weights",
        ),
        (removed("text_encoder/model.safetensors"), "text_encoder/model.safetensors is missing"),
        (only_bin, "diffusion_pytorch_model.safetensors is missing: expected safetensors weights"),
        (
            changed("tokenizer/tokenizer_config.json", pad_token="<none>"),
            "has no pad token '<none>' in its vocabulary",
        ),
        (
            changed("scheduler/scheduler_config.json", thresholding=True),
            "the scheduler's thresholding is true",
        ),
        (replaced("unet/config.json", "{"), "unet/config.json cannot be read"),
        (replaced("unet/config.json", "[]"), "unet/config.json is not a JSON object"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_a_line(
    checkpoint: Path, edit: Edit, expected: str
) -> None:
    edit(checkpoint)
    with pytest.raises(ModelError) as caught:
        export_model(checkpoint, progress=lambda line: None)
    message = str(caught.value)
    assert expected in message
    assert "\n" not in message


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json is missing: expected a diffusers"):
        export_model(tmp_path / "nothing")


def test_the_command_line_prints_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path)])
    assert main() == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert re.fullmatch(r"giffusion: .*config\.json is missing: .*\n", streams.err)
