"""What a job probably does not mean, and nothing where it may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giffusion.engine.conditions.cautions import cut_prompts, lost_negatives
from giffusion.engine.model import load_model
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model

MODEL = load_model(find_model("mini"))
LCM = replace(MODEL, manifest=replace(MODEL.manifest, name="lcm", guidance_dim=256))


def timeline(text: str, negative: str = "") -> Timeline:
    return Timeline.from_text(text, RenderSettings(negative=negative, guidance=8.0))


@pytest.mark.parametrize(
    ("text", "negative"), [("0: a", "fog"), ("0: a\n4: b --neg fog", ""), ("0: a --neg fog", "x")]
)
def test_negatives_that_a_model_has_no_use_for_are_told_once(text: str, negative: str) -> None:
    frames = timeline(text, negative)
    assert lost_negatives(LCM, frames) == [
        "model 'lcm' takes the guidance scale itself: negative prompts have no effect with it"
    ]
    assert lost_negatives(MODEL, frames) == []


def test_without_negatives_nothing_is_told() -> None:
    assert lost_negatives(LCM, timeline("0: a\n4: b")) == []


def test_a_negative_that_is_never_used_is_not_told_to_be_cut() -> None:
    long = "a corgi running through fresh snow in the mountains at dawn with a red scarf and a hat"
    frames = timeline("0: a", negative=long)
    (line,) = cut_prompts(MODEL, frames)
    assert line.endswith("its end is ignored, 'scarf and a hat'")
    assert cut_prompts(LCM, frames.for_model(model_guides=True)) == []
