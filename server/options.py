"""The options of every command, with the defaults that `RenderSettings` states.

`cli.py` builds its parser with them. The invariant: an option that is a field of `RenderSettings`
is stored under its name, and is None unless given, so that defaults stand in one place.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.sampler_names import SAMPLERS
from giffusion.engine.schedules.easing import INTERPOLATION_NAMES
from giffusion.engine.settings import BLENDS, DEFAULT_BATCH, GPU_BATCHES, WITH_IMAGE
from giffusion.engine.values import parse_fps, parse_size
from giffusion.models import DEFAULT_MODEL
from giffusion.server.media_options import add_media_options
from giffusion.server.option_types import add_flag, help_text, typed


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Adds what decides a timeline: what `plan` and `render` share."""
    parser.add_argument(
        "file", nargs="?", type=Path, help="file of key frames, lines or JSON; - for standard input"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    prompts = parser.add_argument_group("prompts")
    prompts.add_argument("--prompts", metavar="TEXT", help="the key frames themselves")
    prompts.add_argument("--negative", metavar="TEXT", help="what to steer away from")
    prompts.add_argument("--head", metavar="TEXT", help="text before every prompt")
    prompts.add_argument("--tail", metavar="TEXT", help="text after every prompt")
    _add_time_options(parser.add_argument_group("time"))
    _add_schedule_options(
        parser.add_argument_group(
            "frames", "Numbers, or schedules such as '0:(4), 30:(4+2*sin(t/5))'."
        )
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument(
        "--sampler", metavar="NAME", help=help_text(", ".join(SAMPLERS), "sampler")
    )
    sampling.add_argument(
        "--eta", type=float, help=help_text("share of ddim's noise, 0 to 1", "eta")
    )
    sampling.add_argument(
        "--size", type=typed(parse_size), help="WIDTHxHEIGHT (default: the model's)"
    )
    add_media_options(parser)


def _add_time_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--fps", type=typed(parse_fps), help=help_text("frames a second", "fps"))
    group.add_argument(
        "--frames",
        type=int,
        dest="num_frames",
        help="number of frames (default: to the last key frame)",
    )
    names = ", ".join(INTERPOLATION_NAMES)
    group.add_argument("--interpolation", metavar="NAME", help=help_text(names, "interpolation"))
    group.add_argument(
        "--interpolation-args",
        metavar="ARGS",
        help="frequencies of sine, in, out or in-out for ease, a schedule in 0 to 1 for curve",
    )
    blends = " or ".join(BLENDS)
    group.add_argument("--latents", help=help_text(f"blend of the noise, {blends}", "latents"))
    group.add_argument(
        "--embeddings", help=help_text(f"blend of the prompts, {blends}", "embeddings")
    )
    add_flag(group, "--fixed-latent", "start all frames from one noise")
    add_flag(group, "--loop", "lead back to the first key frame")
    add_flag(group, "--pingpong", "show all frames again, backwards")


def _add_schedule_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--seed", metavar="N", help=help_text("seed of the noise", "seed"))
    group.add_argument("--steps", metavar="N", help=help_text("denoising steps", "steps"))
    group.add_argument("--guidance", metavar="G", help=help_text("guidance scale", "guidance"))
    group.add_argument(
        "--strength",
        metavar="S",
        help=f"share of the steps that are taken, 0 to 1 (default: 1, from pictures {WITH_IMAGE})",
    )
    group.add_argument(
        "--noise", metavar="F", help=help_text("factor of the noise, 0 to 2", "noise")
    )
    group.add_argument(
        "--control-scale",
        metavar="C",
        help="how far maps steer, 0 to 2 (default: 1 with --control)",
    )


def add_output_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds what decides by what and where to a render is made."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "-o",
        "--output",
        type=Path,
        required=required,
        help="file to write: .mp4, .webm, .gif, .webp, .avif, or FOLDER/%%05d.png",
    )
    default = "(default: the encoder's)" if required else "(default: the file's, or the encoder's)"
    group.add_argument("--encoder", metavar="NAME", help="auto, or one that giffusion doctor lists")
    group.add_argument("--quality", type=int, metavar="Q", help=f"1 to 100 {default}")
    group.add_argument("--force", action="store_true", help="replace an existing file")
    group.add_argument(
        "--keep-partial", action="store_true", help="when stopped, keep the finished frames"
    )
    machine = parser.add_argument_group("machine")
    default = f"(default: {DEFAULT_MODEL})" if required else "(default: the file's)"
    machine.add_argument("--model", help=f"name or folder {default}")
    default = "(default: auto)" if required else "(default: the file's)"
    machine.add_argument(
        "--runtime",
        metavar="NAME",
        help=f"auto, tensorrt, tensorrt-rtx, torch, openvino, onnxruntime {default}",
    )
    default = "(default: the runtime's)" if required else "(default: the file's, or the runtime's)"
    machine.add_argument("--precision", metavar="P", help=f"fp32, bf16 or fp16 {default}")
    most = f"(default: {DEFAULT_BATCH}, with motion as many of them as its chains fill)"
    default = most if required else "(default: the file's)"
    machine.add_argument(
        "--batch",
        type=int,
        metavar="ROWS",
        help=f"rows a model evaluation, one for each prompt of a frame {default}",
    )
    machine.add_argument(
        "--shrink-tail",
        action="store_true",
        help="let the last frames run in a smaller batch, on GPUs: sooner, other last bits",
    )


def add_inspect_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `inspect` takes besides an output."""
    parser.add_argument("file", type=Path, help="a file, or a folder of pictures, by giffusion")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--again", action="store_true", help="render it again, to -o FILE")


def add_build_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `build` takes."""
    parser.add_argument("model", metavar="MODEL", help="name or folder of the model")
    parser.add_argument(
        "--runtime", default="tensorrt-rtx", help="tensorrt, tensorrt-rtx (default: tensorrt-rtx)"
    )
    parser.add_argument(
        "--device", default="current", help="GPUs such as sm89,sm120 (default: current)"
    )
    parser.add_argument(
        "--size", type=typed(parse_size), help="WIDTHxHEIGHT (default: the model's)"
    )
    batches = ",".join(map(str, GPU_BATCHES))
    parser.add_argument(
        "--batch", default=batches, help=f"rows of the denoise graph (default: {batches})"
    )
    parser.add_argument("--precision", default="fp16", help="fp16, bf16 or fp32 (default: fp16)")
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def add_engines_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `engines` takes."""
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
        "--model", action="append", default=[], help="a model without a name here; repeatable"
    )
    for action in (listing, removing, checking):
        action.set_defaults(parser=action)
