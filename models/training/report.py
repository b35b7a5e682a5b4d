"""A report of a model: its answers to the corpus's questions, judged, in numbers.

`models/evaluate.py` calls `report_on`. The invariant: a number is a share of the questions of its
group, or a mean of its pictures, and stands with how many those were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from giffusion.models.training import measures
from giffusion.models.training.answers import Sampling, answer, reconstruct, walk
from giffusion.models.training.compose import compose
from giffusion.models.training.drafts import Draft, Layer, pack
from giffusion.models.training.judge import Judge, look
from giffusion.models.training.palette import COLOURS, GROUNDS, WHITE, plain
from giffusion.models.training.prepared import Prepared, Question

_TOP = 5


@dataclass(frozen=True, slots=True)
class Number:
    """A line of a report: its value, and of how many questions, pictures or walks."""

    name: str
    value: float
    count: int


def judged(
    prepared: Prepared, judge: Judge, questions: Sequence[Question], pictures: Tensor
) -> list[Number]:
    """What the judge says of the pictures that answer some questions.

    Args:
        prepared: the corpus.
        judge: of its things.
        questions: n questions.
        pictures: (n, 3, s, s) in [-1, 1].
    """
    hits: dict[str, list[float]] = {}
    logits = look(judge, pictures)
    left, right = (look(judge, half) for half in measures.halves(pictures))
    things = measures.thing_colour(pictures)
    grounds = measures.corner_colour(pictures)
    for i, question in enumerate(questions):
        group = hits.setdefault
        if question.also:
            first = measures.rank(left[i], question.accepted)
            second = measures.rank(right[i], question.also)
            group("pair, both in top 5", []).append(max(first, second) < _TOP)
            group("pair, either in top 5", []).append(min(first, second) < _TOP)
            continue
        rank = measures.rank(logits[i], question.accepted)
        group(f"{question.group}, top 1", []).append(rank < 1)
        group(f"{question.group}, top 5", []).append(rank < _TOP)
        if question.colour:
            group("colour, right colour", []).append(_coloured(prepared, question, things[i]))
        if question.ground:
            group("ground, right ground", []).append(_grounded(question, grounds[i]))
    return [Number(name, sum(each) / len(each), len(each)) for name, each in hits.items()]


def _coloured(prepared: Prepared, question: Question, colour: Tensor) -> bool:
    expected = measures.expected_colours(prepared.pixels, question.accepted[0])
    return list(COLOURS)[measures.nearest(colour, expected)] == question.colour


def _grounded(question: Question, colour: Tensor) -> bool:
    names = list(GROUNDS)
    nearest = measures.nearest(colour, measures.as_tensor(list(GROUNDS.values())))
    return GROUNDS[names[nearest]] == GROUNDS[question.ground]


def walks(pipeline: Any, prepared: Prepared, sampling: Sampling, count: int) -> list[Number]:
    """How even walks between two names are, 25 frames each: `measures.flash`."""
    draw = Random(sampling.seed)
    named = [one.caption for one in prepared.questions if one.group == "name"]
    ratios = []
    for i in range(count):
        first, last = draw.sample(named, 2)
        start = Sampling(
            sampling.steps, sampling.guidance, sampling.seed + i, sampling.ddim, sampling.batch
        )
        ratios.append(measures.flash(walk(pipeline, first, last, 25, start)))
    if not ratios:
        return []
    found = torch.tensor(ratios)
    return [
        Number("walk, greatest step over median, median", float(found.median()), count),
        Number("walk, greatest step over median, worst", float(found.max()), count),
    ]


def reconstruction(pipeline: Any, prepared: Prepared, count: int) -> list[Number]:
    """PSNR of the corpus's pictures through the autoencoder, in dB."""
    side = pipeline.unet.config.sample_size * 8
    pictures = compose(prepared.pixels, prepared.scenes[:count])
    if side != pictures.shape[-1]:
        pictures = torch.nn.functional.interpolate(pictures, (side, side), mode="area")
    ratios = measures.psnr(pictures, reconstruct(pipeline, pictures))
    return [Number("reconstruction, PSNR in dB", float(ratios.mean()), count)]


def ceiling(prepared: Prepared, judge: Judge, questions: Sequence[Question]) -> list[Number]:
    """What the judge says of the true pictures: no model can expect more."""
    device = next(judge.parameters()).device
    pixels = prepared.pixels.to(device)
    scenes = pack([_truth(question) for question in questions]).to(device)
    parts = (scenes[i : i + 32] for i in range(0, len(scenes), 32))
    pictures = torch.cat([compose(pixels, part).cpu() for part in parts])
    return judged(prepared, judge, questions, pictures)


def _truth(question: Question) -> Draft:
    """The scene that a question asks for, as the corpus would have it."""
    ground = plain(GROUNDS[question.ground] if question.ground else WHITE)
    first = question.accepted[0]
    if question.also:
        pair = (Layer(first, -0.48, 0, 0.5), Layer(question.also[0], 0.48, 0, 0.5))
        return Draft(question.caption, pair, ground)
    tint = COLOURS[question.colour] if question.colour else None
    return Draft(question.caption, (Layer(first, scale=0.9, tint=tint),), ground)


def report_on(
    pipeline: Any, prepared: Prepared, judge: Judge, sampling: Sampling, limit: int | None = None
) -> tuple[list[Number], Tensor]:
    """Asks a model every question, or the first `limit` of every group.

    Returns:
        The report, and the pictures (n, 3, s, s) in the order of `asked`.
    """
    questions = asked(prepared, limit)
    pictures = answer(pipeline, [one.caption for one in questions], sampling)
    return judged(prepared, judge, questions, pictures), pictures


def asked(prepared: Prepared, limit: int | None) -> list[Question]:
    """The questions, or the first `limit` of every group."""
    seen: dict[str, int] = {}
    chosen = []
    for question in prepared.questions:
        seen[question.group] = seen.get(question.group, 0) + 1
        if limit is None or seen[question.group] <= limit:
            chosen.append(question)
    return chosen
