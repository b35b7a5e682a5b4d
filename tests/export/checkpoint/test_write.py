"""Checkpoints written: what diffusers loads back, bit for bit, streamed, whole or not at all."""

from __future__ import annotations

import errno
import json
import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import DiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from giffusion.engine.errors import DiskFullError, ModelError, OutputError, SettingsError
from giffusion.export.checkpoint.autoencoders import replace_decoder
from giffusion.export.checkpoint.checkpoint import WEIGHTS_FILES, Checkpoint
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.staging import check_target, staged_folder
from giffusion.export.checkpoint.tensors import Array, Computed, Tensor, stored_tensors
from giffusion.export.checkpoint.vocabularies import openai_vocabulary
from giffusion.export.checkpoint.write import write_checkpoint, write_tensors
from tests.export.families import save, tiny_vae

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
KINDS = {
    np.dtype(np.float32): ir.DataType.FLOAT,
    np.dtype(np.float16): ir.DataType.FLOAT16,
    np.dtype(ml_dtypes.bfloat16): ir.DataType.BFLOAT16,
}


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sd1", tmp_path_factory.mktemp("saved") / "sd1")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("sdxl", tmp_path_factory.mktemp("saved") / "sdxl")


def quiet(line: str) -> None:
    assert "\n" not in line


def write(checkpoint: Checkpoint, target: Path, dtype: str | None = None) -> Path:
    with staged_folder(target) as folder:
        write_checkpoint(checkpoint, folder, dtype=dtype, progress=quiet)
    return target


def load(folder: Path, **options: Any) -> Any:
    return DiffusionPipeline.from_pretrained(folder, local_files_only=True, **options)


def tensor(array: Array) -> Tensor:
    return Computed(KINDS[array.dtype], array.shape, lambda: array)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("family", ["sd1", "sdxl", "lcm", "sd2", "sd1-tiny"])
def test_diffusers_loads_the_same_weights_bit_for_bit(family: str, tmp_path: Path) -> None:
    source = save(family, tmp_path / "source")
    checkpoint = read_folder(source)
    target = write(checkpoint, tmp_path / "target")
    expected, loaded = load(source), load(target)
    assert type(loaded) is type(expected)
    assert dict(loaded.scheduler.config) == dict(expected.scheduler.config)
    for name in checkpoint.parts:
        before, after = (getattr(p, name).state_dict() for p in (expected, loaded))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    for name in checkpoint.vocabularies:
        prompts = ["a red house!", ""]
        ids = [getattr(p, name)(prompts, padding=True).input_ids for p in (expected, loaded)]
        assert ids[0] == ids[1]


def test_what_was_written_reads_as_what_was_read(sdxl: Path, tmp_path: Path) -> None:
    first = write(read_folder(sdxl), tmp_path / "first")
    second = write(read_folder(first), tmp_path / "second")
    files = {path.relative_to(first) for path in first.rglob("*") if path.is_file()}
    assert files == {path.relative_to(second) for path in second.rglob("*") if path.is_file()}
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


@pytest.mark.parametrize("name", DTYPES)
def test_weights_are_rounded_as_torch_rounds_them(name: str, sd1: Path, tmp_path: Path) -> None:
    checkpoint = read_folder(sd1)
    target = write(checkpoint, tmp_path / "target", name)
    loaded = load(target, dtype=DTYPES[name])
    for part in checkpoint.parts:
        stored = load_file(target / part / WEIGHTS_FILES[part])
        source = load_file(sd1 / part / WEIGHTS_FILES[part])
        assert {value.dtype for value in stored.values()} == {DTYPES[name]}
        assert getattr(loaded, part).dtype == DTYPES[name]
        for key, value in source.items():
            written = stored[key if key in stored else f"text_model.{key}"]
            assert torch.equal(written, value.to(DTYPES[name]))
    config = json.loads((target / "text_encoder/config.json").read_text())
    assert config["torch_dtype"] == str(DTYPES[name]).removeprefix("torch.")


def test_text_encoders_have_the_names_and_configs_that_old_transformers_read(
    sdxl: Path, tmp_path: Path
) -> None:
    target = write(read_folder(sdxl), tmp_path / "target")
    kinds = {"text_encoder": "CLIPTextModel", "text_encoder_2": "CLIPTextModelWithProjection"}
    for part, kind in kinds.items():
        names = load_file(target / part / "model.safetensors").keys()
        assert {name.partition(".")[0] for name in names} <= {"text_model", "text_projection"}
        config = json.loads((target / part / "config.json").read_text())
        assert config["architectures"] == [kind]
        assert config["model_type"] == "clip_text_model"
        assert "dtype" not in config


def test_clips_vocabulary_is_written_as_old_transformers_read_it(sd1: Path, tmp_path: Path) -> None:
    checkpoint = read_folder(sd1)
    checkpoint = replace(checkpoint, vocabularies={"tokenizer": openai_vocabulary("!")})
    target = write(checkpoint, tmp_path / "target")
    prompts = ["A red  house, isn't it? 42 é", ""]
    whole: Any = CLIPTokenizer.from_pretrained(target / "tokenizer")
    (target / "tokenizer/tokenizer.json").unlink()
    parts: Any = CLIPTokenizer.from_pretrained(target / "tokenizer")
    assert whole(prompts).input_ids == parts(prompts).input_ids
    assert whole.pad_token == parts.pad_token == "!"
    assert read_folder(target).vocabularies["tokenizer"].tokenizer == (
        checkpoint.vocabularies["tokenizer"].tokenizer
    )


def test_a_decoder_is_written_beside_and_diffusers_still_loads(sd1: Path, tmp_path: Path) -> None:
    tiny_vae().save_pretrained(tmp_path / "taesd")
    checkpoint = replace_decoder(read_folder(sd1), f"taesd:{tmp_path / 'taesd'}")
    target = write(checkpoint, tmp_path / "target")
    stored = load_file(target / "decoder/diffusion_pytorch_model.safetensors")
    assert stored.keys() == checkpoint.parts["decoder"].tensors.keys()
    assert type(load(target).vae).__name__ == "AutoencoderKL"


def test_tensors_are_aligned_and_in_order(tmp_path: Path) -> None:
    arrays: Mapping[str, Array] = {
        "b": np.arange(3, dtype=np.float16),
        "c": np.arange(2, dtype=np.float32),
        "a": np.arange(5, dtype=np.float16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    file = tmp_path / "x.safetensors"
    write_tensors({name: tensor(array) for name, array in arrays.items()}, file, None, "x")
    stored = stored_tensors(file)
    assert [entry.name for entry in stored] == ["c", "empty", "scalar", "a", "b"]
    assert stored[0].offset % 8 == 0
    for entry in stored:
        assert entry.offset % entry.dtype.itemsize == 0
        assert np.array_equal(entry.read(), arrays[entry.name])
    assert load_file(file).keys() == arrays.keys()


@given(
    st.lists(st.floats(width=32, allow_nan=False), max_size=20),
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from(["float32", "float16", "bfloat16"]),
)
def test_any_values_round_as_torch_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float], name: str, source: str
) -> None:
    with np.errstate(over="ignore"):
        kind = np.dtype(ml_dtypes.bfloat16 if source == "bfloat16" else source)
        array = np.array(numbers, np.float32).astype(kind)
    wanted = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
    expected = torch.tensor(array.astype(np.float32)).to(DTYPES[name])
    file = tmp_path_factory.mktemp("x") / "x.safetensors"
    overflows = bool((expected.isinf().numpy() & np.isfinite(array)).any())
    if overflows:
        with pytest.raises(ModelError, match="too large"):
            write_tensors({"x": tensor(array)}, file, wanted[name], "unet")
        return
    write_tensors({"x": tensor(array)}, file, wanted[name], "unet")
    assert torch.equal(load_file(file)["x"], expected)


def test_overflow_names_the_tensor_and_what_to_do(tmp_path: Path) -> None:
    array = np.array([1.0, np.inf, 70000.0], np.float32)
    file = tmp_path / "x.safetensors"
    with pytest.raises(ModelError) as caught:
        write_tensors({"conv.weight": tensor(array)}, file, ir.DataType.FLOAT16, "vae")
    assert str(caught.value) == (
        "vae: 'conv.weight' has the value 70000, too large here: write bf16 or fp32"
    )


def test_infinite_weights_stay_as_they_are(tmp_path: Path) -> None:
    array = np.array([np.inf, -np.inf, np.nan], np.float32)
    file = tmp_path / "x.safetensors"
    write_tensors({"x": tensor(array)}, file, ir.DataType.FLOAT16, "vae")
    assert np.array_equal(load_file(file)["x"].float().numpy(), array, equal_nan=True)


def test_memory_holds_one_tensor_at_a_time(tmp_path: Path) -> None:
    shape = (1 << 21,)
    one = 4 << 21

    def make(value: float) -> Tensor:
        return Computed(ir.DataType.FLOAT, shape, lambda: np.full(shape, value, np.float32))

    tensors = {f"t{i}": make(i) for i in range(8)}
    tracemalloc.start()
    try:
        write_tensors(tensors, tmp_path / "x.safetensors", ir.DataType.FLOAT16, "x")
        assert tracemalloc.get_traced_memory()[1] < 2 * one
        tracemalloc.reset_peak()
        stored = {t.name: t for t in stored_tensors(tmp_path / "x.safetensors")}
        write_tensors(stored, tmp_path / "y.safetensors", ir.DataType.FLOAT, "x")
        assert tracemalloc.get_traced_memory()[1] < one
    finally:
        tracemalloc.stop()
    assert torch.equal(load_file(tmp_path / "y.safetensors")["t7"], torch.full(shape, 7.0))


def test_unknown_types_are_refused(sd1: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'fp16'"):
        write(read_folder(sd1), tmp_path / "target", "fp61")
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [ModelError("no"), KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "No space left")],
)
def test_nothing_is_left_behind_by_an_error(error: BaseException, tmp_path: Path) -> None:
    target = tmp_path / "target"
    expected = DiskFullError if isinstance(error, OSError) else type(error)

    def fail(folder: Path) -> None:
        (folder / "unet").mkdir()
        (folder / "unet/x").write_text("x")
        assert folder.parent == tmp_path
        assert folder.name.startswith(".")
        raise error

    with pytest.raises(expected) as caught, staged_folder(target) as folder:
        fail(folder)
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


def test_a_full_disk_is_one_line(sd1: Path, tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        # A device that is always full, where a part's configuration would be.
        (folder / "vae").mkdir()
        (folder / "vae/config.json").symlink_to("/dev/full")
        write_checkpoint(read_folder(sd1), folder, dtype=None, progress=quiet)

    target = tmp_path / "target"
    with pytest.raises(DiskFullError, match="no space left") as caught, staged_folder(target) as f:
        fill(f)
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with staged_folder(target) as folder:
        (folder / "x").write_text("x")
        assert entries(target) == []
    assert entries(target) == ["x"]
    assert entries(tmp_path) == ["target"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = tmp_path / "link"
    target.symlink_to(tmp_path / "real")
    with staged_folder(target) as folder:
        (folder / "x").write_text("x")
    assert target.is_symlink()
    assert entries(tmp_path / "real") == ["x"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_taken_target_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mine = target if kind == "file" else target / "mine"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(SettingsError, match="choose another -o"):
        check_target(target)
    with pytest.raises(SettingsError, match="choose another -o"), staged_folder(target):
        raise AssertionError("the block must not run")
    assert mine.read_text() == "mine"
    assert entries(tmp_path) == ["target"]


def test_a_target_that_is_taken_meanwhile_is_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "target"

    def race(folder: Path) -> None:
        (folder / "x").write_text("x")
        target.mkdir()
        (target / "mine").write_text("mine")

    with pytest.raises(SettingsError, match="choose another -o"), staged_folder(target) as folder:
        race(folder)
    assert entries(target) == ["mine"]
    assert entries(tmp_path) == ["target"]


def test_a_missing_parent_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"), staged_folder(tmp_path / "a/b"):
        pass
    assert entries(tmp_path) == []
