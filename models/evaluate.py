"""Measures bundled models: `python -m giffusion.models.evaluate FOLDER … --data CORPUS`.

Trains a judge on the corpus's pictures or loads it, asks every model the corpus's held-out
questions, and prints a table. The invariant: models are asked the same with the same seeds.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from giffusion.engine.errors import GiffusionError
from giffusion.models.training.answers import Sampling, open_model
from giffusion.models.training.judge import (
    SIDE,
    Judge,
    Lessons,
    load_judge,
    save_judge,
    train_judge,
)
from giffusion.models.training.prepared import Prepared, load_others, load_prepared, resized
from giffusion.models.training.report import (
    Number,
    asked,
    ceiling,
    reconstruction,
    report_on,
    walks,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        0, or 2 for a mistake of the user's.
    """
    try:
        _evaluate(_parser().parse_args(arguments))
    except GiffusionError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, help="model folders as diffusers has them")
    parser.add_argument("--data", type=Path, required=True, help="corpus of train.py --prepare")
    parser.add_argument("--judge", type=Path, help="file of the judge: read, or written")
    parser.add_argument("--judge-seconds", type=float, default=40, help="to train the judge for")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance", type=float, default=Sampling().guidance)
    parser.add_argument("--ddim", action="store_true", help="sample with DDIM, for a turbo model")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--limit", type=int, help="questions a group")
    parser.add_argument("--walks", type=int, default=20)
    parser.add_argument("--out", type=Path, help="folder for report.json and sheets of answers")
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prepared = load_prepared(options.data)
    judge = _judge(prepared, options, device)
    found = {"true pictures": ceiling(prepared, judge, prepared.questions)}
    _print("true pictures", found["true pictures"])
    sampling = Sampling(options.steps, options.guidance, options.seed, options.ddim, options.batch)
    for folder in options.models:
        pipeline = open_model(folder, device)
        numbers, pictures = report_on(pipeline, prepared, judge, sampling, options.limit)
        numbers += walks(pipeline, prepared, sampling, options.walks)
        numbers += reconstruction(pipeline, prepared, 64)
        found[str(folder)] = numbers
        _print(str(folder), numbers)
        if options.out:
            captions = [question.caption for question in asked(prepared, options.limit)]
            _write(options.out, folder.resolve().name, found, pictures, captions)


def _judge(prepared: Prepared, options: argparse.Namespace, device: torch.device) -> Judge:
    classes = len(prepared.names)
    if options.judge and options.judge.is_file():
        return load_judge(options.judge, classes).to(device)
    others = load_others(options.data)
    pixels = resized(prepared.pixels, SIDE)
    pixels = pixels if others is None else torch.cat([pixels, others])
    batch, width = (512, 32) if device.type == "cuda" else (64, 16)
    lessons = Lessons(options.judge_seconds, batch=batch, width=width)
    judge = train_judge(pixels, classes, device, lessons)
    if options.judge:
        save_judge(judge, options.judge)
    return judge


def _print(model: str, numbers: Sequence[Number]) -> None:
    print(f"\n{model}")
    for number in numbers:
        print(f"  {number.name:44} {number.value:8.3f}  of {number.count}", flush=True)


def _write(
    out: Path,
    name: str,
    found: dict[str, list[Number]],
    pictures: Tensor,
    captions: Sequence[str],
) -> None:
    """The report so far, and every answer at 128 pixels in sheets of 10 by 10."""
    out.mkdir(parents=True, exist_ok=True)
    report = {model: [asdict(number) for number in numbers] for model, numbers in found.items()}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / f"{name}-captions.txt").write_text("\n".join(captions) + "\n")
    for page in range(0, len(pictures), 100):
        _sheet(pictures[page : page + 100]).save(out / f"{name}-{page:04}.jpg", quality=85)


def _sheet(pictures: Tensor, side: int = 128, columns: int = 10) -> Image.Image:
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for i, picture in enumerate(pictures):
        pixels = picture.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels).resize((side, side))
        sheet.paste(image, (i % columns * side, i // columns * side))
    return sheet


if __name__ == "__main__":
    sys.exit(main())
