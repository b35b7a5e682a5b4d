"""Records of renders: read back they plan the same frames, and damaged ones are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import settings as run_settings
from hypothesis import strategies as st

from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.prompts import KeyFrame, format_prompts
from giffusion.engine.sampler_names import SAMPLERS
from giffusion.engine.settings import BLENDS, MAX_SEED, RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.engine.values import parse_fps
from tests.engine.prompts.cases import SEQUENCES, TEXTS

NUMERICS = {"model": "mini", "runtime": "fake", "batch": 8, "encoder": "gif"}

_INTERPOLATIONS = st.sampled_from(
    [("linear", ""), ("sine", "0.5, 2"), ("ease", "in"), ("curve", "0:(0),\n9:(1)")]
)


_FOLLOWED = (
    {"zoom": "1 + t/90", "angle": 2.5, "padding": "zeros"},
    {"color_match": True, "coherence": 20.0, "coherence_alpha": 0.5, "coherence_noise": 0.0},
    {
        "video": "in.mp4",
        "video_start_s": Fraction(1, 3),
        "video_end_s": Fraction(5, 2),
        "keep_audio": True,
        "resize": "pad",
    },
    {"video": "in.mkv", "video_stride": 3},
)


@st.composite
def any_settings(draw: st.DrawFn) -> RenderSettings:
    """Settings of which every one may be other than its default."""
    name, arguments = draw(_INTERPOLATIONS)
    values: dict[str, st.SearchStrategy[Any]] = {
        "fps": st.fractions(Fraction(1, 1000), 1000, max_denominator=10**6)
        | st.sampled_from(["23.976023976023976024", "999.999999999999999999"]).map(parse_fps),
        "seed": st.integers(0, MAX_SEED) | st.sampled_from(["t/3", "0:(8), max_f/2 + 1:(2**40)"]),
        "steps": st.integers(1, 1000) | st.sampled_from(["0:(8), 30:(20)", "t % 9 + 1"]),
        "sampler": st.sampled_from(SAMPLERS),
        # Without guidance some of the key frames could not be normalised.
        "guidance": st.floats(1.5, 1000) | st.sampled_from(["0:(4), 30:(4+2*sin(t/5))", 2]),
        "strength": st.none() | st.floats(0, 1) | st.just("2s:(0.5)"),
        "noise": st.floats(0, 2) | st.just("cos(t)**2"),
        "negative": TEXTS | st.just(""),
        "head": st.sampled_from(["", "a photo of", r"\(old\)"]),
        "tail": st.sampled_from(["", "at (dawn:1.2)"]),
        "size": st.none() | st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
        "num_frames": st.none() | st.integers(1, 40),
        "latents": st.sampled_from(BLENDS),
        "embeddings": st.sampled_from(BLENDS),
        "fixed_latent": st.booleans(),
        "image": st.none() | st.text(min_size=1) | st.just("dog\udcff\n\\udc80.png"),
    }
    drawn = {key: draw(strategy) for key, strategy in values.items()}
    drawn["fixed_latent"] = drawn["fixed_latent"] and isinstance(drawn["seed"], int)
    drawn |= draw(st.sampled_from([{}, {"loop": True}, {"pingpong": True}]))
    if drawn["image"] is None:
        drawn |= draw(st.sampled_from(_FOLLOWED))
    if drawn["sampler"].startswith("ddim"):
        drawn["eta"] = draw(st.floats(0, 1))
    return RenderSettings(interpolation=name, interpolation_args=arguments, **drawn)


def near(key_frames: tuple[KeyFrame, ...], keeps_seeds: bool) -> tuple[KeyFrame, ...]:
    """The same key frames, close to each other."""
    moved = [replace(key_frame, frame=7 * i) for i, key_frame in enumerate(key_frames)]
    return tuple(moved if keeps_seeds else [replace(k, seed=None) for k in moved])


@given(SEQUENCES, any_settings(), st.none() | st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_record_that_is_read_back_plans_the_same_frames(
    key_frames: tuple[KeyFrame, ...], settings: RenderSettings, digest: str | None
) -> None:
    free = isinstance(settings.seed, int) and not settings.fixed_latent
    try:
        timeline = Timeline.from_text(format_prompts(near(key_frames, free)), settings)
    except SettingsError as error:
        assume("loop has no frame" not in str(error))
        raise
    digests = {} if digest is None else dict.fromkeys(("image", "video"), digest)
    record = RenderRecord.of(timeline, NUMERICS, digests)
    text = record.to_json()
    assert "\n" not in text
    read = RenderRecord.from_json(text.encode().decode())
    assert read == record
    assert read.to_json() == text
    again = read.timeline("out.mp4")
    assert again.key_frames == timeline.key_frames
    assert again.settings == replace(settings, head="", tail="")
    assert list(again) == list(timeline)
    assert again.seed == timeline.seed


def test_what_a_record_looks_like() -> None:
    settings = RenderSettings(fps=Fraction(30000, 1001), head="a photo of", size=(64, 32))
    timeline = Timeline.from_text("0: a (corgi:1.2)\n1s: a lion --seed 5", settings)
    record = json.loads(RenderRecord.of(timeline, NUMERICS).to_json())
    assert list(record) == ["giffusion", "prompts", "settings", "numerics"]
    # Heads and times are in the prompts as what they come to.
    assert record["prompts"] == "0: a photo of a (corgi:1.2)\n30: a photo of a lion --seed 5\n"
    assert set(record["settings"]) == {field.name for field in fields(RenderSettings)}
    assert record["settings"]["fps"] == "30000/1001"
    assert record["settings"]["size"] == [64, 32]
    assert record["settings"]["head"] == ""
    assert record["numerics"] == NUMERICS
    with_picture = RenderRecord.of(timeline, NUMERICS, {"image": "ab" * 32}).to_json()
    assert json.loads(with_picture) == record | {"image_sha256": "ab" * 32}


def test_settings_that_a_record_lacks_are_the_defaults() -> None:
    text = json.dumps({"giffusion": "1", "prompts": "0: a", "settings": {}, "numerics": {}})
    record = RenderRecord.from_json(text)
    assert record.settings == RenderSettings()
    assert [plan.steps for plan in record.timeline("a.gif")] == [12]


VALID = json.loads(
    RenderRecord.of(
        Timeline.from_text("0: a\n9: b", RenderSettings()), NUMERICS, {"image": "0f"}
    ).to_json()
)


def changed(**values: object) -> str:
    return json.dumps({**VALID, "settings": {**VALID["settings"], **values}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text in it is no plan of a render: expected one by giffusion"),
        ("made by hand", "the text in it is no plan of a render: expected one by giffusion"),
        ("[]", "the text in it is no plan of a render: expected one by giffusion"),
        ("[" * 100_000, "the text in it is no plan of a render: expected one by giffusion"),
        ("9" * 10_000, "the text in it is no plan of a render: expected one by giffusion"),
        ('{"prompts": "0: a"}', "the text in it is no plan of a render: expected one by giffusion"),
        (
            json.dumps({**VALID, "numerics": []}),
            "its plan is damaged: expected texts and settings by giffusion",
        ),
        (
            json.dumps({**VALID, "image_sha256": 5}),
            "its plan is damaged: expected texts and settings by giffusion",
        ),
        (json.dumps({**VALID, "settings": [1]}), "its plan has no settings: expected an object"),
        (
            changed(stepps=5),
            f"its plan has no setting 'stepps': did you mean 'steps'? known: "
            f"{', '.join(sorted(field.name for field in fields(RenderSettings)))}",
        ),
        (changed(steps=True), "its plan has steps True: expected a whole number or a schedule"),
        (changed(steps=2.5), "its plan has steps 2.5: expected a whole number or a schedule"),
        (changed(steps=[5]), "its plan has steps [5]: expected a whole number or a schedule"),
        (changed(loop=1), "its plan has loop 1: expected true or false"),
        (changed(fps=24.5), "its plan has fps 24.5: expected an exact number in quotes"),
        (
            changed(fps="fast"),
            "fps 'fast' is not a frame rate: expected a number or a fraction such as 30000/1001",
        ),
        (changed(size=[64]), "its plan has size [64]: expected two whole numbers"),
        (changed(size=[64, "32"]), "its plan has size [64, '32']: expected two whole numbers"),
        (changed(size=[True, 32]), "its plan has size [True, 32]: expected two whole numbers"),
        (changed(size=64), "its plan has size 64: expected two whole numbers or null"),
        (changed(eta="0.5"), "its plan has eta '0.5': expected a number"),
        (changed(eta=0.5), "sampler dpm++2m takes no eta: expected --sampler ddim"),
    ],
)
def test_what_is_no_record_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        RenderRecord.from_json(text)
    assert str(caught.value) == message


def check_read_or_refused(text: str) -> None:
    """Reads a record and plans it; whatever is wrong with it is an `InputError` of one line."""
    try:
        record = RenderRecord.from_json(text)
        timeline = record.timeline("damaged.mp4")
    except InputError as error:
        assert len(str(error).splitlines()) == 1, repr(str(error))  # noqa: PT017
    else:
        again = RenderRecord.of(timeline, {}, record.digests)
        assert RenderRecord.from_json(again.to_json()).timeline("again")[0] == timeline[0]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-100, 100)
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["0: a", "0:(1), 9:(2)", "t", "curve", "0.5", "\ud800", "ddim", 10**400]),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3)
    ),
    max_leaves=6,
)
_NAMES = st.sampled_from([field.name for field in fields(RenderSettings)]) | st.text(max_size=9)


@run_settings(max_examples=400)
@given(_JSON.map(json.dumps) | st.text() | st.dictionaries(_NAMES, _JSON).map(json.dumps))
def test_any_text_is_read_or_refused(text: str) -> None:
    check_read_or_refused(text)


@run_settings(max_examples=400)
@given(st.dictionaries(_NAMES, _JSON, max_size=3))
@example({"a\nb": 1})
@example({"image": "a\x00b", "strength": 0.5})
def test_any_settings_are_read_or_refused(values: dict[str, object]) -> None:
    check_read_or_refused(changed(**values))


@run_settings(max_examples=400)
@given(st.dictionaries(st.sampled_from([*VALID]), _JSON, max_size=2))
@example({"prompts": "0: \ud800"})
def test_any_parts_are_read_or_refused(parts: dict[str, object]) -> None:
    check_read_or_refused(json.dumps({**VALID, **parts}))


_CUTS: list[Callable[[str, int, str], str]] = [
    lambda text, place, new: text[:place],
    lambda text, place, new: text[place:],
    lambda text, place, new: text[:place] + new + text[place:],
    lambda text, place, new: text[:place] + new + text[place + len(new) :],
]


@run_settings(max_examples=400)
@given(
    st.sampled_from(_CUTS), st.integers(0, 10**4), st.text(max_size=2) | st.sampled_from('"{[,:')
)
def test_a_damaged_text_is_read_or_refused(
    cut: Callable[[str, int, str], str], place: int, new: str
) -> None:
    text = json.dumps(VALID)
    check_read_or_refused(cut(text, place % len(text), new))


def test_reading_a_record_loads_no_numpy() -> None:
    code = "import sys, giffusion.engine.timelines.record; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
