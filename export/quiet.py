"""The libraries' remarks about a checkpoint, kept from the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Lets diffusers say errors alone, such as nothing of a config key that it has no use for."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
