"""What is said where the packages of the extra `audio` are not installed.

The modules that import them open this around the import, which is lazy. The invariant: one wording.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from giffusion.engine.errors import RuntimeUnavailableError, one_line


@contextmanager
def needs_audio(what: str) -> Iterator[None]:
    """Says in a line how to get the extra `audio`, if an import within the block fails.

    Args:
        what: what does not work without, such as `sound cannot be analysed`.

    Raises:
        RuntimeUnavailableError: a package is not installed, or does not go with another.
    """
    try:
        yield
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"{what} here: {one_line(error)}; pip install 'giffusion[audio]'"
        ) from None
