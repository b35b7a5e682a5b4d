"""What several tests of outputs need: a disk that is soon full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes an empty folder with the given number of bytes of space."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def unmount() -> None:
        if mounted:
            subprocess.run(["umount", folder], check=True)

    def mount(num_bytes: int) -> Path:
        nonlocal mounted
        unmount()
        options = ["-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs"]
        done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
        mounted = done.returncode == 0
        if not mounted:
            pytest.skip(f"mounting a small disk is not permitted: {done.stderr.splitlines()[:1]}")
        return folder

    if shutil.which("mount") is None:
        pytest.skip("needs the command mount")
    yield mount
    unmount()
