"""The house rules: who imports whom, what is packaged, how large a module gets."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("engine", "export", "models", "server")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 300

TORCH_SIDE = {
    "torch",
    "diffusers",
    "transformers",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "huggingface_hub",
}
"""Packages of the extra `export`: rendering must work without them."""
BELOW = {
    "engine": {"engine"},
    "export": {"engine", "export"},
    "models": {"engine", "models"},
    "server": set(PACKAGES),
}
RUNTIMES = {"cuda", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"}
EXTRAS = {"comet_ml", "librosa", "matplotlib", "numba", "scipy"}
"""Packages of the extras `audio` and `comet`: all else works without them, and starts sooner."""
ONE_MODULE_ONLY = RUNTIMES | EXTRAS | {"huggingface_hub", "tokenizers", "tomli_w", "tqdm"}
SHARED = {("export", "tokenizers"), ("models", "tokenizers")}
"""Packages of a house whose other modules may import them too."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """Dotted names that a module imports; without `lazy` only those at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name_of(path)} has a relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_packages_import_only_what_lies_below(path: Path) -> None:
    package = name_of(path).split("/")[0]
    houses = {name.split(".")[1] for name in imports(path) if name.startswith("giffusion.")}
    assert houses <= BELOW[package]
    if package in ("engine", "server"):
        assert not {name.split(".")[0] for name in imports(path)} & TORCH_SIDE


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_heavy_packages_are_imported_in_one_module_each() -> None:
    users = defaultdict(list)
    for path in MODULES:
        house = name_of(path).split("/")[0]
        for name in {name.split(".")[0] for name in imports(path)} & ONE_MODULE_ONLY:
            if (house, name) not in SHARED:
                users[name].append(name_of(path))
    assert users.keys() == ONE_MODULE_ONLY
    assert {name: files for name, files in users.items() if len(files) > 1} == {}


def test_runtimes_and_extras_are_imported_lazily() -> None:
    for path in MODULES:
        top = {name.split(".")[0] for name in imports(path, lazy=False)}
        assert not top & (RUNTIMES | EXTRAS), name_of(path)


def test_imports_between_modules_have_no_cycle() -> None:
    homes = {
        "giffusion." + dotted.removesuffix(".__init__"): path
        for path in MODULES
        if (dotted := name_of(path).removesuffix(".py").replace("/", "."))
    }
    graph = {
        module: {name for name in imports(path, lazy=False) if name in homes and name != module}
        for module, path in homes.items()
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " → ".join([*trail, module])
        if module not in done:
            for below in graph[module]:
                visit(below, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_every_package_is_listed_and_linked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    setuptools = settings["tool"]["setuptools"]
    folders = {
        "giffusion." + name_of(path.parent).replace("/", ".")
        for path in MODULES
        if path.name == "__init__.py"
    }
    assert set(setuptools["packages"]) == folders
    assert {
        f"giffusion.{folder.replace('/', '.')}" for folder in setuptools["package-dir"].values()
    } == folders
    for package in PACKAGES:
        link = ROOT / ".typecheck" / "giffusion" / package
        assert link.resolve() == ROOT / package


def test_every_module_says_what_lives_in_it() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name_of(path)
