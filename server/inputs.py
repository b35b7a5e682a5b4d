"""What the commands read from their options: the timeline of a text and of settings."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from giffusion.engine.errors import InputError
from giffusion.engine.notes import OnNote
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.planning import plan_timeline, settings_after_film
from giffusion.engine.timelines.timeline import Timeline
from giffusion.server.texts import decoded

MAX_PROMPT_BYTES = 64 << 20
STANDARD_INPUT = Path("-")


def read_timeline(options: argparse.Namespace, on_note: OnNote | None = None) -> Timeline:
    """Reads what a command is to render.

    Args:
        options: what was given.
        on_note: told in a line of what was taken from a film, or takes long.

    Raises:
        InputError: a file cannot be read, or the text or a setting is wrong.
        RuntimeUnavailableError: what listens to sound is not installed.
    """
    text, source = _read_prompts(options)
    given = {
        field.name: getattr(options, field.name)
        for field in fields(RenderSettings)
        if getattr(options, field.name, None) is not None
    }
    return plan_timeline(text, settings_after_film(given, on_note), source, on_note)


def _read_prompts(options: argparse.Namespace) -> tuple[str, str]:
    if (options.prompts is None) == (options.file is None):
        raise InputError("expected key-frame text either in a file or by --prompts: give one")
    if options.prompts is not None:
        return options.prompts, "--prompts"
    source = "<stdin>" if options.file == STANDARD_INPUT else str(options.file)
    try:
        if options.file == STANDARD_INPUT:
            content = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
        else:
            with options.file.open("rb") as stream:
                content = stream.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from None
    if len(content) > MAX_PROMPT_BYTES:
        raise InputError(f"{source} is longer than {MAX_PROMPT_BYTES >> 20} MiB of key-frame text")
    text = decoded(content, source)
    if options.file == STANDARD_INPUT:
        # It is there only once, and `--save-config` has it written down.
        options.file, options.prompts = None, text
    return text, source
