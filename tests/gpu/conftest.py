"""Devices and runtimes for the tests here; each skips with the reason where it does not work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from giffusion.engine.errors import RuntimeUnavailableError, SettingsError
from giffusion.engine.model import Model
from giffusion.engine.runtimes.cuda.bindings import open_cuda
from giffusion.engine.runtimes.cuda.protocol import Cuda
from giffusion.engine.runtimes.tensorrt.runtime import TensorRtRuntime
from giffusion.engine.runtimes.tensorrt.store import EngineStore

OpenTensorRt = Callable[..., TensorRtRuntime]


@pytest.fixture(scope="session")
def cuda() -> Cuda:
    """The first CUDA device."""
    try:
        return open_cuda()
    except RuntimeUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def open_tensorrt(mini: Model, tmp_path_factory: pytest.TempPathFactory) -> OpenTensorRt:
    """Opens TensorRT by package and precision, each once, with the bundled model's engines."""
    store = EngineStore(tmp_path_factory.mktemp("engines"))

    @cache
    def opened(name: str, precision: str, *, cuda_graphs: bool = True) -> TensorRtRuntime:
        try:
            runtime = TensorRtRuntime(name, precision, cuda_graphs=cuda_graphs, store=store)
        except (RuntimeUnavailableError, SettingsError) as error:
            pytest.skip(str(error))
        # With any batch of its own choice, a runtime makes all of them.
        (batch, *_) = runtime.smaller(32)
        size = mini.manifest.size
        runtime.prepare(mini, size=size, batch=batch, on_progress=lambda *progress: None)
        return runtime

    return opened
