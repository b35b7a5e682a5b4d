"""Export of whole folders: the bundled one again, small ones of every kind, and refusals."""

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
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from giffusion.engine.conditions.embedder import PromptEmbedder
from giffusion.engine.contract import GraphSpec
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import GRAPHS, Model, graph_names, load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.export.model import export_model
from tests.export import families
from tests.export.renders import OpenModel

MAX_BUNDLED_BYTES = 30_000_000
MAX_OWN_BYTES = 1_000_000
"""A graph file without its weights."""
ELEMENT_TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.UINT8: "uint8",
}
AGAIN = ("fp32",)
GENERATED = shutil.ignore_patterns("*.onnx", MANIFEST)
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def again(mini: Model, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The bundled checkpoint, exported anew for CPUs."""
    folder = tmp_path_factory.mktemp("exported") / "copy"
    shutil.copytree(mini.folder, folder, ignore=GENERATED)
    lines: list[str] = []
    name = mini.manifest.name
    manifest = export_model(folder, name=name, dtypes=AGAIN, progress=lines.append)
    assert lines == [f"{name}: tracing {stage} in {dtype}" for stage in GRAPHS for dtype in AGAIN]
    model = load_model(folder)
    assert model.manifest == manifest
    return model


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
    mini: Model, again: Model, onnxruntime: Runtime, stage: str, axes: dict[str, int]
) -> None:
    committed, anew = (run(model, onnxruntime, stage, axes) for model in (mini, again))
    assert committed.std() > 0.05
    np.testing.assert_allclose(committed.astype(float), anew.astype(float), rtol=0, atol=1e-6)


def test_the_committed_manifest_is_what_export_writes(mini: Model, again: Model) -> None:
    # The graphs' hashes depend on the tracer's version; what they are of does not.
    texts = [json.loads((m.folder / MANIFEST).read_text()) for m in (mini, again)]
    names = [text.pop("graphs").keys() for text in texts]
    assert names == [set(graph_names()), set(graph_names(AGAIN))]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("model", ["mini", "again"])
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
    [("mini", n) for n in graph_names()] + [("again", n) for n in graph_names(AGAIN)],
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


def test_diffusers_still_loads_the_folder(again: Model) -> None:
    pipeline = load_pipeline(again.folder)
    assert type(pipeline) is StableDiffusionPipeline
    size = {"height": 64, "width": 96}
    result = pipeline("a dog", num_inference_steps=1, output_type="np", **size).images
    assert result.shape == (1, 64, 96, 3)


def test_a_manifest_has_the_widths_of_its_networks(exported: OpenModel) -> None:
    model = exported("sd2")
    manifest = model.manifest
    assert manifest.name == "sd2"
    assert (manifest.size, manifest.size_multiple) == ((64, 64), 16)
    assert (manifest.num_tokens, manifest.text_dims, manifest.time_dim) == (8, (48,), 32)
    # SD 2 pads with another token than the end.
    assert manifest.pad_token_ids == (0,)
    assert (manifest.pooled_dim, manifest.guidance_dim, manifest.zero_negative) == (
        None,
        None,
        False,
    )
    for name in graph_names(["fp32"]):
        assert (model.folder / f"{name}.onnx").stat().st_size < MAX_OWN_BYTES


def test_what_sdxl_and_lcm_need_besides_is_in_their_manifests(exported: OpenModel) -> None:
    sdxl, lcm = exported("sdxl").manifest, exported("lcm").manifest
    assert (sdxl.text_dims, sdxl.prompt_dim, sdxl.pooled_dim) == ((32, 48), 80, 40)
    assert (sdxl.pad_token_ids, sdxl.zero_negative) == ((3, 0), True)
    assert (sdxl.guidance_dim, lcm.guidance_dim) == (None, 32)
    assert (lcm.pooled_dim, lcm.zero_negative) == (None, False)
    assert "tokenizer_2/tokenizer.json" in sdxl.sources
    assert "text_encoder_2/model.safetensors" in sdxl.sources


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_embeddings_are_those_of_diffusers(
    exported: OpenModel, onnxruntime: Runtime, family: str
) -> None:
    embedder = PromptEmbedder(exported(family), onnxruntime)
    pipeline = families.make(family)
    for prompt in ("", "a red house", "dog " * 20):
        with torch.no_grad():
            encoded = pipeline.encode_prompt(
                prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
            )
        np.testing.assert_allclose(embedder.embed(prompt), encoded[0][0].numpy(), rtol=0, atol=1e-5)
        assert embedder.pools == (family == "sdxl")
        if embedder.pools:
            pooled = encoded[2][0].numpy()
            np.testing.assert_allclose(embedder.pool(prompt), pooled, rtol=0, atol=1e-5)
    embedder.close()


@pytest.mark.parametrize("family", ["sd1", "sd1-tiny"])
def test_pictures_are_encoded_as_diffusers_encodes_them(
    exported: OpenModel, onnxruntime: Runtime, family: str
) -> None:
    model, axes = exported(family), {"images": 2, "h": 4, "w": 6}
    rgb = random_inputs(model, model.spec("encode"), axes)["rgb"]
    pipeline = families.make(family)
    pictures = pipeline.image_processor.preprocess(rgb.astype(np.float32) / 255)
    with torch.no_grad():
        encoded = pipeline.vae.encode(pictures)
    latents = encoded.latents if family == "sd1-tiny" else encoded.latent_dist.mode()
    expected = latents * pipeline.vae.config.scaling_factor
    result = run(model, onnxruntime, "encode", axes)
    np.testing.assert_allclose(result, expected.numpy(), rtol=0, atol=1e-5)


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
            "has 9 input and 4 output channels: expected 4 and 4; an inpainting model is not",
        ),
        (changed("unet/config.json", in_channels=8), "has 8 input"),
        (changed("unet/config.json", out_channels=8), "and 8 output channels"),
        (
            changed("unet/config.json", addition_embed_type="text_time"),
            "has no projection_class_embeddings_input_dim, addition_time_embed_dim or cross_att",
        ),
        (
            changed("unet/config.json", addition_embed_type="image"),
            "has addition_embed_type='image': expected none or text_time; such a model is not",
        ),
        (changed("unet/config.json", class_embed_type="timestep"), "class_embed_type='timestep'"),
        (changed("unet/config.json", quantization_config={}), "unet is quantised: expected plain"),
        (
            changed("vae/config.json", _class_name="AutoencoderKLWan"),
            "vae is a 'AutoencoderKLWan': expected AutoencoderKL or AutoencoderTiny",
        ),
        (changed("vae/config.json", latent_channels=16), "vae has 16 latent channels: expected 4"),
        (
            changed("vae/config.json", latents_mean=["0"]),
            "vae has latents_mean=['0']: expected 4 numbers, or none",
        ),
        (
            changed("text_encoder/config.json", architectures=["T5EncoderModel"]),
            "text_encoder is a ['T5EncoderModel']: expected CLIPTextModel",
        ),
        (
            changed("text_encoder/config.json", hidden_act="no such function"),
            "has a config.json that is no CLIPTextModel's: ",
        ),
        (removed("model_index.json"), "model_index.json is missing: expected a diffusers"),
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


@pytest.mark.parametrize(
    ("dtypes", "message"),
    [
        (("fp16",), "types fp16 lack fp32, which every model has: add it"),
        ((), "lack fp32, which every model has"),
        (("fp32", "fp61"), "unknown type of graphs 'fp61': did you mean 'fp16'?"),
    ],
)
def test_types_that_there_are_not(checkpoint: Path, dtypes: tuple[str, ...], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        export_model(checkpoint, dtypes=dtypes, progress=lambda line: None)
    assert message in str(caught.value)
