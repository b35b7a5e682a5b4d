"""The libraries' remarks, about a checkpoint or about themselves, kept from the user."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging

_TRACER = ("torch.onnx", "onnx_ir", "onnxscript")


@contextmanager
def quiet_diffusers() -> Iterator[None]:
    """Lets diffusers say errors alone, such as nothing of a config key that it has no use for."""
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(before)


@contextmanager
def quiet_tracer() -> Iterator[None]:
    """Lets what traces graphs, and edits them, say errors alone."""
    loggers = [logging.getLogger(name) for name in _TRACER]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
