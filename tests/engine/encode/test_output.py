"""Publishing files: modes, links, races, and folders that do not take them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from giffusion.engine.encode.output import OutputFile, check_place
from giffusion.engine.encode.place import TEMP_SUFFIX, write_error
from giffusion.engine.errors import DiskFullError, OutputError, RenderError


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def written(path: Path, *, force: bool = False) -> OutputFile:
    output = OutputFile(path, force=force)
    output.temp.write_bytes(b"new")
    return output


def test_the_hidden_file_lies_beside_the_output(tmp_path: Path) -> None:
    first, second = (OutputFile(tmp_path / ("n" * 250 + ".mp4"), force=False) for _ in range(2))
    assert first.temp != second.temp
    for output in (first, second):
        assert output.temp.parent == tmp_path
        assert output.temp.name.startswith(".")
        assert output.temp.name.endswith(TEMP_SUFFIX)
        output.discard()
        output.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("force", [False, True])
def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path, force: bool) -> None:
    written(tmp_path / "a", force=force).publish()
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["a"]


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o604)
    written(path, force=True).publish()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@pytest.mark.parametrize("hard_links", [True, False])
def test_without_force_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    if not hard_links:
        monkeypatch.setattr(os, "link", _no_link)
    path = tmp_path / "a.gif"
    outputs = [written(path) for _ in range(3)]
    outputs[0].publish()
    for number, output in enumerate(outputs[1:], 2):
        with pytest.raises(OutputError, match=rf"a\.gif appeared .* a-{number}\.gif|a-{number}"):
            output.publish()
    assert sorted(os.listdir(tmp_path)) == ["a-2.gif", "a-3.gif", "a.gif"]
    assert {file.read_bytes() for file in tmp_path.iterdir()} == {b"new"}


def test_a_claimed_name_is_given_back_when_the_move_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_replace(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", _no_link)
    monkeypatch.setattr(os, "replace", no_replace)
    output = written(tmp_path / "a")
    with pytest.raises(OSError, match="Input/output error"):
        output.publish()
    output.discard()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.mp4", tmp_path / "link.mp4"
    link.symlink_to(target)
    if exists:
        target.write_bytes(b"old")
        with pytest.raises(OutputError, match=r"link\.mp4 exists"):
            check_place(link, force=False)
    check_place(link, force=exists)
    output = written(link, force=exists)
    assert output.temp.parent == target.parent
    output.publish()
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_link_to_itself_counts_as_taken(tmp_path: Path) -> None:
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    with pytest.raises(OutputError):
        check_place(loop, force=False)


def test_places_that_take_no_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.mp4")
    for path, message in [
        (tmp_path / "file" / "a.mp4", "is not a folder"),
        (tmp_path / "file" / "b" / "a.mp4", "cannot be an output|does not exist"),
        (tmp_path / "pipe.mp4", "not a regular file"),
        (tmp_path / ("n" * 300 + ".mp4"), "cannot be an output: File name too long"),
        (tmp_path / "nul\0.mp4", "cannot be an output"),
        (tmp_path, "is a folder"),
    ]:
        with pytest.raises(OutputError, match=message):
            check_place(path, force=True)


def test_a_folder_that_is_not_writable_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not by chmod: the superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        check_place(tmp_path / "a.mp4", force=False)


def test_a_hidden_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write in .*No such file"):
        OutputFile(tmp_path / "none" / "a.mp4", force=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_an_error_of_its_own(number: int) -> None:
    error = write_error(OSError(number, os.strerror(number)), Path("/data"), 7)
    assert isinstance(error, DiskFullError)
    assert str(error) == f"no space left in /data after 7 frames: {os.strerror(number)}"


def test_other_errors_keep_their_reason_in_one_line() -> None:
    error = write_error(ValueError("a\n  b"), Path("/data"), 7)
    assert type(error) is RenderError
    assert str(error) == "cannot write the output in /data after 7 frames: ValueError: a b"


def _no_link(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")
