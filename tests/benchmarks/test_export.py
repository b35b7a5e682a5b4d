"""What the benchmark of exports is made of: checkpoints of real size, and measured processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.export import PEER, main
from benchmarks.measured import run_measured
from benchmarks.random_checkpoint import (
    random_checkpoint,
    stored_bytes,
    weights_bytes,
    write_lora,
)
from giffusion.export.additions.lora import fuse_loras
from giffusion.export.checkpoint.folder import read_folder
from giffusion.export.checkpoint.write import write_checkpoint

MIB = 1 << 20
ROOT = Path(__file__).parent.parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts VmHWM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint = random_checkpoint("sd1", narrow=True)
    target = tmp_path / "checkpoint"
    target.mkdir()
    write_checkpoint(checkpoint, target, dtype=None, progress=lambda _: None)
    return target


@pytest.mark.parametrize(("family", "gigabytes"), [("sd1", 2.13), ("sdxl", 6.94)])
def test_checkpoints_have_the_size_of_the_published_files(family: str, gigabytes: float) -> None:
    assert weights_bytes(random_checkpoint(family)) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def test_a_written_checkpoint_is_read_back_with_the_same_values(folder: Path) -> None:
    made, read = random_checkpoint("sd1", narrow=True), read_folder(folder)
    assert stored_bytes(folder) >= weights_bytes(made)
    for name, part in made.parts.items():
        assert read.parts[name].tensors.keys() == part.tensors.keys()
        for key in list(part.tensors)[:5]:
            np.testing.assert_array_equal(
                read.parts[name].tensors[key].read(), part.tensors[key].read()
            )


def test_values_neither_vanish_nor_are_those_of_another_tensor() -> None:
    tensors = random_checkpoint("sd1", narrow=True).parts["unet"].tensors
    prefix = "down_blocks.0.attentions.0.transformer_blocks.0"
    query, key = (tensors[f"{prefix}.attn1.to_{x}.weight"].read() for x in "qk")
    assert query.std() == pytest.approx(1 / np.sqrt(query.shape[1]), rel=0.1)
    assert (query != key).any()
    assert tensors[f"{prefix}.norm1.weight"].read().mean() == pytest.approx(1, abs=0.05)


def test_the_lora_changes_every_attention_layer(folder: Path, tmp_path: Path) -> None:
    checkpoint, file = read_folder(folder), tmp_path / "lora.safetensors"
    num_layers = write_lora(checkpoint, file, rank=16)
    fused = fuse_loras(checkpoint, [(file, 1.0)]).parts["unet"].tensors
    before = checkpoint.parts["unet"].tensors
    changed = {name for name, tensor in fused.items() if tensor is not before[name]}
    assert len(changed) == num_layers
    assert changed == {n for n in before if "attn" in n and n.endswith("weight") and ".to_" in n}


@linux
def test_memory_of_a_process_and_of_its_mapped_files_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(64 * MIB))
    script = (
        "import mmap, sys, time\n"
        "own = b'1' * (32 << 20)\n"
        "stream = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(mapped[i] for i in range(0, len(mapped), 4096))\n"
        "print('mapped', flush=True)\n"
        "time.sleep(0.3)\n"
    )
    ballast = b"1" * (256 * MIB)  # the starter's own memory, which must not count
    ran = run_measured([sys.executable, "-c", script, file], env=os.environ, cwd=tmp_path)
    assert len(ballast) == 256 * MIB
    assert 32 * MIB < ran.peak_anon_bytes < 60 * MIB
    assert ran.peak_anon_bytes + 64 * MIB <= ran.peak_rss_bytes < 160 * MIB
    assert [line for _, line in ran.lines] == ["mapped"]
    assert ran.seconds > 0.3
    assert ran.cpu_s > 0


@linux
def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "import sys; print('no room'); sys.exit(3)"]
    with pytest.raises(RuntimeError, match="exited with 3: no room"):
        run_measured(words, env=os.environ, cwd=tmp_path)


@linux
def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path) -> None:
    env = os.environ | {"TMPDIR": str(tmp_path)}
    words = [sys.executable, "-u", "-m", "benchmarks.export", "--quick"]
    with subprocess.Popen(words, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("giffusion export"):
                process.terminate()
    assert process.returncode == 1
    assert not list(tmp_path.iterdir())


def test_too_little_room_ends_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.export.SPARE_BYTES", 1 << 60)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest keeps its own
    with pytest.raises(SystemExit, match="too little room"):
        main(["--quick"])


@linux
@pytest.mark.timeout(400)
def test_it_runs_to_its_end_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr("signal.signal", lambda *_: None)  # pytest keeps its own
    (tmp_path / "temporary").mkdir()
    main(["--quick", "--output", str(tmp_path / "export.json")])
    text = (tmp_path / "export.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    rows = {row["case"]: row for row in json.loads(text)["exports"]}
    assert rows["steps compared"]["found"][0].startswith("largest error ")
    assert float(rows["steps compared"]["found"][0].rpartition(" ")[2]) < 1e-4
    assert rows[PEER]["seconds"] > 0
    assert not list((tmp_path / "temporary").iterdir())
