"""What a job probably does not mean, and nothing where it may."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giffusion.engine.conditions.cautions import (
    cut_prompts,
    lost_negatives,
    prompts_of_times,
    unreached_keys,
)
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
    long = "a corgi, a lion, " * 4 + "a red scarf, a hat"
    frames = timeline("0: a", negative=long)
    (line,) = cut_prompts(MODEL, frames)
    assert line.endswith("its end is ignored, 'lion, a red scarf, a hat'")
    assert cut_prompts(LCM, frames.for_model(model_guides=True)) == []


def test_key_frames_behind_the_last_frame_are_told_of() -> None:
    settings = RenderSettings(num_frames=24)
    timeline = Timeline.from_text("0: an orange\n60: an apple\n90: a pear", settings)
    assert unreached_keys(timeline) == [
        "key frame 60 is never reached: the last frame is 23; expected --frames 91, or key frames "
        "that are nearer"
    ]
    assert unreached_keys(Timeline.from_text("0: an orange\n23: an apple", settings)) == []


def test_prompts_that_are_times_are_told_of() -> None:
    heard = Timeline.from_text("0: 0.00s\n12: 0.50s", RenderSettings())
    (line,) = prompts_of_times(heard)
    assert line == "all prompts are times, such as '0.00s': put prompts in their place"
    assert prompts_of_times(Timeline.from_text("0: 0.00s\n12: a dog", RenderSettings())) == []
