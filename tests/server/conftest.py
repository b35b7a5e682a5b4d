"""The program, run in this process."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from giffusion.server.cli import main

Command = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line; returns its status, and what it printed to both streams."""

    def run(line: str) -> tuple[int, str, str]:
        try:
            status = main(shlex.split(line))
        except SystemExit as ended:  # what argparse refuses
            status = int(str(ended.code))
        out, err = capfd.readouterr()
        return status, out, err

    return run
