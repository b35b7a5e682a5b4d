"""`giffusion models`, as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from giffusion.engine.places import HOME
from tests.catalogue.slim import edit_json, slim_model
from tests.server.conftest import Command


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that is not bundled."""
    folder = tmp_path_factory.mktemp("original") / "corgis"
    slim_model(folder)
    edit_json(folder / "giffusion.json", name="corgis")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Such a folder to damage."""
    return Path(shutil.copytree(original, tmp_path / "corgis"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Command) -> Command:
    """Runs the program in a folder, without registered models at first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(HOME, str(tmp_path / "data"))

    return program


def listed(command: Command) -> dict[str, dict[str, object]]:
    status, out, _ = command("models ls --json")
    assert status == 0
    models: dict[str, dict[str, object]] = json.loads(out)
    return models


def test_a_registered_model_is_found_everywhere(command: Command, folder: Path) -> None:
    assert command("models add corgis") == (
        0,
        f"registered corgis, at {folder}: render with --model corgis\n",
        "",
    )
    render = "render --prompts '0: a corgi' --frames 1 --steps 1 --model"
    assert command(f"{render} corgis -o named.gif")[0] == 0
    assert command(f"{render} ./corgis -o by-path.gif")[0] == 0
    named, by_path = (Path(name).read_bytes() for name in ("named.gif", "by-path.gif"))
    assert named == by_path


def test_what_is_registered_is_listed(command: Command, folder: Path) -> None:
    command("models add corgis --name dogs")
    models = listed(command)
    assert list(models) == ["mini", "mini-turbo", "dogs"]
    assert (models["mini"]["kind"], models["dogs"]["kind"]) == ("bundled", "registered")
    assert models["dogs"]["folder"] == str(folder)
    for key in ("size", "prediction", "multiple", "tokens"):
        assert models["dogs"][key] == models["mini"][key]
    for line in ("models", "models ls"):
        status, out, _ = command(line)
        assert status == 0
        assert [text.split()[0] for text in out.splitlines()] == ["mini", "mini-turbo", "dogs"]
        assert f"size {models['mini']['size']}" in out
        assert "prediction v_prediction" in out
    assert json.loads(command("models --json")[1]) == models
    assert json.loads(command("models --json ls")[1]) == models


def test_a_broken_one_is_listed_in_a_line(command: Command, folder: Path) -> None:
    command("models add corgis")
    (folder / "denoise.onnx").write_bytes(b"")
    reason = f"{folder}/denoise.onnx is not the file that was exported: export the model again"
    assert listed(command)["corgis"]["broken"] == reason
    status, out, _ = command("models")
    assert status == 0
    assert out.splitlines()[2].startswith(f"corgis       broken {reason}, ")
    shutil.rmtree(folder)
    assert "does not exist" in str(listed(command)["corgis"]["broken"])
    status, _, err = command("render --prompts '0: a' -o out.gif --model corgis")
    assert status == 2
    assert "which is no folder any more: put it there again, or `giffusion models rm" in err


def test_what_is_no_model_is_not_registered(command: Command, folder: Path) -> None:
    for line, words in (
        ("models add none", "model folder none does not exist"),
        ("models add data --name data", "model folder data does not exist"),
        ("models add . --name all", "is not a model folder: it has no giffusion.json"),
        ("models add corgis --name mini", "'mini' ships with giffusion: give another name"),
        ("models add corgis --name a/b", "'a/b' cannot be a model's name"),
        ("models add corgis --name ''", "'' cannot be a model's name"),
    ):
        status, out, err = command(line)
        assert (status, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
    (folder / "unet").joinpath("x").parent.mkdir(exist_ok=True)
    (folder / "decode.onnx").unlink()
    assert command("models add corgis")[0] == 2
    assert list(listed(command)) == ["mini", "mini-turbo"]


def test_a_name_is_not_taken_over(command: Command, folder: Path) -> None:
    shutil.copytree(folder, "others")
    command("models add corgis")
    status, _, err = command("models add others")
    assert status == 2
    assert f"'corgis' is registered already, at {folder}: give another --name" in err
    assert command("models add others --name others")[0] == 0
    assert command("models add corgis")[0] == 0


def test_forgetting_leaves_the_folder(command: Command, folder: Path) -> None:
    command("models add corgis")
    command("models add corgis --name dogs")
    status, out, _ = command("models rm corgis dogs")
    assert status == 0
    assert out.splitlines() == [
        f"forgot {name}; its folder stays where it is: {folder}" for name in ("corgis", "dogs")
    ]
    assert (folder / "giffusion.json").exists()
    assert list(listed(command)) == ["mini", "mini-turbo"]


def test_what_cannot_be_forgotten(command: Command, folder: Path) -> None:
    command("models add corgis")
    for line, words in (
        ("models rm corgis mini", "'mini' ships with giffusion and cannot be removed"),
        ("models rm corgis corgi", "unknown model 'corgi': did you mean 'corgis'?"),
        ("models rm", "arguments are required: NAME"),
    ):
        status, out, err = command(line)
        assert (status, out) == (2, "")
        assert words in err
        assert err.count("\n") == 1
    assert list(listed(command)) == ["mini", "mini-turbo", "corgis"]


def test_a_damaged_list_is_a_line(command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "models.json").write_text("{")
    for line in ("models", "models rm a", "render --prompts '0: a' -o out.gif --model a"):
        status, out, err = command(line)
        assert (status, out) == (2, "")
        assert "models.json is damaged: " in err
        assert err.count("\n") == 1
    assert command("render --prompts '0: a' --frames 1 --steps 1 -o out.gif")[0] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("models lss", "unknown action 'lss': did you mean 'ls'? known: add, ls, rm, verify"),
        ("models mini", "unknown action 'mini': "),
        ("models --jso", "unknown option '--jso': did you mean '--json'?"),
        ("models ls --jso", "unknown option '--jso': did you mean '--json'?"),
        ("models add . --nam a", "unknown option '--nam': did you mean '--name'?"),
        ("models add . b", "'b' is one too many"),
        ("models add", "arguments are required: DIR"),
        ("models --json rm a", "--json goes with `giffusion models ls`, not with rm"),
    ],
)
def test_wrong_words_are_a_line(command: Command, line: str, words: str) -> None:
    status, out, err = command(line)
    assert (status, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1


def test_the_bundled_model_computes_what_its_networks_do(command: Command) -> None:
    status, out, err = command("models verify mini")
    assert (status, err) == (0, "")
    stages = {line.split()[1].partition(".")[0] for line in out.splitlines()}
    assert stages == {"text", "denoise", "decode", "encode"}
    for line in out.splitlines():
        assert line.startswith("mini: ")
        assert " ok, largest error " in line


def test_a_model_that_computes_something_else_is_told(command: Command, folder: Path) -> None:
    command("models add corgis")
    # The decoder's graph has the factor of its export in it.
    edit_json(folder / "vae" / "config.json", scaling_factor=0.5)
    status, out, err = command("models verify corgis")
    assert status == 2
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert " WRONG, largest error " in lines["decode"]
    assert " ok, " in lines["denoise"]
    assert err == "giffusion: 1 of 1 models are wrong or broken: see above\n"


def test_a_broken_model_does_not_keep_others_from_being_checked(
    command: Command, folder: Path
) -> None:
    status, out, err = command("models verify mini ./corgis none")
    assert (status, out) == (2, "")
    assert "unknown model 'none'" in err
    (folder / "denoise.onnx").unlink()
    status, out, err = command("models verify ./corgis mini")
    assert status == 2
    first, second = out.splitlines()[:2]
    assert first.startswith("./corgis: broken: corgis/denoise.onnx is missing")
    assert second.startswith("mini: ")
    assert err == "giffusion: 1 of 2 models are wrong or broken: see above\n"


def test_without_the_packages_that_compare(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    done = subprocess.run(
        [sys.executable, "-m", "giffusion.server", "models", "verify"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path), HOME: str(tmp_path)},
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "giffusion: `giffusion models verify` does not work here: No module named 'torch'; "
        "pip install 'giffusion[export]'\n"
    )
