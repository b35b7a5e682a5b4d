"""Where the program refuses something: every place in `engine/` and `server/`, found in the source.

A site is a `raise` of one of the errors in `engine/errors.py`, or of what a function that makes one
returns, or the call of a function that always raises. `test_completeness.py` asks which of them an
exception has passed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import giffusion.engine
import giffusion.server

ROOT = Path(__file__).parents[2]
_PACKAGES = [Path(str(package.__file__)).parent for package in (giffusion.engine, giffusion.server)]
_BASE = "GiffusionError"
# argparse's own: one is an exception that it reports, the other ends the program.
_OF_ARGPARSE = {"ArgumentTypeError"}
_ENDS = {"error"}


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """A place that refuses something.

    Args:
        file: path from the top of the repository.
        line: its first line, from 1.
        end: its last line.
        function: dotted name of the function around it.
        code: its first line, for reading.
    """

    file: str
    line: int
    end: int
    function: str
    code: str

    @property
    def key(self) -> str:
        """What it is excused by: file and function."""
        return f"{self.file}: {self.function}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.function}: {self.code}"


def all_sites() -> list[Site]:
    """Returns every site, in the order of files and lines."""
    sources = {path: ast.parse(path.read_text("utf-8")) for path in _modules()}
    errors = _errors(list(sources.values()))
    makers, enders = set(errors), set(_ENDS)
    for tree in sources.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                returned = ast.unparse(node.returns)
                if returned in errors:
                    makers.add(node.name)
                elif returned == "NoReturn":
                    enders.add(node.name)
    return sorted(
        site for path, tree in sources.items() for site in _sites(path, tree, makers, enders)
    )


def passed(error: BaseException) -> set[tuple[str, int]]:
    """Returns the lines, as (file, line), that an exception and its causes came by."""
    lines: set[tuple[str, int]] = set()
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        lines |= set(_frames(one.__traceback__))
        waiting += [one.__cause__, one.__context__]
    return lines


def _modules() -> Iterator[Path]:
    for package in _PACKAGES:
        yield from sorted(package.rglob("*.py"))


def _name(path: Path) -> str:
    home = next(package for package in _PACKAGES if path.is_relative_to(package))
    return f"{home.name}/{path.relative_to(home).as_posix()}"


def _errors(trees: list[ast.Module]) -> set[str]:
    """Returns the names of all classes that derive from the base, wherever they stand."""
    known = {_BASE, *_OF_ARGPARSE}
    classes = [n for tree in trees for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    while found := {
        c.name
        for c in classes
        if c.name not in known and any(ast.unparse(base) in known for base in c.bases)
    }:
        known |= found
    return known


def _sites(path: Path, tree: ast.Module, makers: set[str], enders: set[str]) -> Iterator[Site]:
    lines = path.read_text("utf-8").splitlines()

    def visit(node: ast.AST, around: tuple[str, ...]) -> Iterator[Site]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            around = (*around, node.name)
        raised = node.exc if isinstance(node, ast.Raise) else None
        called = node.value if isinstance(node, ast.Expr) else None
        if _calls(raised, makers) or _calls(called, enders):
            assert isinstance(node, ast.stmt)
            end = node.end_lineno or node.lineno
            code = lines[node.lineno - 1].strip()
            yield Site(_name(path), node.lineno, end, ".".join(around), code)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, around)

    yield from visit(tree, ())


def _calls(node: ast.expr | None, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in names


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        path = Path(traceback.tb_frame.f_code.co_filename)
        if any(path.is_relative_to(package) for package in _PACKAGES):
            yield _name(path), traceback.tb_lineno
        traceback = traceback.tb_next
