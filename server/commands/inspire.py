"""`giffusion inspire`: topics to key-frame text, which `giffusion render` reads as it is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import islice

from giffusion.engine.inspiration.key_frames import inspire, spaced
from giffusion.engine.inspiration.plan import check_plan
from giffusion.engine.inspiration.topics import parse_topics
from giffusion.engine.inspiration.vocabulary import Vocabulary, vocabulary_for
from giffusion.engine.inspiration.walk import subjects
from giffusion.engine.manifest import MANIFEST, Manifest
from giffusion.engine.prompts import KeyFrame, format_prompts
from giffusion.models import find_model
from giffusion.server.extras import needs_export


def run(options: argparse.Namespace) -> None:
    """Prints key frames."""
    topics = parse_topics(options.topics)
    check_plan(options.key_frames, options.gap, options.seed)
    model = Manifest.read(find_model(options.model) / MANIFEST)
    vocabulary = vocabulary_for(model.name)
    make = _inspired if options.generator is None else _generated
    key_frames = make(options, vocabulary, topics)
    print(_json(key_frames) if options.json else format_prompts(key_frames), end="")


def _inspired(
    options: argparse.Namespace, vocabulary: Vocabulary, topics: Sequence[str]
) -> tuple[KeyFrame, ...]:
    return inspire(
        vocabulary,
        topics,
        num_key_frames=options.key_frames,
        gap=options.gap,
        seed=options.seed,
    )


def _generated(
    options: argparse.Namespace, vocabulary: Vocabulary, topics: Sequence[str]
) -> tuple[KeyFrame, ...]:
    """Lets a model write on from the topics, or without any from subjects of the vocabulary."""
    with needs_export("inspire --generator"):
        from giffusion.export.text_generation import continue_prompts
    if topics:
        beginnings = [", ".join(topics)] * options.key_frames
    else:
        beginnings = list(islice(subjects(vocabulary, (), options.seed), options.key_frames))
    prompts = continue_prompts(options.generator, beginnings, seed=options.seed)
    return spaced(prompts, options.gap)


def _json(key_frames: Sequence[KeyFrame]) -> str:
    """Returns the JSON form of key frames, with the values that the line form has."""
    lines = [format_prompts([key_frame]).removesuffix("\n") for key_frame in key_frames]
    return (
        json.dumps(dict(line.split(": ", 1) for line in lines), ensure_ascii=False, indent=2) + "\n"
    )
