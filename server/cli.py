"""The command line: `giffusion render | plan | build | engines | models | doctor`.

Each command is a module of `giffusion.server.commands`, imported when it runs. The invariant: a
wrong input is one line on standard error and exit code 2, never a traceback.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from giffusion.engine.errors import GiffusionError, SettingsError
from giffusion.engine.settings import (
    DEFAULT_BATCH,
    GPU_BATCHES,
    INTERPOLATIONS,
    SAMPLERS,
    RenderSettings,
    parse_fps,
    parse_size,
)
from giffusion.models import DEFAULT_MODEL

EXIT_INPUT = 2
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COMMANDS = {
    "render": "render key-frame text to a video or GIF",
    "plan": "show what would be rendered, frame by frame, without a model",
    "build": "build a model's TensorRT engines, for any GPU",
    "engines": "list, remove or check the engines on this machine",
    "models": "list the models that are installed",
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
    before = {signum: signal.signal(signum, _interrupt) for signum in _STOP_SIGNALS}
    try:
        options = _parser().parse_args(arguments)
        command = import_module(f"giffusion.server.commands.{options.command}")
        command.run(options)
        sys.stdout.flush()
        return 0
    except GiffusionError as error:
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
    print("giffusion: " + "; ".join([message, *notes]), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        print(f"giffusion: {message}; see `{self.prog} --help`", file=sys.stderr)
        sys.exit(EXIT_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="giffusion", description="Renders Stable-Diffusion key-frame animations.")
    parser.add_argument("--version", action="version", version=version("giffusion"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {
        name: commands.add_parser(name, help=text, description=text.capitalize() + ".")
        for name, text in _COMMANDS.items()
    }
    for name in ("render", "plan"):
        _add_plan_options(parsers[name])
    _add_render_options(parsers["render"])
    _add_build_options(parsers["build"])
    _add_engines_options(parsers["engines"])
    for name in ("models", "doctor"):
        parsers[name].add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, help="file of key-frame lines, - for standard input"
    )
    parser.add_argument("--prompts", metavar="TEXT", help="the key-frame lines themselves")
    parser.add_argument("--fps", type=_typed(parse_fps), help=_help("frames a second", "fps"))
    parser.add_argument(
        "--frames",
        type=int,
        dest="num_frames",
        help="number of frames (default: to the last key frame)",
    )
    parser.add_argument("--seed", type=int, help=_help("seed of the noise", "seed"))
    parser.add_argument("--steps", type=int, help=_help("denoising steps a frame", "steps"))
    parser.add_argument("--guidance", type=float, help=_help("guidance scale", "guidance"))
    parser.add_argument("--negative", metavar="TEXT", help="what to steer away from")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def _add_render_options(parser: argparse.ArgumentParser) -> None:
    samplers, blends = ", ".join(SAMPLERS), " or ".join(INTERPOLATIONS)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="file to write: .mp4, .gif"
    )
    parser.add_argument("--sampler", help=_help(samplers, "sampler"))
    parser.add_argument(
        "--size", type=_typed(parse_size), help="WIDTHxHEIGHT (default: the model's)"
    )
    parser.add_argument("--latents", help=_help(f"blend of the noise, {blends}", "latents"))
    parser.add_argument("--embeddings", help=_help(f"blend of the prompts, {blends}", "embeddings"))
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"name or folder (default: {DEFAULT_MODEL})"
    )
    parser.add_argument(
        "--runtime",
        default="auto",
        help="auto, tensorrt, tensorrt-rtx, torch, openvino, onnxruntime (default: auto)",
    )
    parser.add_argument("--precision", help="fp32, bf16 or fp16 (default: the runtime's choice)")
    parser.add_argument(
        "--batch",
        type=int,
        default=DEFAULT_BATCH,
        help=f"rows a model evaluation, one for each prompt of a frame (default: {DEFAULT_BATCH})",
    )
    parser.add_argument(
        "--encoder",
        default="auto",
        help="auto, or for .mp4 libx264, libsvtav1, h264_nvenc, hevc_nvenc, av1_nvenc "
        "(default: auto)",
    )
    parser.add_argument(
        "--shrink-tail",
        action="store_true",
        help="let the last frames run in a smaller batch, on GPUs: sooner, other last bits",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.add_argument(
        "--keep-partial", action="store_true", help="when stopped, keep the finished frames"
    )


def _add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="name or folder of the model")
    parser.add_argument(
        "--runtime", default="tensorrt-rtx", help="tensorrt, tensorrt-rtx (default: tensorrt-rtx)"
    )
    parser.add_argument(
        "--device", default="current", help="GPUs such as sm89,sm120 (default: current)"
    )
    parser.add_argument(
        "--size", type=_typed(parse_size), help="WIDTHxHEIGHT (default: the model's)"
    )
    batches = ",".join(map(str, GPU_BATCHES))
    parser.add_argument(
        "--batch", default=batches, help=f"rows of the denoise graph (default: {batches})"
    )
    parser.add_argument("--precision", default="fp16", help="fp16, bf16 or fp32 (default: fp16)")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def _add_engines_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="list the engines", description="Lists the engines.")
    listing.add_argument("--json", action="store_true", help="print one JSON list")
    removing = actions.add_parser("rm", help="remove engines", description="Removes engines.")
    removing.add_argument("keys", nargs="*", metavar="KEY", help="keys of engines, from ls")
    removing.add_argument("--all", action="store_true", help="remove all of them")
    checking = actions.add_parser(
        "verify",
        help="check engines",
        description="Checks that plans are what was built and, on their GPU, every slot's frame.",
    )
    checking.add_argument("keys", nargs="*", metavar="KEY", help="keys (default: all engines)")
    checking.add_argument(
        "--model", action="append", default=[], help="a model that is not bundled; repeatable"
    )


def _help(text: str, field: str) -> str:
    return f"{text} (default: {RenderSettings.default(field)})"


def _typed(parse: Any) -> Any:
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
