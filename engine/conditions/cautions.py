"""What a job probably does not mean, said in a line before it is rendered.

`rendering.py` passes the lines on as warnings. The invariant: what is said here changes no frame.
"""

from __future__ import annotations

import re

from giffusion.engine.model import Model
from giffusion.engine.timelines.timeline import Timeline

_TIME = re.compile(r"[0-9]+\.[0-9]+s")


def cautions(model: Model, timeline: Timeline) -> list[str]:
    """Returns all that is to be said of a job, a line each."""
    return [
        *cut_prompts(model, timeline),
        *lost_negatives(model, timeline),
        *unreached_keys(timeline),
        *prompts_of_times(timeline),
    ]


def cut_prompts(model: Model, timeline: Timeline) -> list[str]:
    """Says of each prompt that the tokenizer cuts what is lost, one line a prompt."""
    limit = model.manifest.num_tokens - 2
    cuts = ((prompt, model.tokenizer.cut(prompt)) for prompt in timeline.prompts())
    return [
        f"prompt '{_shortened(prompt, 40)}' is longer than the {limit} tokens that model "
        f"'{model.manifest.name}' takes: its end is ignored, '{_shortened(cut, 400)}'"
        for prompt, cut in cuts
        if cut is not None
    ]


def unreached_keys(timeline: Timeline) -> list[str]:
    """Says of a job that ends before some of its key frames, in one line or none."""
    late = [key.frame for key in timeline.key_frames if key.frame >= len(timeline)]
    if not late:
        return []
    return [
        f"key frame {late[0]} is never reached: the last frame is {len(timeline) - 1}; expected "
        f"--frames {late[-1] + 1}, or key frames that are nearer"
    ]


def prompts_of_times(timeline: Timeline) -> list[str]:
    """Says of key frames that have nothing but times for prompts, as `giffusion audio` prints."""
    texts = [part.text for key in timeline.key_frames for part in key.parts]
    if not all(map(_TIME.fullmatch, texts)):
        return []
    return [f"all prompts are times, such as '{texts[0]}': put prompts in their place"]


def lost_negatives(model: Model, timeline: Timeline) -> list[str]:
    """Says of a job with negative prompts that its model has no use for them, in one line or none.

    Args:
        model: the model.
        timeline: what is rendered.
    """
    given = (timeline.settings.negative, *(key.negative or "" for key in timeline.key_frames))
    if not model.guides or not any(given):
        return []
    return [
        f"model '{model.manifest.name}' takes the guidance scale itself: negative prompts have no "
        "effect with it"
    ]


def _shortened(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
