"""Pickles: told apart, refused, and converted in a sandbox that holds."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from giffusion.engine.errors import GiffusionError, ModelError, OutputError
from giffusion.export.pickles.convert import convert, is_pickle, refuse_pickle
from giffusion.export.pickles.sandbox import FILES, LIMITS, NETWORK, PRIVILEGES

ZIP = pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "legacy"])


def save(value: object, path: Path, *, is_zip: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def refusal(source: Path, output: Path | None = None) -> str:
    output = output or source.with_name("out.safetensors")
    existing = output.exists()
    with pytest.raises(GiffusionError) as raised:
        convert(source, output)
    assert "\n" not in str(raised.value)
    assert output.exists() is existing
    assert not list(source.parent.glob("*.giffusion-part"))
    return str(raised.value)


class Malice:
    """Something whose pickle runs a command when it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@ZIP
def test_a_pickle_is_converted(tmp_path: Path, is_zip: bool) -> None:
    weights = {
        "w": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "brain": torch.ones(2).bfloat16(),
    }
    trained = {"state_dict": {**weights, "d": torch.ones(1).double()}, "epoch": 3}
    source, output = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    conversion = convert(save(trained, source, is_zip=is_zip), output)
    assert (conversion.num_tensors, conversion.left_out, conversion.cast) == (4, ("epoch",), ("d",))
    assert {*conversion.held} <= {FILES, LIMITS, NETWORK, PRIVILEGES}
    if sys.platform == "linux":
        assert {LIMITS, PRIVILEGES} <= {*conversion.held}
    found = load_file(output)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "model.safetensors"]


def test_code_in_a_pickle_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    malicious = {"w": torch.ones(2), "x": Malice(f"touch {marker}")}
    message = refusal(save(malicious, tmp_path / "model.ckpt"))
    assert "it asks for posix.system, which weights have no need of: do not trust it" in message
    assert not marker.exists()


@pytest.mark.parametrize(
    ("side", "message"),
    [(10**6, "more memory than its size explains"), (10**4, "larger than its size explains")],
)
def test_a_small_file_that_becomes_a_large_one_is_refused(
    tmp_path: Path, side: int, message: str
) -> None:
    bomb = {"w": torch.ones(1).expand(side, side)}
    assert message in refusal(save(bomb, tmp_path / "model.ckpt"))


@pytest.mark.parametrize(
    ("is_zip", "length", "message"),
    [
        (True, 4000, "is a zip file that is cut off or is no checkpoint: get it anew"),
        (False, 4000, "it cannot be read as weights"),
        (True, 0, "is not a pickle: expected a file that torch.save wrote"),
    ],
)
def test_a_file_that_is_cut_off_is_refused(
    tmp_path: Path, is_zip: bool, length: int, message: str
) -> None:
    source = save({"w": torch.randn(2000)}, tmp_path / "model.ckpt", is_zip=is_zip)
    source.write_bytes(source.read_bytes()[:length])
    assert message in refusal(source)


def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "model.ckpt"
    source.write_text("<html>not found</html>")
    assert "is not a pickle" in refusal(source)


def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "missing.ckpt")
    folder = tmp_path / "folder.ckpt"
    folder.mkdir()
    assert "is not a regular file" in refusal(folder)
    safe = tmp_path / "model.ckpt"
    save_file({"w": torch.ones(2)}, safe)
    assert "is a safetensors file: export it as it is" in refusal(safe)
    assert "null" in refusal(tmp_path / "a\0b.ckpt")


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    source = save({"w": torch.ones(2)}, tmp_path / "model.ckpt")
    taken = tmp_path / "taken.safetensors"
    taken.write_text("mine")
    assert "exists: give another name" in refusal(source, taken)
    assert taken.read_text() == "mine"
    assert "ends in .safetensors" in refusal(source, tmp_path / "out.ckpt")
    assert "does not exist: create it" in refusal(source, tmp_path / "none" / "out.safetensors")
    with pytest.raises(OutputError):
        convert(source, tmp_path)


def test_a_worker_that_is_killed_is_one_line(tmp_path: Path) -> None:
    source = save({"w": torch.ones(2)}, tmp_path / "model.ckpt")
    killer = threading.Thread(target=_kill_worker, args=(str(source),))
    killer.start()
    message = refusal(source)
    killer.join()
    assert "the process that read it was ended by signal 9 (Killed)" in message


def _kill_worker(source: str) -> None:
    """Kills the child of this process that was told to convert a file."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes()
                parent = (place / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if int(parent) == os.getpid() and source.encode() in words and b"-I" in words:
                os.kill(int(place.name), signal.SIGKILL)
                return
        time.sleep(0.02)


@ZIP
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors", ""])
def test_a_pickle_is_known_whatever_it_is_called(tmp_path: Path, is_zip: bool, suffix: str) -> None:
    assert is_pickle(save({"w": torch.ones(2)}, tmp_path / f"model{suffix}", is_zip=is_zip))


def test_by_its_suffix_what_cannot_be_told_is_a_pickle(tmp_path: Path) -> None:
    for suffix in (".ckpt", ".bin", ".pt", ".pth", ".pkl", ".CKPT"):
        path = tmp_path / f"model{suffix}"
        assert is_pickle(path)
        path.write_bytes(b"anything")
        assert is_pickle(path)
    assert not is_pickle(tmp_path / "missing.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert not is_pickle(tmp_path / "pipe.safetensors")
    (tmp_path / "text").write_text("anything")
    assert not is_pickle(tmp_path / "text")


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
def test_a_safetensors_file_that_begins_as_a_pickle_does_is_none(
    tmp_path: Path, length: int, name: str
) -> None:
    header: dict[str, Any] = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode().ljust(length)
    (tmp_path / name).write_bytes(struct.pack("<Q", length) + text + bytes(4))
    assert load_file(tmp_path / name).keys() == {"w"}
    assert not is_pickle(tmp_path / name)


def test_a_refusal_says_how_to_convert() -> None:
    with pytest.raises(ModelError) as raised:
        refuse_pickle(Path("my models/a.ckpt"))
    assert str(raised.value) == (
        "my models/a.ckpt is a pickle, which can run code when it is read: convert it with "
        "`giffusion convert 'my models/a.ckpt' -o 'my models/a.safetensors'` and export that"
    )
    with pytest.raises(ModelError, match=r"-o a-converted\.safetensors`"):
        refuse_pickle(Path("a.safetensors"))
