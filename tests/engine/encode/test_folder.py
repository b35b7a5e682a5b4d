"""Publishing folders: whole or not at all, and nobody else's files lost."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from giffusion.engine.encode.folder import OutputFolder, check_place
from giffusion.engine.encode.place import TEMP_SUFFIX
from giffusion.engine.errors import OutputError

NAME = "%02d.png"


def written(path: Path, *, force: bool = False, content: bytes = b"new") -> OutputFolder:
    output = OutputFolder(path, force=force)
    for index in range(2):
        (output.temp.parent / f"{index:02d}.png").write_bytes(content)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


NEW = {"00.png": b"new", "01.png": b"new"}


def test_the_hidden_folder_lies_beside_and_is_removed(tmp_path: Path) -> None:
    output = written(tmp_path / ("n" * 250) / NAME)
    (hidden,) = os.listdir(tmp_path)
    assert hidden.startswith(".")
    assert hidden.endswith(TEMP_SUFFIX)
    output.discard()
    output.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_that_is_missing_or_empty_is_made(
    tmp_path: Path, force: bool, empty: bool
) -> None:
    path = tmp_path / "a" / NAME
    if empty:
        path.parent.mkdir()
    check_place(path, force=force)
    output = written(path, force=force)
    output.publish()
    output.discard()
    assert contents(tmp_path / "a") == NEW
    assert os.listdir(tmp_path) == ["a"]


def test_force_replaces_a_sequence_and_keeps_its_mode(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir(mode=0o750)
    for index in range(9):
        (folder / f"{index:02d}.png").write_bytes(b"old")
    with pytest.raises(OutputError, match=r"folder .*a holds pictures: give --force to replace"):
        check_place(folder / NAME, force=False)
    check_place(folder / NAME, force=True)
    written(folder / NAME, force=True).publish()
    assert contents(folder) == NEW
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["notes.txt", "0.png", "000.png", "00.png.bak", ".hidden"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_anything_else_is_refused(tmp_path: Path, name: str, force: bool) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(b"mine")
    (tmp_path / "a" / "00.png").write_bytes(b"old")
    with pytest.raises(OutputError, match="which is no picture of this sequence: give another"):
        check_place(tmp_path / "a" / NAME, force=force)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_folder_or_link_of_a_pictures_name_is_no_picture(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").mkdir()
    inside = tmp_path / "a" / "00.png"
    if kind == "folder":
        inside.mkdir()
    else:
        (tmp_path / "mine").write_bytes(b"mine")
        inside.symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"holds '00\.png', which is no picture"):
        check_place(tmp_path / "a" / NAME, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_what_appeared_meanwhile_is_left_alone(tmp_path: Path, force: bool) -> None:
    output = written(tmp_path / "a" / NAME, force=force)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_bytes(b"mine")
    (tmp_path / "a-2").mkdir()
    with pytest.raises(OutputError, match=r"during the render: the finished folder is .*a-3"):
        output.publish()
    output.discard()
    assert contents(tmp_path / "a") == {"mine.txt": b"mine"}
    assert contents(tmp_path / "a-2") == {}
    assert contents(tmp_path / "a-3") == NEW
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("force", [False, True])
def test_a_file_that_appeared_meanwhile_is_left_alone(tmp_path: Path, force: bool) -> None:
    output = written(tmp_path / "a" / NAME, force=force)
    (tmp_path / "a").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"the finished folder is .*a-2"):
        output.publish()
    assert (tmp_path / "a").read_bytes() == b"mine"
    assert contents(tmp_path / "a-2") == NEW


def test_the_old_sequence_is_back_where_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a" / NAME, content=b"old").publish()
    output = written(tmp_path / "a" / NAME, force=True)
    move = Path.rename

    def no_move(self: Path, target: Path) -> Path:
        if self == output.temp.parent:
            raise OSError(errno.EIO, "Input/output error")
        return move(self, target)

    monkeypatch.setattr(Path, "rename", no_move)
    with pytest.raises(OSError, match="Input/output error"):
        output.publish()
    output.discard()
    assert contents(tmp_path / "a") == {"00.png": b"old", "01.png": b"old"}
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_folder_is_followed_and_stays(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(target)
    if exists:
        written(target / NAME, content=b"old").publish()
    check_place(link / NAME, force=True)
    written(link / NAME, force=True).publish()
    assert link.is_symlink()
    assert contents(target) == NEW
    assert os.listdir(tmp_path / "there") == ["target"]


def test_folders_in_use_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    for path in (Path(NAME), Path("..", NAME), tmp_path / "a" / NAME, Path("/", NAME)):
        with pytest.raises(OutputError, match=r"is in use: give a new one, such as frames/%05d\."):
            check_place(path, force=True)


def test_places_that_take_no_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, message in [
        (tmp_path / "file" / NAME, "file is not a folder: give the name of another"),
        (tmp_path / "none" / "a" / NAME, "folder .*none does not exist: create it"),
        (tmp_path / "file" / "a" / NAME, "file is not a folder"),
        (tmp_path / ("n" * 300) / NAME, "cannot be an output: File name too long"),
        (tmp_path / "a.png", "expected a pattern, such as .*a/%05d.png"),
    ]:
        with pytest.raises(OutputError, match=message):
            check_place(path, force=True)
    with pytest.raises(OutputError, match=r"cannot write in .*No such file"):
        OutputFolder(tmp_path / "none" / "a" / NAME, force=False)
    # Not by chmod: the superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_place(tmp_path / "a" / NAME, force=False)


def test_publishing_beside_replaces_not_even_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "a.partial").mkdir()
    kept = written(tmp_path / "a" / NAME).publish_beside(".partial")
    assert kept == tmp_path / "a.partial-2"
    assert contents(kept) == NEW
    assert contents(tmp_path / "a.partial") == {}
