"""The small models of every family, each exported once for all test modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache

import pytest

from giffusion.engine.manifest import MANIFEST
from giffusion.engine.model import Model, load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.export.manifests import sha256
from giffusion.export.model import export_model
from tests.export import families
from tests.export.renders import OpenModel

TRACED = {"sd2-base": "sd2", "sd-turbo": "sd2", "sdxl-turbo": "sdxl"}
"""Families that have the graphs of another."""
SCHEDULER = "scheduler/scheduler_config.json"


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """Exports a family's model, once; tests only read it."""
    home = tmp_path_factory.mktemp("families")

    @cache
    def opened(family: str) -> Model:
        folder = home / family
        if family in TRACED:
            shutil.copytree(opened(TRACED[family]).folder, folder)
            families.make(family).scheduler.save_pretrained(folder / "scheduler")
            manifest = json.loads((folder / MANIFEST).read_text())
            manifest["sources"][SCHEDULER] = sha256(folder / SCHEDULER)
            (folder / MANIFEST).write_text(json.dumps(manifest))
        else:
            families.save(family, folder)
            export_model(folder, dtypes=("fp32",), progress=lambda line: None)
        return load_model(folder)

    return opened


@pytest.fixture(scope="session")
def onnxruntime(open_cpu: Callable[[str, str], Runtime]) -> Runtime:
    """ONNX Runtime in single precision."""
    return open_cpu("onnxruntime", "fp32")
