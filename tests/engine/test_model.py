"""Model folders: what is read of a good one, and a line for each thing wrong with others."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.contract import LATENT_SCALE
from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.manifest import MANIFEST, Manifest
from giffusion.engine.model import GRAPHS, Model, graph_names, graph_spec, latent_size, load_model
from giffusion.engine.values import MAX_SIDE
from giffusion.models import find_model

MINI = find_model("mini")
REMOVED = object()
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled model's folder, to be changed; its weights are links."""
    copy = tmp_path / "model"
    for path in MINI.rglob("*"):
        target = copy / path.relative_to(MINI)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".safetensors":
            target.symlink_to(path)
        elif path.is_file():
            shutil.copyfile(path, target)
    return copy


def change(path: Path, **entries: Any) -> None:
    """Sets keys of a JSON file; `REMOVED` removes one."""
    changed = json.loads(path.read_text()) | entries
    path.write_text(json.dumps({key: v for key, v in changed.items() if v is not REMOVED}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    return message


def test_the_bundled_model() -> None:
    model = load_model(MINI)
    assert model.manifest.name == "mini"
    side = 8 * json.loads((MINI / "unet" / "config.json").read_text())["sample_size"]
    assert model.manifest.size == (side, side)
    assert model.schedule.prediction_type == "v_prediction"
    assert model.tokenizer is model.tokenizer
    assert model.check_size(None) == (side, side)


def test_the_bundled_models_manifest_names_its_own_files() -> None:
    model = load_model(MINI)
    files = {MINI / f"{name}.onnx": digest for name, digest in model.manifest.graphs.items()}
    files |= {MINI / source: digest for source, digest in model.manifest.sources.items()}
    assert len(files) == len(graph_names()) + len(model.manifest.sources)
    assert {"unet/config.json", "tokenizer/tokenizer.json"} < model.manifest.sources.keys()
    for path, digest in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, path


def test_a_copy_is_the_same_model(folder: Path) -> None:
    copy = load_model(folder)
    assert copy.manifest == load_model(MINI).manifest
    assert copy.fingerprint == load_model(MINI).fingerprint
    assert copy.graph_path("denoise") == folder / "denoise.onnx"
    assert copy.graph_path("denoise", "bf16") == folder / "denoise.bf16.onnx"


def test_a_model_exported_without_a_type_says_so(folder: Path) -> None:
    model = load_model(folder)
    del model.manifest.graphs["decode.fp16"]
    with pytest.raises(ModelError, match=r"^model 'mini' has no fp16 decode graph: export the"):
        model.graph_path("decode", "fp16")


def test_a_graphs_digest_names_its_file_and_its_own_weights() -> None:
    manifest = load_model(MINI).manifest
    digests = {name: manifest.graph_digest(name) for name in graph_names()}
    assert len(set(digests.values())) == len(digests)
    changed = replace(
        manifest, sources=manifest.sources | {"vae/diffusion_pytorch_model.safetensors": "0"}
    )
    differ = {name for name, digest in digests.items() if changed.graph_digest(name) != digest}
    assert differ == {name for name in digests if name.startswith(("decode", "encode"))}


def test_a_manifest_is_read_as_it_was_written(tmp_path: Path) -> None:
    manifest = load_model(MINI).manifest
    manifest.write(tmp_path / MANIFEST)
    assert Manifest.read(tmp_path / MANIFEST) == manifest


def test_the_specs_have_the_models_widths() -> None:
    model = load_model(MINI)
    assert [model.spec(stage).name for stage in GRAPHS] == list(GRAPHS)
    shapes = {tensor.name: tensor.shape for tensor in model.spec("denoise").inputs}
    assert shapes["cond"] == ("rows", 24, 192)
    assert shapes["time_proj"] == ("slots", 64)
    assert model.spec("text").outputs[0].shape == ("prompts", 24, 192)
    with pytest.raises(ValueError, match="unknown stage 'upscale'"):
        graph_spec(model.manifest, "upscale")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none"
    expected = f"model folder {path} does not exist: expected a folder with giffusion.json"
    assert refusal(path) == expected
    path.write_text("a file")
    assert refusal(path) == expected


def test_a_diffusers_folder_that_was_not_exported(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    message = refusal(folder)
    assert message.startswith(f"{folder} is not a model folder: it has no giffusion.json")
    assert message.endswith(f"`giffusion export {folder} -o DIR`")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"format": 1,}'])
def test_a_manifest_that_is_not_json(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / MANIFEST} cannot be read: ")


def test_a_manifest_that_is_a_folder(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    assert refusal(folder).startswith(f"{folder / MANIFEST} cannot be read: ")


@pytest.mark.parametrize(
    "content", ["[]", "null", '"mini"', "{}", '{"format": 1}', '{"format": 3}']
)
def test_a_manifest_of_another_format(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    expected = f"{folder / MANIFEST} is not of format 2: export the model again"
    assert refusal(folder) == expected


@pytest.mark.parametrize(
    ("entries", "wrong"),
    [
        ({"colour": "red"}, "colour"),
        ({"time_dim": REMOVED}, "time_dim"),
        ({"time_dim": REMOVED, "colour": 1}, "colour, time_dim"),
    ],
)
def test_a_manifest_with_other_keys(folder: Path, entries: dict[str, Any], wrong: str) -> None:
    change(folder / MANIFEST, **entries)
    expected = f"{folder / MANIFEST} has missing or unknown keys: {wrong}; export it again"
    assert refusal(folder) == expected


@pytest.mark.parametrize("size", [128, [128], [128, 128, 3], "128x128", [128.5, 128], [True, 1]])
def test_a_manifest_without_a_size(folder: Path, size: object) -> None:
    change(folder / MANIFEST, size=size)
    expected = f"{folder / MANIFEST} has size {size!r}: expected a list of whole numbers; export"
    assert refusal(folder).startswith(expected)


@pytest.mark.parametrize("name", ["pad_token_ids", "text_dims"])
@pytest.mark.parametrize("value", [1, [], ["1"], [1.0], {"1": 1}, "1"])
def test_a_list_of_a_manifest_that_is_none(folder: Path, name: str, value: object) -> None:
    change(folder / MANIFEST, **{name: value})
    expected = f"{folder / MANIFEST} has {name} {value!r}: expected a list of whole numbers; export"
    assert refusal(folder).startswith(expected)


@pytest.mark.parametrize("name", [f"{name}.onnx" for name in graph_names()])
def test_a_missing_graph(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name} is missing: export the model again"


@pytest.mark.parametrize("name", sorted(load_model(MINI).manifest.sources))
def test_a_missing_source(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder / name} is missing: export the model again"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_schedulers_config_that_is_not_json(folder: Path, content: bytes) -> None:
    (folder / SCHEDULER).write_bytes(content)
    assert refusal(folder).startswith(f"{folder / SCHEDULER} cannot be read: ")


@pytest.mark.parametrize("content", ["[]", "null", "3"])
def test_a_schedulers_config_that_is_no_object(folder: Path, content: str) -> None:
    (folder / SCHEDULER).write_text(content)
    expected = f"{folder / SCHEDULER} is not a scheduler's config: expected a JSON object"
    assert refusal(folder) == expected


@pytest.mark.parametrize(
    "entries",
    [
        {"clip_sample": True},
        {"thresholding": True},
        {"beta_schedule": "wavy"},
        {"beta_end": 12},
        {"num_train_timesteps": 0},
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_a_scheduler_that_no_sampler_follows(folder: Path, entries: dict[str, Any]) -> None:
    change(folder / SCHEDULER, **entries)
    assert f"the scheduler's {next(iter(entries))} " in refusal(folder)


@pytest.mark.parametrize("entry", ["graphs", "sources"])
def test_the_fingerprint_is_of_the_content(folder: Path, entry: str) -> None:
    before = load_model(folder).fingerprint
    assert len(before) == 16
    assert int(before, 16) >= 0
    digests = json.loads((folder / MANIFEST).read_text())[entry]
    change(folder / MANIFEST, name="renamed")
    assert load_model(folder).fingerprint == before
    model = load_model(folder)
    other = {entry: digests | {next(iter(digests)): "0" * 64}}
    assert replace(model, manifest=replace(model.manifest, **other)).fingerprint != before


@pytest.mark.parametrize("name", ["decode.onnx", "tokenizer/tokenizer.json"])
def test_a_file_that_was_changed_since_the_export_is_refused(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content + b" ")
    assert refusal(folder) == f"{path} is not the file that was exported: export the model again"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", 3, "a text"),
        ("size_multiple", 32.0, "a whole number"),
        ("num_tokens", "24", "a whole number"),
        ("pooled_dim", "1280", "a whole number or null"),
        ("zero_negative", "no", "true or false"),
        ("token_vectors", [], "an object of whole numbers"),
        ("num_tokens", True, "a whole number"),
        ("token_vectors", {"corgi": "two"}, "an object of whole numbers"),
        ("graphs", {"denoise": 3}, "an object of texts"),
        ("time_dim", [], "a whole number"),
        ("guidance_dim", 1.5, "a whole number or null"),
        ("flip_sin_to_cos", 1, "true or false"),
        ("freq_shift", "0", "a number"),
        ("graphs", [], "an object of texts"),
        ("sources", "", "an object of texts"),
        ("origin", 0, "an object of texts"),
    ],
)
def test_a_manifest_entry_of_another_type_is_refused(
    folder: Path, key: str, value: object, expected: str
) -> None:
    change(folder / MANIFEST, **{key: value})
    message = f"{folder / MANIFEST} has {key} {value!r}: expected {expected}; export it again"
    assert refusal(folder) == message


@pytest.mark.parametrize(
    ("pooled", "guidance"), [(None, None), (1280, None), (None, 256), (1280, 256)]
)
def test_what_other_models_take_is_in_their_specs(pooled: int | None, guidance: int | None) -> None:
    manifest = replace(
        load_model(MINI).manifest, text_dims=(768, 1280), pooled_dim=pooled, guidance_dim=guidance
    )
    assert manifest.prompt_dim == 2048
    shapes = {t.name: t.shape for t in graph_spec(manifest, "denoise").inputs}
    assert shapes["cond"] == ("rows", 24, 2048)
    assert shapes.get("pooled") == (pooled and ("rows", pooled))
    assert shapes.get("size_ids") == (pooled and ("rows", 6))
    assert shapes.get("guidance_embed") == (guidance and ("slots", guidance))
    text = graph_spec(manifest, "text")
    two = pooled is not None
    assert [t.name for t in text.inputs] == ["input_ids", *["input_ids_2"] * two]
    assert [t.name for t in text.outputs] == ["prompt_embeds", *["pooled"] * two]
    assert replace(load_model(MINI), manifest=manifest).guides == (guidance is not None)


def test_a_decoder_of_its_own_is_what_pictures_depend_on() -> None:
    manifest = load_model(MINI).manifest
    weights = "decoder/diffusion_pytorch_model.safetensors"
    other = replace(manifest, sources=manifest.sources | {weights: "0"})
    differ = {n for n in graph_names() if manifest.graph_digest(n) != other.graph_digest(n)}
    assert differ == {name for name in graph_names() if name.startswith("decode")}


def test_where_a_model_was_made_of_is_not_its_content() -> None:
    model = load_model(MINI)
    moved = replace(model.manifest, name="other", origin={"a.ckpt": "0" * 64})
    assert replace(model, manifest=moved).fingerprint == model.fingerprint
    guided = replace(model.manifest, guidance_dim=256)
    assert replace(model, manifest=guided).fingerprint != model.fingerprint


@pytest.mark.parametrize(
    ("size", "near"),
    [
        ((100, 128), "96x128"),
        ((128, 200), "128x192"),
        ((1, 1), "32x32"),
        ((129, 127), "128x128"),
        ((208, 240), "192x256"),
    ],
)
def test_a_size_that_does_not_suit(size: tuple[int, int], near: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_model(MINI).check_size(size)
    assert str(caught.value) == (
        f"size {size[0]}x{size[1]} does not suit model 'mini': expected multiples of 32 pixels, "
        f"such as {near}"
    )


@pytest.fixture(scope="module")
def check_size() -> Callable[[tuple[int, int] | None], tuple[int, int]]:
    model: Model = load_model(MINI)
    return model.check_size


@given(width=st.integers(1, MAX_SIDE), height=st.integers(1, MAX_SIDE))
def test_sizes_suit_or_the_one_suggested_does(
    width: int, height: int, check_size: Callable[[tuple[int, int] | None], tuple[int, int]]
) -> None:
    try:
        assert check_size((width, height)) == (width, height)
    except SettingsError as refused:
        suggested = str(refused).rpartition(" ")[2].split("x")
        assert check_size((int(suggested[0]), int(suggested[1])))
    else:
        assert latent_size((width, height)) == (height / LATENT_SCALE, width / LATENT_SCALE)
