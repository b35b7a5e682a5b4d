"""What commands say where the packages that they need are not installed.

`export`, `convert` and `models verify` open the export side through it, and only when they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from giffusion.engine.errors import RuntimeUnavailableError


@contextmanager
def needs_export(command: str) -> Iterator[None]:
    """Says in a line how to get the extra `export`, if an import within the block fails.

    Args:
        command: what was asked for, such as `models verify`.

    Raises:
        RuntimeUnavailableError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RuntimeUnavailableError(
            f"`giffusion {command}` does not work here: {error}; pip install 'giffusion[export]'"
        ) from None
