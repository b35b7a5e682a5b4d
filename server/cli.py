"""The command line: `giffusion render | plan | audio | video | inspire | inspect | export | …`.

Each command is a module of `giffusion.server.commands`, imported when it runs; its options stand
in `options.py` and in modules named like it. The invariant: a wrong input is one line on standard
error and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from reprlib import repr as quote
from types import FrameType
from typing import Any, NoReturn

from giffusion.engine.errors import GiffusionError, InputError, nearest
from giffusion.server.audio_options import add_audio_options
from giffusion.server.comet_options import add_comet_options
from giffusion.server.inspire_options import add_inspire_options
from giffusion.server.model_options import (
    add_convert_options,
    add_export_options,
    add_models_options,
)
from giffusion.server.options import (
    add_build_options,
    add_engines_options,
    add_inspect_options,
    add_output_options,
    add_plan_options,
)
from giffusion.server.settings_options import add_settings_options, take_settings
from giffusion.server.video_options import add_video_options

EXIT_INPUT = 2
MAX_MESSAGE = 1000
"""Characters of a message; what is between its two ends is left out."""
_OWN_OPTIONS = ("--help", "--version")
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COMMANDS = {
    "render": "render key-frame text to a video, an animation or a folder of pictures",
    "plan": "show what would be rendered, frame by frame, without a model",
    "audio": "find where something begins in a sound, as key frames",
    "video": "show how many frames a film has and at which rate, as key frames",
    "inspire": "make up key frames about topics",
    "inspect": "show the plan that made a file, or render it again",
    "export": "make a model folder of a checkpoint",
    "convert": "turn a pickle's weights into safetensors, in a sandbox",
    "build": "build a model's TensorRT engines, for any GPU",
    "engines": "list, remove or check the engines on this machine",
    "models": "list, register, forget or check models",
    "doctor": "show which runtimes and encoders work here, and why others do not",
}


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to stop; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: the words after the program's name; those of the process if None.

    Returns:
        The exit code: 0, 2 for a wrong input, 128 + the signal's number when stopped by one.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal has no letter for is shown by its number.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = argparse.Namespace()
    before = {signum: signal.signal(signum, _interrupt) for signum in _STOP_SIGNALS}
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        command = import_module(f"giffusion.server.commands.{options.command}")
        command.run(options)
        sys.stdout.flush()
        return 0
    except GiffusionError as error:
        if getattr(options, "config", None) is not None and isinstance(error, InputError):
            error.add_note(f"with the settings of {options.config}")
        _complain(str(error), error)
        return EXIT_INPUT
    except KeyboardInterrupt as interrupt:
        _complain("interrupted", interrupt)
        return 128 + getattr(interrupt, "signum", signal.SIGINT)
    except MemoryError:
        _complain("out of memory: lower --batch or --size", MemoryError())
        return EXIT_INPUT
    except BrokenPipeError:
        # The reader has seen enough, as in `giffusion plan … | head`.
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _drop_output()
        _complain("standard output cannot be written: no space is left there", error)
        return EXIT_INPUT
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, _ = _parsers()
    first = next(iter(arguments), "--help")
    if first.startswith("-") and first not in ("-h", *_OWN_OPTIONS):
        parser.error(f"unknown option {quote(first)}: {nearest(first, _OWN_OPTIONS)}")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(options.parser, unknown[0])
    if hasattr(options, "config"):
        take_settings(options)
    # It may stand in the settings file, so that the parser does not ask for it.
    if options.command == "render" and options.output is None:
        options.parser.error("the following arguments are required: -o/--output")
    return options


def _refuse(command: argparse.ArgumentParser, word: str) -> NoReturn:
    """Ends the program for a word that a command does not take."""
    if not word.startswith("--"):
        command.error(f"{quote(word)} is one too many: expected quotes around what has blanks")
    name = word.partition("=")[0]
    # At the start of a line of help, or after a short option: in its texts others are mentioned.
    known = set(re.findall(r"(?m)^  (?:-\w(?: \w+)?, )?(--[a-z][a-z-]*)", command.format_help()))
    command.error(f"unknown option {quote(name)}: {nearest(name, known)}")


def _drop_output() -> None:
    """Lets what is still buffered go nowhere, so that the interpreter ends without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    # A second signal would interrupt the clean-up that the first one asked for.
    for ignored in _STOP_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    raise Interrupted(signum)


def _complain(message: str, error: BaseException) -> None:
    notes = getattr(error, "__notes__", [])
    print("giffusion: " + _bounded("; ".join([message, *notes])), file=sys.stderr)


def _bounded(message: str) -> str:
    """Returns a message as one line of bounded length, whatever paths and values are in it."""
    if len(message) > MAX_MESSAGE:
        message = f"{message[: MAX_MESSAGE // 2]}...{message[-MAX_MESSAGE // 2 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        if message.endswith("expected one argument"):
            message += ", joined by '=' where it begins with '-'"
        print(f"giffusion: {_bounded(message)}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(EXIT_INPUT)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            what = str(action.metavar).lower()
            self.error(f"unknown {what} {quote(value)}: {nearest(value, action.choices)}")


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Makes the parser of the program, and with it those of its commands."""
    parser = _Parser(prog="giffusion", description="Renders Stable-Diffusion key-frame animations.")
    parser.add_argument("--version", action="version", version=version("giffusion"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text.capitalize() + ".")
        for name, text in _COMMANDS.items()
    }
    for command in parsers.values():
        command.set_defaults(parser=command)
    for name in ("render", "plan"):
        add_plan_options(parsers[name])
    for name in ("render", "inspect"):
        add_output_options(parsers[name], required=name == "render")
    add_comet_options(parsers["render"])
    # After all others: a settings file has them.
    for name in ("render", "plan"):
        add_settings_options(parsers[name], saves=name == "render")
    add_inspect_options(parsers["inspect"])
    add_build_options(parsers["build"])
    add_engines_options(parsers["engines"])
    add_export_options(parsers["export"])
    add_convert_options(parsers["convert"])
    add_models_options(parsers["models"])
    add_audio_options(parsers["audio"])
    add_video_options(parsers["video"])
    add_inspire_options(parsers["inspire"])
    parsers["doctor"].add_argument("--json", action="store_true", help="print one JSON object")
    return parser, parsers
