from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from giffusion.engine import digests
from giffusion.engine.digests import SETTLED_NS, WORTH_BYTES, digests_folder, sha256
from giffusion.engine.places import CACHE


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, that believes files to be settled at once."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    return tmp_path / "cache"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"a" * WORTH_BYTES)
    return path


def plain(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entries() -> list[Path]:
    return sorted(digests_folder().iterdir())


def spoil(entry: Path) -> str:
    """Lets an entry lie, so that what is recalled can be told from what is computed."""
    digest, state = digests._parse(entry.read_bytes())
    assert digest is not None
    assert state is not None
    lie = "0" * 64
    digests._remember(state, lie)
    return lie


def test_an_unchanged_file_is_hashed_once(cache: Path, weights: Path) -> None:
    assert sha256(weights) == plain(weights)
    (entry,) = entries()
    assert sha256(weights) == plain(weights)
    lie = spoil(entry)
    assert sha256(weights) == lie


def test_any_path_to_a_file_recalls_it(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256(weights)
    lie = spoil(entries()[0])
    link = weights.with_name("link")
    link.symlink_to(weights)
    monkeypatch.chdir(weights.parent)
    assert sha256(link) == sha256(Path(weights.name)) == lie
    assert len(entries()) == 1


def test_small_files_are_hashed_each_time(cache: Path, weights: Path) -> None:
    weights.write_bytes(b"a" * (WORTH_BYTES - 1))
    assert sha256(weights) == plain(weights)
    assert not cache.exists()


def test_another_content_of_the_same_size_and_time_is_seen(cache: Path, weights: Path) -> None:
    before = weights.stat()
    first = sha256(weights)
    time.sleep(0.02)
    with weights.open("r+b") as stream:
        stream.write(b"b")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = weights.stat()
    assert (before.st_mtime_ns, before.st_size, before.st_ino) == (
        after.st_mtime_ns,
        after.st_size,
        after.st_ino,
    )
    assert sha256(weights) == plain(weights) != first
    assert len(entries()) == 1


def test_a_file_put_in_the_others_place_is_seen(cache: Path, weights: Path) -> None:
    first = sha256(weights)
    other = weights.with_name("other")
    other.write_bytes(b"b" * WORTH_BYTES)
    shutil.copystat(weights, other)
    other.replace(weights)
    assert sha256(weights) == plain(weights) != first


def test_a_longer_file_is_seen(cache: Path, weights: Path) -> None:
    sha256(weights)
    with weights.open("ab") as stream:
        stream.write(b"b")
    assert sha256(weights) == plain(weights)


def test_a_file_that_changed_just_now_is_not_remembered(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_NS", SETTLED_NS)
    assert sha256(weights) == plain(weights)
    assert not cache.exists()
    # Old by its own account: when it was put there says otherwise.
    os.utime(weights, (0, 0))
    assert sha256(weights) == plain(weights)
    assert not cache.exists()
    time.sleep(SETTLED_NS / 1e9 + 0.1)
    sha256(weights)
    assert len(entries()) == 1


def test_a_file_from_the_future_is_not_remembered(cache: Path, weights: Path) -> None:
    os.utime(weights, (time.time() + 3600, time.time() + 3600))
    assert sha256(weights) == plain(weights)
    assert not cache.exists()


def test_a_file_that_changes_while_it_is_read_is_not_remembered(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = hashlib.file_digest

    def meanwhile(stream: object, name: str) -> object:
        with weights.open("ab") as other:
            other.write(b"b")
        return original(stream, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", meanwhile)
    sha256(weights)
    assert not cache.exists()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"a text",
        b"\xff\x00" * 99,
        b"[" * 100_000,
        b"0" * 64,
        b"%b %b\n1 2 3 4 /weights" % (b"0" * 64, b"0" * 64),
    ],
    ids=["empty", "text", "bytes", "brackets", "digest alone", "other check"],
)
def test_a_damaged_entry_is_computed_and_written_again(
    cache: Path, weights: Path, damage: bytes
) -> None:
    sha256(weights)
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage)
    assert sha256(weights) == plain(weights)
    assert entry.read_bytes() == whole


def test_no_bit_of_an_entry_can_turn(cache: Path, weights: Path) -> None:
    sha256(weights)
    (entry,) = entries()
    whole = entry.read_bytes()
    for place in range(len(whole)):
        entry.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert sha256(weights) == plain(weights)
        assert entry.read_bytes() == whole


@contextmanager
def another_user() -> Iterator[None]:
    """Gives up root's right to write everywhere."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


def test_a_cache_that_cannot_be_written_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    # Not below pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (weights := folder / "weights").write_bytes(b"a" * WORTH_BYTES)
        (folder / "cache" / "digests").mkdir(parents=True)
        (folder / "cache" / "digests").chmod(0o555)
        folder.chmod(0o755)
        monkeypatch.setenv(CACHE, str(folder / "cache"))
        with another_user():
            assert sha256(weights) == plain(weights)
        assert entries() == []
        (folder / "cache" / "digests").chmod(0o755)


@pytest.mark.parametrize("place", ["weights.safetensors", "/proc/giffusion"])
def test_a_cache_that_is_no_folder_has_no_effect(
    cache: Path, weights: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(weights.parent / place))
    assert sha256(weights) == plain(weights)
    assert sha256(weights) == plain(weights)


def test_without_a_home_folder_nothing_is_remembered(
    cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, "~nobody-of-this-name/cache")
    assert sha256(weights) == plain(weights)


def test_a_missing_file_is_the_callers_matter(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        sha256(tmp_path)


def fill(number: int, path: Path) -> None:
    """Adds entries of files that never were."""
    for i in range(number):
        state = digests._State(os.fsencode(path / f"{i}"), b"1 2 3 4 ")
        digests._remember(state, "0" * 64)


def test_files_that_are_gone_are_forgotten_when_there_are_many(
    cache: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_ENTRIES", 8)
    fill(8, tmp_path / "gone")
    assert len(entries()) == 8
    sha256(weights)
    (entry,) = entries()
    assert os.fsencode(weights) in entry.read_bytes()


def test_those_hashed_first_are_forgotten_when_there_are_too_many(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_ENTRIES", 8)
    files = [tmp_path / f"{i}" for i in range(9)]
    for age, file in enumerate(files):
        file.write_bytes(b"%d" % age * WORTH_BYTES)
        sha256(file)
        for entry in entries():
            if os.fsencode(file) in entry.read_bytes():
                os.utime(entry, (age, age))
    left = b"".join(entry.read_bytes() for entry in entries())
    assert [file for file in files if os.fsencode(file) in left] == files[-4:]


def test_what_a_killed_process_left_is_removed(
    cache: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "MAX_ENTRIES", 2)
    digests_folder().mkdir(parents=True)
    for name, age in (("old", 7200), ("new", 0)):
        (digests_folder() / f".part-{name}").write_bytes(b"half")
        os.utime(digests_folder() / f".part-{name}", (time.time() - age,) * 2)
    sha256(weights)
    assert [entry.name for entry in entries() if entry.name.startswith(".part")] == [".part-new"]


PROCESS = """
import sys
from pathlib import Path
from giffusion.engine import digests
digests.SETTLED_NS, digests.MAX_ENTRIES = 0, 4
paths = [Path(name) for name in sys.argv[1:]]
for _ in range(40):
    print(*map(digests.sha256, paths))
"""


def test_two_processes_at_once(cache: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}" for i in range(6)]
    for file in files:
        file.write_bytes(file.name.encode() * WORTH_BYTES)
    expected = " ".join(map(plain, files))
    command = [sys.executable, "-c", PROCESS, *map(str, files)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert set(out.splitlines()) == {expected}
    for entry in entries():
        assert digests._parse(entry.read_bytes())[0] is not None
