"""Small models in both forms, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.export.optimum.graphs import as_optimum, exported

Folders = tuple[Path, Path]


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folders]:
    """Returns a kind's folder with Optimum's files, and one as Optimum would have made it."""

    @cache
    def made(kind: str) -> Folders:
        base = tmp_path_factory.mktemp(kind)
        return exported(kind, base / "giffusion"), as_optimum(base / "giffusion", base / "optimum")

    return made
