"""What a job probably does not mean, said in a line before it is rendered.

`rendering.py` passes the lines on as warnings. The invariant: what is said here changes no frame.
"""

from __future__ import annotations

from giffusion.engine.model import Model
from giffusion.engine.timelines.timeline import Timeline


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
