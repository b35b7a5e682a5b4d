"""The entries of `docs/errors.md`: what each says it takes, and what really comes of it.

An entry is a command or a line of Python, after lines that set a scene, and the lines that are
printed. Entries stand in blocks of the kinds `console` and `python`, with blank lines between.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from giffusion.engine.errors import GiffusionError
from giffusion.engine.media.video import FilmReader
from giffusion.engine.pipeline import Engine
from giffusion.server import cli
from tests.catalogue.namespace import namespace
from tests.catalogue.scenes import set_scene
from tests.catalogue.sites import passed
from tests.pages import blocks

PAGE = "errors.md"
HOME = "/home/me"
"""What the page calls the folder that its commands run in."""
FILM = "0: a corgi\n24: a lion\n"
_CONTINUED = "\n> "


@dataclass(frozen=True, slots=True)
class Entry:
    """A cause and its message.

    Args:
        line: where it stands on the page, from 1.
        scenes: what is the case, in words.
        cause: a command of the shell, or an expression of Python.
        in_python: which of the two.
        printed: the lines that come of it; `…` stands for anything.
    """

    line: int
    scenes: tuple[str, ...]
    cause: str
    in_python: bool
    printed: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.line}: {self.cause[:60]}"

    def prints(self, printed: list[str]) -> bool:
        """Returns whether lines are the entry's."""
        pattern = ".+".join(map(re.escape, "\n".join(self.printed).split("…")))
        return re.fullmatch(pattern, "\n".join(printed)) is not None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an entry.

    Args:
        printed: all lines on standard output and then on standard error.
        code: the exit code, or None in Python.
        lines: the lines of the source, as (file, line), that the error came by.
    """

    printed: list[str]
    code: int | None
    lines: set[tuple[str, int]]


def entries() -> list[Entry]:
    """Returns all entries of the page."""
    return [
        entry
        for kind in ("console", "python")
        for block in blocks(PAGE, kind)
        for entry in _entries(block.text, block.line, in_python=kind == "python")
    ]


def run(entry: Entry, capture: pytest.CaptureFixture[str]) -> Outcome:
    """Does what an entry says, in a folder of its own.

    Args:
        entry: the entry.
        capture: of standard output and error.
    """
    with TemporaryDirectory() as folder:
        return _run(entry, Path(folder).resolve(), capture)


def _run(entry: Entry, folder: Path, capture: pytest.CaptureFixture[str]) -> Outcome:
    (folder / "film.txt").write_text(FILM, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GIFFUSION_CACHE", str(folder / "cache"))
        patch.setenv("GIFFUSION_HOME", str(folder / "data"))
        names = namespace()
        for scene in entry.scenes:
            set_scene(scene, folder, patch, names)
        capture.readouterr()
        if entry.in_python:
            return _run_python(entry.cause, names, folder)
        code, error = _main(shlex.split(entry.cause)[1:], patch)
    out, err = capture.readouterr()
    return Outcome(_shown(out + err, folder), code, passed(error))


def _entries(text: str, line: int, *, in_python: bool) -> Iterator[Entry]:
    mark = ">>> " if in_python else "$ "
    for paragraph in text.removesuffix("\n").split("\n\n"):
        lines = paragraph.replace(_CONTINUED, "\0").split("\n")
        scenes = [scene.removeprefix("# ") for scene in lines if scene.startswith("# ")]
        cause, *printed = lines[len(scenes) :]
        assert cause.startswith(mark), f"docs/{PAGE}:{line}: expected '{mark}', not {cause!r}"
        cause = cause.removeprefix(mark).replace("\0", "\n")
        yield Entry(line, tuple(scenes), cause, in_python, tuple(printed))
        line += paragraph.count("\n") + 2


def _main(arguments: list[str], patch: pytest.MonkeyPatch) -> tuple[int, BaseException]:
    """Runs the command line; returns its exit code and the error that it told of."""
    errors: list[BaseException] = []
    complain = cli._complain

    def told(message: str, error: BaseException) -> None:
        errors.append(error)
        complain(message, error)

    patch.setattr(cli, "_complain", told)
    try:
        code = cli.main(arguments)
    except SystemExit as error:
        code = int(str(error.code))
        errors.append(error)
    assert len(errors) == 1, f"{len(errors)} errors of {arguments}"
    return code, errors[0]


def _run_python(expression: str, names: dict[str, object], folder: Path) -> Outcome:
    try:
        value = eval(expression, names)  # the page's own text
    except GiffusionError as error:
        shown = _shown(f"{type(error).__name__}: {error}\n", folder)
        return Outcome(shown, None, passed(error))
    finally:
        for each in names.values():
            if isinstance(each, Engine | FilmReader):
                each.close()
    raise AssertionError(f"{expression} is {value!r}")


def _shown(text: str, folder: Path) -> list[str]:
    assert not text or text.endswith("\n"), text
    return text.replace(str(folder), HOME).split("\n")[:-1]
