"""Texts of the user's own as bytes to characters: one way, and one line for what is none."""

from __future__ import annotations

from giffusion.engine.errors import InputError


def decoded(content: bytes, source: object) -> str:
    """Reads UTF-8, without the mark that editors on Windows begin it with.

    Args:
        content: of a file, or of standard input.
        source: what it is called in messages.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{source} is not UTF-8 text: byte {error.start} cannot be read; save it as UTF-8"
        ) from None
