"""The options of the commands that make, name and check models: `export`, `convert`, `models`.

`cli.py` builds its parser with them, as with those of `options.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from giffusion.engine.manifest import GRAPH_DTYPES


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `export` takes."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a diffusers folder, a .safetensors file, a hub id (org/name, org/name@revision), "
        "or a folder made by Optimum",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="model folder to make")
    parser.add_argument("--name", help="what the model is called (default: the folder's name)")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    edits = parser.add_argument_group("changes to the checkpoint")
    edits.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="FILE[:SCALE]",
        help="fuse a LoRA into the weights; repeatable",
    )
    edits.add_argument(
        "--embedding",
        action="append",
        default=[],
        metavar="FILE[:TOKEN]",
        help="add a textual inversion as a token; repeatable",
    )
    edits.add_argument("--vae", metavar="PATH", help="another autoencoder, a folder or a file")
    edits.add_argument(
        "--decoder", metavar="taesd:PATH", help="a faster decoder; the autoencoder still encodes"
    )
    edits.add_argument(
        "--controlnet", metavar="DIR", help="a ControlNet, which takes maps by render's --control"
    )
    edits.add_argument(
        "--dtype", help="store weights in fp32, fp16 or bf16 (default: as the checkpoint has them)"
    )
    edits.add_argument(
        "--prediction",
        help="epsilon or v_prediction, for an SD 2 file that does not say (default: by its name)",
    )
    graphs = parser.add_argument_group("graphs")
    default = ",".join(GRAPH_DTYPES)
    graphs.add_argument(
        "--graphs",
        default=default,
        metavar="TYPES",
        help=f"what they compute in; CPUs read fp32, GPUs their precision (default: {default})",
    )
    graphs.add_argument(
        "--optimum", action="store_true", help="add the files that Optimum's pipelines read"
    )


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `convert` takes."""
    parser.add_argument("file", type=Path, help="a .ckpt, .bin, .pt or .pth file")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help=".safetensors file to write"
    )


def add_models_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `models` takes; without an action it lists."""
    text = "print one JSON object"
    parser.add_argument("--json", action="store_true", help=text)
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    listing = actions.add_parser("ls", help="list the models", description="Lists the models.")
    # Not a default of its own, which would undo a `--json` before the action.
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=text)
    adding = actions.add_parser(
        "add",
        help="give a model folder a name",
        description="Registers a model folder where it is, so that --model NAME finds it.",
    )
    adding.add_argument("folder", metavar="DIR", type=Path, help="a model folder")
    adding.add_argument("--name", help="what it is called (default: the model's own name)")
    removing = actions.add_parser(
        "rm", help="forget models", description="Forgets models; their folders stay."
    )
    removing.add_argument("names", nargs="+", metavar="NAME", help="names of models, from ls")
    checking = actions.add_parser(
        "verify",
        help="check models",
        description="Compares each graph of a model with the network that it was made from.",
    )
    checking.add_argument(
        "names", nargs="*", metavar="NAME", help="names or folders (default: all models)"
    )
    for action in (listing, adding, removing, checking):
        action.set_defaults(parser=action)
