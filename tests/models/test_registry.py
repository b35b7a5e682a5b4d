from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import ModelError, SettingsError
from giffusion.engine.places import CACHE, HOME, cache_folder, data_folder
from giffusion.models import bundled_models, find_model, installed_models
from giffusion.models.registry import MAX_NAME, Registry

BUNDLED = bundled_models()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The user's own, empty and at a place of the test's."""
    monkeypatch.setenv(HOME, str(tmp_path / "data"))
    return Registry()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sd").mkdir()
    return tmp_path / "sd"


def test_what_was_added_is_found_by_name(registry: Registry, folder: Path) -> None:
    assert registry.models() == {}
    registry.add("sd", folder, BUNDLED)
    registry.add("Dreamlike-2.0", folder, BUNDLED)
    assert Registry().models() == {"Dreamlike-2.0": folder, "sd": folder}
    assert find_model("sd") == folder
    assert list(installed_models()) == [*BUNDLED, "Dreamlike-2.0", "sd"]
    assert find_model("mini") == BUNDLED["mini"]


def test_a_path_is_kept_whole(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    registry.add("here", Path("../sd/."), BUNDLED)
    monkeypatch.chdir("/")
    assert find_model("here") == folder


def test_a_path_of_any_bytes_comes_back(registry: Registry, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9 "\n\xf0\x9f\xa6\x81'))
    odd.mkdir()
    registry.add("odd", odd, BUNDLED)
    assert find_model("odd") == odd


def test_the_same_once_more_is_no_error(registry: Registry, folder: Path) -> None:
    registry.add("sd", folder, BUNDLED)
    before = registry.path.stat()
    registry.add("sd", folder, BUNDLED)
    assert registry.path.stat() == before


def test_a_name_keeps_its_folder(registry: Registry, folder: Path, tmp_path: Path) -> None:
    registry.add("sd", folder, BUNDLED)
    with pytest.raises(SettingsError, match=r"'sd' is registered already, at .*`giffusion models "):
        registry.add("sd", tmp_path, BUNDLED)
    assert find_model("sd") == folder


def test_a_bundled_name_is_taken(registry: Registry, folder: Path) -> None:
    with pytest.raises(SettingsError, match="'mini' ships with giffusion: give another name"):
        registry.add("mini", folder, BUNDLED)
    assert not registry.path.exists()


WRONG_NAMES = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "/abs",
    "~",
    "-x",
    "--all",
    "_a",
    ".hidden",
    "two words",
    "a\n",
    "a\0",
    "a:b",
    "\udcff",
    "a" * (MAX_NAME + 1),
    "a" * 10_000_000,
]


@pytest.mark.parametrize("name", WRONG_NAMES, ids=lambda name: repr(name[:20]))
def test_what_cannot_be_a_name(registry: Registry, folder: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="cannot be a model's name: expected") as caught:
        registry.add(name, folder, BUNDLED)
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "7", "sd-1.5", "löwe", "犬", "a" * MAX_NAME, "SDXL+turbo_2"])
def test_what_can_be_a_name(registry: Registry, folder: Path, name: str) -> None:
    registry.add(name, folder, BUNDLED)
    assert find_model(name) == folder


def test_removing_forgets_all_or_none(registry: Registry, folder: Path) -> None:
    for name in ("one", "two", "three"):
        registry.add(name, folder, BUNDLED)
    with pytest.raises(SettingsError, match="unknown model 'tow': did you mean 'two'"):
        registry.remove(["one", "tow"])
    assert list(registry.models()) == ["one", "three", "two"]
    assert registry.remove(["two", "one", "two"]) == {"two": folder, "one": folder}
    assert list(registry.models()) == ["three"]
    assert folder.is_dir()
    with pytest.raises(SettingsError, match="unknown model 'two'"):
        find_model("two")


DAMAGED = [
    b"",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b"[]",
    b"null",
    b"{}",
    b'{"format": 2, "models": {}}',
    b'{"format": "1", "models": {}}',
    b'{"format": null, "models": {}}',
    b'{"format": 1}',
    b'{"format": 1, "models": []}',
    b'{"format": 1, "models": {}, "colour": 1}',
    b'{"format": 1, "models": {"sd": 1}}',
    b'{"format": 1, "models": {"sd": null}}',
    b'{"format": 1, "models": {"sd": "relative"}}',
    b'{"format": 1, "models": {"a/b": "/sd"}}',
    b'{"format": 1, "models": {"a\\nb": "/sd\\n"}}',
]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:40]))
def test_a_damaged_list_is_a_line_and_stays(
    registry: Registry, folder: Path, content: bytes
) -> None:
    registry.path.parent.mkdir()
    registry.path.write_bytes(content)
    for use in (
        lambda: registry.models(),
        lambda: registry.add("sd", folder, BUNDLED),
        lambda: registry.remove(["sd"]),
        lambda: find_model("sd"),
        lambda: installed_models(),
    ):
        with pytest.raises(ModelError, match=r"the list of models .* is damaged: ") as caught:
            use()
        assert str(caught.value).isprintable()
    assert registry.path.read_bytes() == content
    # What needs no list is found as before.
    assert find_model("mini") == BUNDLED["mini"]
    assert find_model(str(folder)) == folder


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_are_more_than_a_line(tmp_path_factory: pytest.TempPathFactory, x: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(x)
    with pytest.raises(ModelError) as caught:
        Registry(path).models()
    assert str(caught.value).isprintable()


def test_a_folder_that_is_gone_is_a_line(registry: Registry, folder: Path) -> None:
    registry.add("sd", folder, BUNDLED)
    folder.rmdir()
    with pytest.raises(ModelError, match=r"no folder any more: .*`giffusion models rm sd`"):
        find_model("sd")
    registry.remove(["sd"])
    assert registry.models() == {}


def test_a_name_stands_before_a_folder_and_a_path_is_one(
    registry: Registry, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work" / "sd").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert find_model("sd") == Path("sd")
    registry.add("sd", folder, BUNDLED)
    assert find_model("sd") == folder
    assert find_model("./sd") == Path("sd")


@pytest.mark.parametrize("name", ["~nobody-of-this-name", "~nobody-of-this-name/sd", "a" * 9999])
def test_what_is_no_path_is_unknown(registry: Registry, name: str) -> None:
    with pytest.raises(SettingsError, match="unknown model '"):
        find_model(name)


def test_a_place_that_cannot_be_used_is_a_line(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text").write_text("")
    monkeypatch.setenv(HOME, str(tmp_path / "text"))
    with pytest.raises(ModelError, match="cannot be read: Not a directory; set GIFFUSION_HOME"):
        Registry().models()
    with pytest.raises(ModelError, match="cannot be written: File exists; set GIFFUSION_HOME"):
        Registry().add("sd", folder, BUNDLED)
    assert find_model("mini") == BUNDLED["mini"]


def test_without_a_home_folder_the_bundled_models_are_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME, "~nobody-of-this-name/data")
    assert find_model("mini") == BUNDLED["mini"]
    assert find_model(str(folder)) == folder
    with pytest.raises(SettingsError, match="no home folder here: set GIFFUSION_HOME"):
        find_model("sd")


def test_a_link_stays_a_link(registry: Registry, folder: Path, tmp_path: Path) -> None:
    registry.path.parent.mkdir()
    registry.path.symlink_to(tmp_path / "dotfiles.json")
    registry.add("sd", folder, BUNDLED)
    assert registry.path.is_symlink()
    assert "sd" in json.loads((tmp_path / "dotfiles.json").read_text())["models"]


def test_what_a_killed_process_left_does_not_matter(registry: Registry, folder: Path) -> None:
    registry.path.parent.mkdir()
    registry.path.with_name(".models.json.part").write_text('{"format": 1, "mod')
    registry.path.with_suffix(".lock").write_text("")
    registry.add("sd", folder, BUNDLED)
    assert list(registry.models()) == ["sd"]
    assert sorted(os.listdir(registry.path.parent)) == ["models.json", "models.lock"]


PROCESS = """
import sys
from pathlib import Path
from giffusion.models.registry import Registry
for i in range(30):
    Registry().add(f"{sys.argv[1]}{i}", Path("/"), {})
    if i % 3 == 0:
        Registry().remove([f"{sys.argv[1]}{i}"])
"""


def test_two_processes_lose_nothing(registry: Registry) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, name], stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
    expected = {f"{name}{i}" for name in "ab" for i in range(30) if i % 3}
    assert set(registry.models()) == expected


def test_one_waits_for_the_other(registry: Registry, folder: Path) -> None:
    registry.add("first", folder, BUNDLED)
    with registry.path.with_suffix(".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        waiting = threading.Thread(target=registry.add, args=("second", folder, BUNDLED))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        # Readers need not wait: the list is whole at every moment.
        assert list(registry.models()) == ["first"]
    waiting.join(30)
    assert list(registry.models()) == ["first", "second"]


def test_where_things_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (CACHE, HOME, "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "giffusion"
    assert data_folder() == tmp_path / ".local" / "share" / "giffusion"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg/cache")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg/data")
    assert cache_folder() == Path("/xdg/cache/giffusion")
    assert data_folder() == Path("/xdg/data/giffusion")
    monkeypatch.setenv(CACHE, "~/c")
    monkeypatch.setenv(HOME, "/d")
    assert (cache_folder(), data_folder()) == (tmp_path / "c", Path("/d"))
    assert Registry().path == Path("/d/models.json")
