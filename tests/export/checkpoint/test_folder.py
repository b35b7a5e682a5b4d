"""Diffusers folders read: every family and layout of weights, and one line for all else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file

from giffusion.engine.errors import ModelError
from giffusion.export.checkpoint.checkpoint import Checkpoint
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.tensors import StoredTensor, Tensor
from tests.export.families import FAMILIES, make, save

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
PREFIX = "text_model."


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saves a family's folder once; not to be written to."""
    root = tmp_path_factory.mktemp("saved")

    def folder(family: str) -> Path:
        path = root / family
        return path if path.exists() else save(family, path)

    return folder


@pytest.fixture
def sd1(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved("sd1"), tmp_path / "sd1"))


@pytest.fixture
def sdxl(saved: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved("sdxl"), tmp_path / "sdxl"))


def torch_state(pipeline: Any, part: str) -> dict[str, torch.Tensor]:
    """A part's state dict by the names of transformers' CLIPTextModelWithProjection."""
    state = getattr(pipeline, part).state_dict()
    if not part.startswith("text_encoder"):
        return dict(state)
    whole = (PREFIX, "text_projection.")
    return {n if n.startswith(whole) else PREFIX + n: tensor for n, tensor in state.items()}


def values(tensor: Tensor) -> torch.Tensor:
    array = tensor.read()
    wide = torch.from_numpy(np.array(array, np.float32))
    return wide.bfloat16() if tensor.dtype == ir.DataType.BFLOAT16 else wide


def assert_holds(checkpoint: Checkpoint, pipeline: Any) -> None:
    for name, part in checkpoint.parts.items():
        expected = torch_state(pipeline, name)
        assert part.tensors.keys() == expected.keys()
        for key, tensor in part.tensors.items():
            assert torch.equal(values(tensor), expected[key].float()), key


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | changes), encoding="utf-8")


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        read_folder(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# The scheduler of diffusers that this family has is of before NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_tensor_by_tensor(family: str, saved: Callable[[str], Path]) -> None:
    folder = saved(family)
    checkpoint = read_folder(folder)
    assert_holds(checkpoint, make(family))
    assert checkpoint.name == family
    assert ("text_encoder_2" in checkpoint.parts) == family.startswith("sdxl")
    assert ("tokenizer_2" in checkpoint.vocabularies) == family.startswith("sdxl")
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    assert checkpoint.scheduler == scheduler
    assert all(isinstance(t, StoredTensor) for t in checkpoint.parts["unet"].tensors.values())


def test_sources_are_the_files_that_were_read(saved: Callable[[str], Path]) -> None:
    folder = saved("sdxl")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    sources = read_folder(folder).sources
    assert sources.keys() == files
    assert all(path == folder / name for name, path in sources.items())


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_are_read_as_one(variant: str | None, tmp_path: Path) -> None:
    folder = save("sd1", tmp_path / "sd1", max_shard_size="1MB", variant=variant)
    shards = sorted((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    checkpoint = read_folder(folder)
    assert_holds(checkpoint, make("sd1"))
    for shard in shards:
        assert checkpoint.sources[f"unet/{shard.name}"] == shard
    assert any(name.startswith("unet/") and ".index." in name for name in checkpoint.sources)


def test_the_preferred_variant_is_taken_where_there_is_one(sd1: Path) -> None:
    weights = load_file(sd1 / UNET)
    half = {name: tensor.half() for name, tensor in weights.items()}
    save_file(half, sd1 / "unet/diffusion_pytorch_model.fp16.safetensors")
    save_file(weights, sd1 / "unet/diffusion_pytorch_model.non_ema.safetensors")
    for prefer, expected in (("fp16", ir.DataType.FLOAT16), (None, ir.DataType.FLOAT)):
        parts = read_folder(sd1, prefer=prefer).parts
        assert {tensor.dtype for tensor in parts["unet"].tensors.values()} == {expected}
        assert {tensor.dtype for tensor in parts["vae"].tensors.values()} == {ir.DataType.FLOAT}
    (sd1 / UNET).unlink()
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in read_folder(sd1).sources
    (sd1 / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    assert "unet/diffusion_pytorch_model.non_ema.safetensors" in read_folder(sd1).sources


def test_several_unknown_variants_are_not_chosen_from(sd1: Path) -> None:
    for variant in ("red", "blue"):
        shutil.copy(sd1 / UNET, sd1 / f"unet/diffusion_pytorch_model.{variant}.safetensors")
    (sd1 / UNET).unlink()
    assert "blue, red" in refusal(sd1)
    assert "unet/diffusion_pytorch_model.red.safetensors" in read_folder(sd1, prefer="red").sources


def old_attention(tensors: dict[str, torch.Tensor]) -> None:
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in list(tensors):
        for new, old in names.items():
            if f".attentions.0.{new}." in name:
                tensor = tensors.pop(name)
                if name.endswith("weight"):
                    tensor = tensor[:, :, None, None]
                tensors[name.replace(new, old)] = tensor


def old_text_names(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors[name if name.startswith(PREFIX) else PREFIX + name] = tensors.pop(name)
    tensors["text_model.embeddings.position_ids"] = torch.arange(8)[None]


def test_old_names_are_read_as_todays(sd1: Path) -> None:
    before = read_folder(sd1)
    edit_weights(sd1 / VAE, old_attention)
    edit_weights(sd1 / TEXT, old_text_names)
    assert any("proj_attn" in name for name in load_file(sd1 / VAE))
    assert_holds(read_folder(sd1), make("sd1"))
    assert read_folder(sd1).parts["text_encoder"].tensors.keys() == (
        before.parts["text_encoder"].tensors.keys()
    )


def test_new_names_of_both_text_encoders_are_prefixed(sdxl: Path) -> None:
    def bare(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix(PREFIX)] = tensors.pop(name)

    edit_weights(sdxl / TEXT, bare)
    edit_weights(sdxl / "text_encoder_2/model.safetensors", bare)
    assert_holds(read_folder(sdxl), make("sdxl"))


def test_the_first_encoders_projection_is_no_part_of_the_model(sd1: Path) -> None:
    edit_weights(sd1 / TEXT, lambda t: t.update({"text_projection.weight": torch.ones(48, 48)}))
    assert_holds(read_folder(sd1), make("sd1"))


def test_two_names_of_one_weight_are_refused(sd1: Path) -> None:
    def both(tensors: dict[str, torch.Tensor]) -> None:
        name = "encoder.mid_block.attentions.0.to_q.bias"
        tensors[name.replace("to_q", "query")] = tensors[name] + 1

    edit_weights(sd1 / VAE, both)
    assert "one weight" in refusal(sd1)


def test_safety_checkers_are_left_out_and_img2img_becomes_text_to_image(sd1: Path) -> None:
    edit_json(
        sd1 / "model_index.json",
        _class_name="StableDiffusionImg2ImgPipeline",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    (sd1 / "safety_checker").mkdir()
    (sd1 / "safety_checker/pytorch_model.bin").write_bytes(b"\x80\x02.")
    pipeline = read_folder(sd1).pipeline
    assert pipeline["_class_name"] == "StableDiffusionPipeline"
    assert pipeline["safety_checker"] == pipeline["feature_extractor"] == [None, None]
    assert pipeline["requires_safety_checker"] is False


def test_a_tokenizer_of_vocabulary_and_merges_is_read_with_its_own_pad_token(sd1: Path) -> None:
    folder = sd1 / "tokenizer"
    (folder / "tokenizer.json").unlink()
    tokens = ["!", "a", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<|endoftext|>"}')
    (folder / "special_tokens_map.json").write_text('{"pad_token": "!"}')
    (folder / "added_tokens.json").write_text('{"<cat>": 6}')
    checkpoint = read_folder(sd1)
    vocabulary = checkpoint.vocabularies["tokenizer"]
    assert vocabulary.config["pad_token"] == "!"
    assert vocabulary.tokenizer["model"]["vocab"]["ab</w>"] == 3
    added = {entry["content"]: entry["id"] for entry in vocabulary.tokenizer["added_tokens"]}
    assert added["<cat>"] == 6
    read = {name for name in checkpoint.sources if name.startswith("tokenizer/")}
    assert read == {path.relative_to(sd1).as_posix() for path in folder.iterdir()}
    # With ids of added tokens in the config itself, the older files are not heeded.
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={})
    assert read_folder(sd1).vocabularies["tokenizer"].config["pad_token"] == "<|endoftext|>"


def lora(folder: Path) -> None:
    (folder / "pytorch_lora_weights.safetensors").touch()


def controlnet(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "ControlNetModel"}')


def vae(folder: Path) -> None:
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKL"}')


def embedding(folder: Path) -> None:
    (folder / "learned_embeds.safetensors").touch()


def single_file(folder: Path) -> None:
    (folder / "model.safetensors").touch()


def pickled(folder: Path) -> None:
    (folder / "model.ckpt").write_bytes(b"\x80\x02.")


def pipeline_of(name: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))

    return write


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lora, "is a LoRA"),
        (controlnet, "a ControlNet"),
        (vae, "an autoencoder alone"),
        (embedding, "an embedding"),
        (single_file, "give that file"),
        (pickled, "pickle"),
        (lambda folder: None, "model_index.json is missing"),
        (pipeline_of("StableDiffusionInpaintPipeline"), "an inpainting model"),
        (pipeline_of("StableDiffusionControlNetPipeline"), "a ControlNet pipeline"),
        (pipeline_of("StableDiffusion3Pipeline"), "Stable Diffusion 3"),
        (pipeline_of("FluxPipeline"), "Flux"),
        (pipeline_of("Nonsense\nPipeline"), "Nonsense Pipeline"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "not a JSON object"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model_index.json").write_text("[" * 99999), "nested"),
        (lambda folder: (folder / "model_index.json").write_bytes(b"\xff"), "cannot be read"),
    ],
)
def test_other_folders_are_named_for_what_they_are(
    fill: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    fill(tmp_path)
    message = refusal(tmp_path)
    assert words in message
    assert str(tmp_path) in message


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "none")


@pytest.mark.parametrize("name", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(name: str, sd1: Path) -> None:
    shutil.rmtree(sd1 / name)
    assert f"{sd1 / name}" in refusal(sd1)
    edit_json(sd1 / "model_index.json", **{name: [None, None]})
    assert f"names no {name}" in refusal(sd1) or name == "text_encoder"


@pytest.mark.parametrize("path", [UNET, VAE, TEXT])
def test_missing_left_over_and_misshapen_weights_are_named(path: str, sd1: Path) -> None:
    whole = load_file(sd1 / path)
    name = next(iter(whole))
    part = str(sd1 / Path(path).parent)
    edit_weights(sd1 / path, lambda tensors: tensors.pop(name))
    message = refusal(sd1)
    assert f"{part} lacks 1 of {len(whole)} weights" in message
    assert name in message
    save_file({**whole, "lora.up": torch.zeros(2)}, sd1 / path)
    assert f"{part} has 'lora.up'" in refusal(sd1)
    save_file({**whole, name: torch.zeros(3, 7)}, sd1 / path)
    message = refusal(sd1)
    assert name in message
    assert "(3, 7)" in message


@pytest.mark.parametrize(
    "dtype", [torch.float8_e4m3fn, torch.int8, torch.uint8, torch.float64, torch.int64]
)
def test_other_types_than_weights_have_are_refused_by_name(dtype: torch.dtype, sd1: Path) -> None:
    def quantise(tensors: dict[str, torch.Tensor]) -> None:
        tensors["conv_in.weight"] = tensors["conv_in.weight"].to(dtype)

    edit_weights(sd1 / UNET, quantise)
    message = refusal(sd1)
    assert "'conv_in.weight' is" in message
    assert "quantised" in message


def test_pickles_are_refused_with_what_to_do(sd1: Path) -> None:
    (sd1 / UNET).unlink()
    (sd1 / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert "giffusion convert" in refusal(sd1)
    (sd1 / "unet/diffusion_pytorch_model.bin").rename(sd1 / UNET)
    assert "giffusion convert" in refusal(sd1)


@pytest.mark.parametrize("content", [b"", b"\x10" + bytes(7) + b"[" * 16, b"{}" * 40])
def test_damaged_weights_are_refused(content: bytes, sd1: Path) -> None:
    (sd1 / UNET).write_bytes(content)
    assert f"{sd1 / UNET} is not a safetensors file" in refusal(sd1)


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"x": "../vae/diffusion_pytorch_model.safetensors"}, "beside it"),
        ({"x": "/etc/passwd"}, "beside it"),
        ({"x": 3}, "beside it"),
        ({"x": "none.safetensors"}, "cannot be read"),
        ({"x": "diffusion_pytorch_model.safetensors"}, "does not place"),
    ],
)
def test_malformed_indices_of_shards_are_refused(places: object, words: str, sd1: Path) -> None:
    index = sd1 / f"{UNET}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert words in refusal(sd1)


def test_an_index_that_places_what_a_shard_lacks_is_refused(sd1: Path) -> None:
    places = dict.fromkeys([*load_file(sd1 / UNET), "x"], Path(UNET).name)
    (sd1 / f"{UNET}.index.json").write_text(json.dumps({"weight_map": places}))
    assert "places 'x'" in refusal(sd1)


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("unet", {"in_channels": 9}, "an inpainting model is not rendered"),
        ("unet", {"in_channels": 8}, "an instruct-pix2pix model"),
        ("unet", {"in_channels": [1]}, "[1] input"),
        ("unet", {"out_channels": 8}, "8 output"),
        ("unet", {"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ("unet", {"addition_embed_type": "image"}, "expected none or text_time"),
        ("unet", {"addition_embed_type": ["x"]}, "addition_embed_type=['x']"),
        ("unet", {"addition_embed_type": "text_time"}, "no projection_class_embeddings_input_dim"),
        ("unet", {"time_embedding_type": "fourier"}, "time_embedding_type"),
        ("unet", {"_class_name": "UNetMotionModel"}, "'UNetMotionModel'"),
        ("unet", {"block_out_channels": "wide"}, "config.json that is no UNet2DConditionModel's"),
        ("unet", {"block_out_channels": [32, 96]}, "expected"),
        ("unet", {"quantization_config": {"bits": 4}}, "quantised"),
        ("vae", {"latent_channels": 16}, "16 latent channels"),
        ("vae", {"block_out_channels": [16, 16]}, "8 times its latents"),
        ("vae", {"latents_mean": [0.1, 0.2] * 4}, "latents_mean"),
        ("vae", {"_class_name": "AsymmetricAutoencoderKL"}, "'AsymmetricAutoencoderKL'"),
        ("text_encoder", {"architectures": ["RobertaSeries"]}, "RobertaSeries"),
        ("text_encoder", {"hidden_size": "big"}, "config.json that is no CLIPTextModel's"),
        ("text_encoder", {"num_hidden_layers": 4}, "lacks 16 of"),
    ],
)
def test_configurations_that_are_not_rendered_are_refused(
    part: str, changes: dict[str, Any], words: str, sd1: Path
) -> None:
    edit_json(sd1 / part / "config.json", **changes)
    message = refusal(sd1)
    assert words in message
    assert str(sd1 / part) in message


def test_the_refiner_is_refused_by_its_size_ids_and_by_its_index(sdxl: Path) -> None:
    ids_dim, prompt_dim = 16, 80
    path = sdxl / "unet/config.json"
    config = json.loads(path.read_text())
    edit_json(path, projection_class_embeddings_input_dim=5 * ids_dim + prompt_dim)
    assert "SDXL's refiner" in refusal(sdxl)
    path.write_text(json.dumps(config))
    edit_json(sdxl / "model_index.json", text_encoder=[None, None])
    assert "SDXL's refiner" in refusal(sdxl)
    edit_json(sdxl / "model_index.json", requires_aesthetics_score=True)
    assert "SDXL's refiner" in refusal(sdxl)


def test_parts_of_two_models_are_refused(
    sd1: Path, sdxl: Path, saved: Callable[[str], Path]
) -> None:
    shutil.rmtree(sd1 / "text_encoder")
    shutil.copytree(saved("sdxl") / "text_encoder", sd1 / "text_encoder")
    assert "prompt embeddings of the width 48, the text encoders make 32" in refusal(sd1)
    edit_json(sdxl / "text_encoder_2/config.json", projection_dim=7)

    def narrow(tensors: dict[str, torch.Tensor]) -> None:
        name = "text_projection.weight"
        tensors[name] = tensors[name][:7].contiguous()

    edit_weights(sdxl / "text_encoder_2/model.safetensors", narrow)
    assert "pooled embeddings of the width 40, the text encoders make 7" in refusal(sdxl)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"controlnet": ["diffusers", "ControlNetModel"]}, "the part 'controlnet'"),
        ({"unet": ["custom_code", "UNet2DConditionModel"]}, "custom_code.UNet2DConditionModel"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "T5EncoderModel"),
        ({"vae": "AutoencoderKL"}, "names no vae"),
        ({"_class_name": 3}, "of no known class"),
    ],
)
def test_indices_of_other_pipelines_are_refused(
    changes: dict[str, Any], words: str, sd1: Path
) -> None:
    edit_json(sd1 / "model_index.json", **changes)
    assert words in refusal(sd1)


@pytest.mark.parametrize("content", ["{}", '{"model": 3}', "[", "null"])
def test_what_is_no_tokenizer_is_refused(content: str, sd1: Path) -> None:
    (sd1 / "tokenizer/tokenizer.json").write_text(content)
    assert str(sd1 / "tokenizer/tokenizer.json") in refusal(sd1)


def test_a_tokenizer_without_merges_is_refused(sd1: Path) -> None:
    (sd1 / "tokenizer/tokenizer.json").unlink()
    assert "vocab.json is missing" in refusal(sd1)
    (sd1 / "tokenizer/vocab.json").write_text('{"a": 0}')
    assert "merges.txt cannot be read" in refusal(sd1)
    (sd1 / "tokenizer/merges.txt").write_text("a b\n")
    assert f"{sd1 / 'tokenizer'}: " in refusal(sd1)


@pytest.mark.parametrize(
    "name", ["unet/config.json", "vae/config.json", "text_encoder/config.json"]
)
@pytest.mark.parametrize("content", ["{", "[]", "3", '{"a": 1e999}', "\x00"])
def test_malformed_configs_end_in_a_line(name: str, content: str, sd1: Path) -> None:
    (sd1 / name).write_text(content)
    assert str((sd1 / name).parent) in refusal(sd1)
