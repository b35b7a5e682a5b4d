"""The wheel: it holds what the tree holds, and renders where importing torch raises."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import av
import pytest

from tests.test_house import TORCH_SIDE

ROOT = Path(__file__).parent.parent
PACKAGES = ("engine", "export", "models", "server")
BUILT_FROM = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Built from a copy, so that no build folder is left in the tree and none is picked up from it.
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        source = ROOT / name
        if source.is_file() and name.split("/")[0] in BUILT_FROM:
            target = folder / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(folder / "tree")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    tree = wheel.parent / "tree"
    expected = {
        "giffusion/" + path.relative_to(tree).as_posix()
        for package in PACKAGES
        for path in (tree / package).rglob("*")
        if path.is_file()
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("giffusion/")}
    assert held == expected


def test_the_installed_wheel_renders_without_torch(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    bin_folder = home / ("Scripts" if os.name == "nt" else "bin")
    python = bin_folder / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies of this environment; its editable giffusion is found by a hook that a plain
    # path does not run.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    poison = tmp_path / "poison"
    poison.mkdir()
    for name in TORCH_SIDE:
        (poison / f"{name}.py").write_text(f"raise ImportError('{name} must not be imported')\n")
    output = tmp_path / "out.mp4"
    script = (
        "import giffusion.engine, sys\n"
        f"assert giffusion.engine.__file__.startswith({str(home)!r}), giffusion.engine.__file__\n"
        "from giffusion.server.cli import main\n"
        f"sys.exit(main(['render', '--prompts', '0: a dog\\n2: a lion', '-o', {str(output)!r}, "
        "'--steps', '2']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(poison)}
    done = subprocess.run(
        [str(python), "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with av.open(str(output)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 3
