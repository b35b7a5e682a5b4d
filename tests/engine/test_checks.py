"""Jobs that cannot be rendered are refused in a line, before anything is loaded."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.batching.batch import sampler_steps
from giffusion.engine.checks import check_batch, check_job
from giffusion.engine.errors import SettingsError
from giffusion.engine.model import Model, load_model
from giffusion.engine.sampler_names import SAMPLERS
from giffusion.engine.schedule import NoiseSchedule
from giffusion.engine.settings import MAX_BATCH, RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model

MODEL = load_model(find_model("mini"))
LEADING = replace(
    MODEL,
    schedule=NoiseSchedule(
        MODEL.schedule.betas, MODEL.schedule.prediction_type, "leading", steps_offset=1
    ),
)


def check(
    text: str = "0: a\n20: b", *, batch: int = 8, model: Model = MODEL, **values: object
) -> None:
    job = RenderSettings(**values)  # type: ignore[arg-type]
    check_job(model, Timeline.from_text(text, job), job, batch=batch)


def refusal(
    text: str = "0: a\n20: b", *, batch: int = 8, model: Model = MODEL, **values: object
) -> str:
    with pytest.raises(SettingsError) as caught:
        check(text, batch=batch, model=model, **values)
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_passes(sampler: str) -> None:
    check(sampler=sampler, steps="0:(2), 20:(9)")
    check(sampler=sampler, steps="0:(2), 20:(9)", image="dog.png", strength="0:(0.5), 20:(1)")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"strength": 0.5},
            "strength is 0.5 on frame 0 and there is no picture to start from: expected 1, or an "
            "init picture by --image or --video",
        ),
        (
            {"strength": "0:(1), 10:(1), 20:(0.5)"},
            "strength is 0.95 on frame 11 and there is no picture to start from: expected 1, or an "
            "init picture by --image or --video",
        ),
        (
            {"strength": "0:(1), 20:(0)", "steps": 8, "image": "dog.png"},
            "frame 18: strength 0.09999999999999998 of 8 steps leaves no step to walk: expected "
            "steps times strength to be at least 1; raise either",
        ),
        (
            {"strength": 0, "image": "dog.png"},
            "frame 0: strength 0.0 is out of range: expected above 0, and at most 1",
        ),
        (
            {"steps": "0:(12), 20:(2)", "image": "dog.png", "strength": 0.4},
            "frame 20: strength 0.4 of 2 steps leaves no step to walk: expected steps times "
            "strength to be at least 1; raise either",
        ),
    ],
)
def test_strengths_that_leave_nothing_to_do(values: dict[str, object], message: str) -> None:
    assert refusal(**values) == message  # type: ignore[arg-type]


def test_steps_that_do_not_fit_name_their_frame() -> None:
    # The bundled model was trained at 1000 timesteps, which trailing spacing takes all of.
    check(steps=1000, sampler="euler")
    # Leading spacing has an offset of 1.
    message = refusal(steps="0:(980), 20:(1000)", sampler="euler", model=LEADING)
    assert message.startswith("frame 20: 1000 steps do not fit")
    check(steps="0:(990), 20:(999)", sampler="euler", model=LEADING)
    # At strength 1 they do not fit; what is not walked does no harm.
    whole = refusal(steps=1000, sampler="euler", model=LEADING)
    assert whole.startswith("frame 0: 1000 steps do not fit")


def test_a_frame_needs_no_more_rows_than_the_batch_has() -> None:
    text = "0: a | b\n8: c | d | e"
    check(text, batch=4)
    assert refusal(text, batch=3) == (
        "batch 3 has fewer rows than a frame needs, 4, one for each prompt and the negative: "
        "expected --batch 4 or more"
    )
    check(text, batch=3, guidance=1.0)
    # It is guided on the last frame only, and that is enough.
    assert "fewer rows" in refusal(text, batch=3, guidance="0:(0), 7:(0), 8:(2)")


def test_a_size_that_the_model_does_not_have() -> None:
    assert refusal(size=(100, 64)).startswith("size 100x64 does not suit model 'mini'")


@pytest.mark.parametrize("batch", [-1, 0, MAX_BATCH + 1])
def test_a_batch_out_of_range(batch: int) -> None:
    message = f"batch {batch} is out of range: expected 1 to {MAX_BATCH}"
    with pytest.raises(SettingsError) as caught:
        check_batch(batch)
    assert str(caught.value) == message
    assert refusal(batch=batch) == message


@given(
    sampler=st.sampled_from(SAMPLERS),
    steps=st.integers(1, 9).map("{} + t % 3".format) | st.integers(1, 9),
    strength=st.floats(0, 1) | st.floats(0.2, 1).map("min(1, {} + t/30)".format),
)
def test_what_passes_has_a_walk_on_every_frame(
    sampler: str, steps: int | str, strength: float | str
) -> None:
    job = RenderSettings(
        sampler=sampler, steps=steps, strength=strength, image="dog.png", num_frames=10
    )
    timeline = Timeline.from_text("0: a", job)
    try:
        check_job(MODEL, timeline, job, batch=2)
    except SettingsError as error:
        failed = re.match(r"frame ([0-9]+): ", str(error))
        assert failed is not None
        plan = timeline[int(failed[1])]
        with pytest.raises(SettingsError):
            sampler_steps(MODEL, sampler, plan.steps, plan.strength)
    else:
        for plan in timeline:
            assert len(sampler_steps(MODEL, sampler, plan.steps, plan.strength).scales) >= 1


def test_a_model_that_guides_needs_no_row_for_the_negative() -> None:
    guides = replace(MODEL, manifest=replace(MODEL.manifest, guidance_dim=256))
    settings = RenderSettings(guidance=8.0, negative="fog")
    timeline = Timeline.from_text("0: a | b | c", settings)
    check_job(guides, timeline, settings, batch=3)
    with pytest.raises(SettingsError, match="batch 3 has fewer rows than a frame needs, 4"):
        check_job(MODEL, timeline, settings, batch=3)
    # At a guidance above 1, where another model needs no sum of the weights.
    timeline = Timeline.from_text("0: a::3 | b::-1\n8: a::-3 | b", settings)
    check_job(MODEL, timeline, settings, batch=3)
    with pytest.raises(SettingsError, match="sum"):
        check_job(guides, timeline, settings, batch=3)
