"""What many test folders share: no network, no data of the user's, the bundled model, runtimes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import settings

# Set before anything imports the libraries that read them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

from giffusion.engine.model import Model, load_model
from giffusion.engine.places import CACHE, HOME
from giffusion.engine.runtimes import open_runtime
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.openvino import OpenVinoRuntime
from giffusion.models import find_model

# What a developer has registered, built or hashed is nobody's business here.
_PLACES = tempfile.TemporaryDirectory(prefix="giffusion-tests-")
os.environ[HOME] = os.path.join(_PLACES.name, "data")
os.environ[CACHE] = os.path.join(_PLACES.name, "cache")

# A busy machine is no failure, and a failure shows again; scripts/fuzz looks further.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

OpenCpu = Callable[[str, str], Runtime]


@pytest.fixture(scope="session")
def mini() -> Model:
    """The model that ships with the project."""
    return load_model(find_model("mini"))


@pytest.fixture(scope="session")
def open_cpu() -> OpenCpu:
    """Opens a CPU runtime by name and precision, each once; skips what this CPU cannot do."""

    @cache
    def opened(name: str, precision: str) -> Runtime:
        if precision == "bf16" and "bf16" not in OpenVinoRuntime().precisions:
            pytest.skip("this CPU does not compute in bfloat16")
        return open_runtime(name, precision)

    return opened
