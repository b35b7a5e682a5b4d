"""Plans of frames: which key frames, weights, seeds and rows each one is rendered from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine.audio.curve import EnergyCurve
from giffusion.engine.errors import PromptError, SettingsError
from giffusion.engine.prompts import KeyFrame, Part, parse_prompts
from giffusion.engine.schedules.easing import EASES, Weight
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED, RenderSettings
from giffusion.engine.timelines.keys import derive_seed
from giffusion.engine.timelines.plans import ConditionRow, FramePlan, PromptBlend
from giffusion.engine.timelines.timeline import Timeline

GUIDED = RenderSettings(guidance=5.0, negative="grey")
UNGUIDED = RenderSettings(guidance=0.0, negative="grey")


def timeline(text: str, settings: RenderSettings = GUIDED) -> Timeline:
    return Timeline(parse_prompts(text), settings)


def row(start: str, end: str, weight: float) -> ConditionRow:
    return ConditionRow(PromptBlend(start, end), weight)


def negative(start: str, end: str, weight: float) -> ConditionRow:
    return ConditionRow(PromptBlend(start, end), weight, is_negative=True)


def approx_rows(plan: FramePlan) -> list[tuple[str, str, object]]:
    """The rows, comparable with those of a plan up to rounding."""
    return [(r.prompt.start, r.prompt.end, pytest.approx(r.weight)) for r in plan.rows]


@pytest.mark.parametrize(
    ("frame", "from_key", "to_key", "weight"),
    [
        (0, 10, 10, 0.0),
        (9, 10, 10, 0.0),
        (10, 10, 10, 0.0),
        (11, 10, 14, 0.25),
        (13, 10, 14, 0.75),
        (14, 14, 14, 0.0),
        (15, 15, 15, 0.0),
        (16, 15, 15, 0.0),
        (19, 15, 15, 0.0),
    ],
)
def test_key_frames_around_a_frame(frame: int, from_key: int, to_key: int, weight: float) -> None:
    frames = timeline("10: a\n14: b\n15: c", replace(GUIDED, num_frames=20))
    plan = frames[frame]
    assert (plan.frame, plan.from_key, plan.to_key, plan.weight) == (
        frame,
        from_key,
        to_key,
        weight,
    )


@pytest.mark.parametrize(
    ("text", "num_frames", "expected"),
    [
        ("0: a", None, 1),
        ("0: a\n60: b", None, 61),
        ("7: a", None, 8),
        ("0: a\n60: b", 10, 10),
        ("0: a", 100, 100),
        ("60: a", 3, 3),
    ],
)
def test_number_of_frames(text: str, num_frames: int | None, expected: int) -> None:
    frames = timeline(text, replace(GUIDED, num_frames=num_frames))
    assert len(frames) == expected
    assert [plan.frame for plan in frames] == list(range(expected))


def test_frames_outside_are_refused() -> None:
    frames = timeline("0: a\n3: b")
    for frame in (-1, 4):
        with pytest.raises(IndexError, match=f"frame {frame} is outside of the 4 frames"):
            frames[frame]


def test_time_is_exact() -> None:
    frames = timeline("0: a", replace(GUIDED, fps=Fraction(30000, 1001), num_frames=MAX_FRAMES))
    assert frames[30000].time_s == 1001.0
    assert frames[999_999].time_s == float(Fraction(999_999 * 1001, 30000))


def test_plan_carries_the_settings() -> None:
    plan = timeline("0: a", replace(GUIDED, steps=7))[0]
    assert (plan.guidance, plan.steps, plan.strength, plan.noise) == (5.0, 7, 1.0, 1.0)


def test_rows_with_guidance() -> None:
    assert timeline("0: a")[0].rows == (negative("grey", "grey", -4.0), row("a", "a", 5.0))
    halfway = timeline("0: a\n4: b --neg dark")[2]
    assert halfway.rows == (negative("grey", "dark", -4.0), row("a", "b", 5.0))


def test_rows_without_guidance_are_the_prompts_alone() -> None:
    for guidance in (1.0, 0.0, -3.0):
        frames = timeline("0: a\n4: b", replace(GUIDED, guidance=guidance))
        assert frames[2].rows == (row("a", "b", 1.0),)
    # At 1 and below, weights are shares, whatever their sum is.
    assert timeline("0: a::3 | b::1", UNGUIDED)[0].rows == (
        row("a", "a", 0.75),
        row("b", "b", 0.25),
    )
    assert timeline("0: a::-2", UNGUIDED)[0].rows == (row("a", "a", 1.0),)


def test_composed_prompts_are_weighed_by_their_number() -> None:
    plan = timeline("0: a::1.5 | b::-0.5", replace(GUIDED, guidance=4.0))[0]
    # g_j = g · w_j / N, and the negative row takes the rest.
    assert plan.rows == (negative("grey", "grey", -1.0), row("a", "a", 3.0), row("b", "b", -1.0))


def test_missing_parts_fade_as_the_empty_prompt() -> None:
    frames = timeline("0: a\n4: b | c")
    assert approx_rows(frames[1]) == [
        ("grey", "grey", -4.0),
        ("a", "b", 5 * (0.75 * 1 + 0.25 * 0.5)),
        ("", "c", 5 * 0.25 * 0.5),
    ]
    assert frames[0].rows == timeline("0: a")[0].rows
    assert frames[4].rows == timeline("4: b | c")[4].rows
    assert [len(plan.rows) for plan in frames] == [2, 3, 3, 3, 3]


def test_rows_of_weight_zero_are_left_out() -> None:
    assert timeline("0: a | b::0")[0].rows == (negative("grey", "grey", -1.5), row("a", "a", 2.5))
    # 1 - g · w = 0: nothing is left for the negative row.
    assert timeline("0: a::0.2")[0].rows == (row("a", "a", 1.0),)
    zero = timeline("0: a | b::0.5\n2: a | b::-0.5")[1]
    assert [r.prompt for r in zero.rows] == [PromptBlend("grey", "grey"), PromptBlend("a", "a")]


@pytest.mark.parametrize("guidance", [1.0, 0.0, -2.0])
def test_weights_that_pass_through_sum_zero_are_refused_without_guidance(guidance: float) -> None:
    settings = replace(GUIDED, guidance=guidance)
    text = "0: a\n5: b\n9: c::-1"
    with pytest.raises(SettingsError, match="from key frame 5 to key frame 9 pass through sum 0"):
        timeline(text, settings)
    # Where no frame lies between them, nothing passes through zero.
    assert len(timeline("0: a\n1: b::-1", settings)) == 2
    assert len(timeline(text, replace(settings, num_frames=6))) == 6
    assert len(timeline(text, replace(settings, guidance=1.5))) == 10


def test_negative_prompts() -> None:
    frames = timeline("0: a --neg x\n2: b\n4: c --neg y")
    assert [plan.rows[0].prompt for plan in frames] == [
        PromptBlend("x", "x"),
        PromptBlend("x", "grey"),
        PromptBlend("grey", "grey"),
        PromptBlend("grey", "y"),
        PromptBlend("y", "y"),
    ]


def test_seeds() -> None:
    frames = timeline("0: a\n2: b --seed 7\n4: c", replace(GUIDED, seed=3))
    first, last = derive_seed(3, 0), derive_seed(3, 4)
    expected = [(first, first), (first, 7), (7, 7), (7, last), (last, last)]
    assert [plan.seeds for plan in frames] == expected
    assert [plan.seed_weight for plan in frames] == [0, 0.5, 0, 0.5, 0]


def test_schedules_are_asked_on_every_frame() -> None:
    settings = replace(
        GUIDED,
        guidance="0:(4), 10:(4+2*sin(t/5))",
        steps="0:(8), 20:(20)",
        strength="5:(0.5), 15:(1)",
        noise="1 + t/max_f/2",
        seed="0:(3), 20:(13)",
    )
    frames = timeline("0: a\n20: b", settings)
    assert len(frames) == 21
    for t, plan in enumerate(frames):
        bend = 4 + 2 * math.sin(max(t, 10) / 5)
        guidance = bend if t >= 10 else 4 + (bend - 4) * t / 10
        assert plan.guidance == pytest.approx(guidance, rel=1e-12)
        assert plan.rows[0].weight == pytest.approx(1 - guidance, rel=1e-12)
        assert plan.rows[1].weight == pytest.approx(guidance, rel=1e-12)
        assert plan.steps == math.floor(8 + 12 * t / 20 + 0.5)
        assert plan.strength == pytest.approx(min(max(t - 5, 0) / 20 + 0.5, 1))
        assert plan.noise == pytest.approx(1 + t / 40)
        assert plan.seeds == ((6 + t) // 2, (7 + t) // 2)
        assert plan.seed_weight == t % 2 / 2
        assert plan.weight == t / 20 % 1


def test_guidance_that_crosses_one_has_negative_rows_above_it_only() -> None:
    frames = timeline("0: a\n8: b", replace(GUIDED, guidance="0:(3), 8:(-1)"))
    assert [len(plan.rows) for plan in frames] == [2, 2, 2, 2, 1, 1, 1, 1, 1]
    assert [plan.rows[-1].weight for plan in frames] == [3, 2.5, 2, 1.5, 1, 1, 1, 1, 1]
    assert frames.max_rows == 2
    assert set(frames.prompts()) == {"grey", "a", "b"}
    unguided = timeline("0: a\n8: b", replace(GUIDED, guidance="0:(1), 8:(-1)"))
    assert unguided.max_rows == 1
    assert set(unguided.prompts()) == {"a", "b"}


def test_schedules_know_the_job() -> None:
    settings = replace(GUIDED, fps=Fraction(30), num_frames=11, seed=7, guidance="s + 10*max_f")
    assert timeline("0: a", settings)[3].guidance == 7 + 10 * 10
    in_time = timeline("0: a", replace(settings, guidance="0.1s:(2), 0.2s:(5)"))
    assert [plan.guidance for plan in in_time] == [2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 5]
    assert timeline("0: a", replace(settings, guidance="fps"))[0].guidance == 30


@pytest.mark.parametrize(
    ("seed", "job_seed"),
    [(7, 7), ("0:(3.75), 9:(5)", 3), ("2*max_f", 40), ("20 - max_f", 0), ("max_f:(9)", 9)],
)
def test_the_seed_of_a_job_is_that_of_its_first_frame(seed: int | str, job_seed: int) -> None:
    settings = replace(GUIDED, seed=seed, guidance="s + 2")
    frames = timeline("0: a\n20: b", settings)
    assert frames.seed == job_seed
    assert frames[5].guidance == job_seed + 2


def test_a_schedule_of_seeds_knows_no_seed() -> None:
    with pytest.raises(SettingsError, match="'s' is not known here: expected a schedule without"):
        timeline("0: a", replace(GUIDED, seed="s + t"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"guidance": "0:(900), 100:(1100)"},
            "guidance at frame 51 is 1002: expected -1000 to 1000; change the schedule",
        ),
        ({"steps": "0:(1), 10:(-9)"}, "steps at frame 1 is 0: expected 1 to 1000"),
        ({"strength": "t/30"}, "strength at frame 31 is 1.03333333333: expected 0 to 1"),
        ({"noise": "2 - t/100*4"}, "noise at frame 51 is -0.04: expected 0 to 2"),
        ({"seed": "5 - t"}, "seed at frame 6 is -1: expected 0 to 9007199254740992"),
        (
            {"guidance": "60/(t-12)"},
            r"guidance schedule, character 1, at frame 12: '60/\(t-12\)' has no value",
        ),
        (
            {"interpolation": "curve", "interpolation_args": "0:(0), 30:(1.5)"},
            "interpolation curve at frame 21 is 1.05: expected 0 to 1; change the schedule",
        ),
        (
            {"guidance": "0:(1), max_f/4:(2), 25:(3)"},
            "guidance schedule, character 21: a second key at frame 25: remove one of the two",
        ),
    ],
)
def test_a_frame_without_a_usable_value_is_told_by_the_timeline_itself(
    values: dict[str, Any], words: str
) -> None:
    settings = replace(GUIDED, **values)
    with pytest.raises(SettingsError, match=words) as caught:
        timeline("0: a\n100: b", settings)
    assert str(caught.value).isprintable()
    # What lies beyond the last frame does no harm.
    if "second key" not in words:
        assert len(timeline("0: a\n100: b", replace(settings, num_frames=1))) == 1


def test_weights_are_checked_on_the_frames_that_are_not_guided() -> None:
    text = "0: a\n5: b\n9: c::-1"
    for guidance, is_usable in [
        ("0:(0), 5:(0), 6:(2)", True),
        ("0:(2), 5:(2), 6:(1)", False),
        ("0:(2), 8:(2), 9:(1)", True),
    ]:
        settings = replace(GUIDED, guidance=guidance)
        if is_usable:
            assert len(timeline(text, settings)) == 10
        else:
            with pytest.raises(SettingsError, match="key frame 5 to key frame 9 pass through sum"):
                timeline(text, settings)


def swing(x: float) -> float:
    return (math.sin(math.pi * 0.5 * x) ** 2 + math.sin(math.pi * 2.5 * x) ** 2) / 2


@pytest.mark.parametrize(
    ("name", "arguments", "weight"),
    [
        ("linear", "", lambda x: x),
        ("sine", "", lambda x: math.sin(math.pi * x / 2) ** 2),
        ("ease", "", lambda x: 2 * x * x if x < 0.5 else 1 - 2 * (1 - x) ** 2),
        ("ease", "in", lambda x: x * x),
        ("ease", "out", lambda x: 1 - (1 - x) ** 2),
        # The frames from 10 on are 8 long.
        ("curve", "min(max(t - 10, 0)/8, 1)", lambda x: x),
        ("curve", "abs(sin(t))", lambda x: abs(math.sin(10 + 8 * x))),
        ("curve", "0:(1)", lambda x: 1),
    ],
)
def test_interpolations(name: str, arguments: str, weight: Weight) -> None:
    settings = replace(GUIDED, interpolation=name, interpolation_args=arguments, num_frames=25)
    frames = timeline("10: a --seed 1\n18: b --seed 2\n20: c", settings)
    for i in range(1, 8):
        plan = frames[10 + i]
        assert plan.weight == pytest.approx(weight(i / 8), abs=1e-12)
        assert plan.seed_weight == plan.weight
        assert (plan.from_key, plan.to_key, plan.seeds) == (10, 18, (1, 2))
    for key in (10, 18, 20):
        assert (frames[key].from_key, frames[key].to_key, frames[key].weight) == (key, key, 0)
    assert [frames[i].weight for i in (0, 9, 21, 24)] == [0, 0, 0, 0]


def test_sine_with_more_frequencies_still_ends_on_the_key_frame() -> None:
    settings = replace(GUIDED, interpolation="sine", interpolation_args="0.5, 2.5")
    weights = [plan.weight for plan in timeline("0: a\n16: b", settings)]
    linear = [i / 16 for i in range(16)]
    # x + a (m(x) - m(1) x) with one a for all.
    swings = [swing(x) - swing(1) * x for x in linear]
    shares = [(w - x) / s for w, x, s in zip(weights[1:-1], linear[1:], swings[1:], strict=True)]
    assert max(shares) - min(shares) < 1e-9
    assert 0 < shares[0] <= 1
    assert weights[0] == weights[16] == 0


@pytest.mark.parametrize("name", ["linear", "sine", "ease", "curve"])
def test_a_key_frame_can_stay_for_a_share_of_its_segment(name: str) -> None:
    arguments = "0:(0.25), 20:(0.75)" if name == "curve" else ""
    settings = replace(GUIDED, interpolation=name, interpolation_args=arguments)
    frames = timeline("0: a --hold 0.5\n8: b\n16: c --hold 1\n20: d", settings)
    free = timeline("0: a\n8: b\n16: c\n20: d", settings)
    assert [plan.weight for plan in frames][:5] == [0, 0, 0, 0, 0]
    # The rest of the segment is half as long; a curve has its values on its own frames.
    walked = [free[i].weight for i in ((5, 6, 7) if name == "curve" else (2, 4, 6))]
    assert [frames[i].weight for i in (5, 6, 7)] == walked
    assert all(walked)
    assert [frames[i] for i in range(8, 17)] == [free[i] for i in range(8, 17)]
    assert [frames[i].weight for i in range(16, 21)] == [0, 0, 0, 0, 0]
    assert [frames[i].from_key for i in range(16, 21)] == [16, 16, 16, 16, 20]


@pytest.mark.parametrize("name", ["linear", "sine", "curve"])
def test_a_key_frame_can_have_an_ease_of_its_own(name: str) -> None:
    arguments = "0.125" if name == "curve" else ""
    settings = replace(GUIDED, interpolation=name, interpolation_args=arguments)
    frames = timeline("0: a --ease in\n4: b\n8: c --hold 0.5 --ease out\n16: d", settings)
    assert [frames[i].weight for i in range(4)] == [0, 1 / 16, 4 / 16, 9 / 16]
    assert [frames[i].weight for i in range(8, 16)] == [
        *(0, 0, 0, 0, 0),
        *(7 / 16, 12 / 16, 15 / 16),
    ]
    assert [frames[i].weight for i in range(4, 8)] == [
        plan.weight for plan in list(timeline("0: a\n4: b\n8: c\n16: d", settings))[4:8]
    ]


def test_fixed_latent_is_one_noise_for_all_frames() -> None:
    frames = timeline("3: a\n9: b\n12: c", replace(GUIDED, fixed_latent=True, seed=5))
    assert {seed for plan in frames for seed in plan.seeds} == {derive_seed(5, 3)}
    own = timeline("3: a --seed 77\n9: b", replace(GUIDED, fixed_latent=True))
    assert {seed for plan in own for seed in plan.seeds} == {77}
    assert own[6].weight == 0.5


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (
            "0: a --seed 1\n5: b --seed 2",
            {"fixed_latent": True},
            "key frame 5 has --seed 2 beside --fixed-latent, which decides every frame's noise: "
            "remove one of the two",
        ),
        (
            "0: a --seed 1\n5: b",
            {"seed": "t"},
            "key frame 0 has --seed 1 beside a schedule of seeds, which decides every frame's "
            "noise: remove one of the two",
        ),
        (
            "0: a\n5: b",
            {"loop": True, "num_frames": 5},
            "loop has no frame after the last key frame, 5: expected --frames 6 or more, or no "
            "--frames",
        ),
        (
            "0: a\n999999: b",
            {"loop": True},
            "loop closes after 1999998 frames: expected at most 1000000, by --frames or by key "
            "frames that are nearer",
        ),
    ],
)
def test_settings_that_contradict_the_key_frames(
    text: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        timeline(text, replace(GUIDED, **values))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "num_frames", "expected"),
    [
        ("0: a\n10: b", None, 20),
        # (10 + 6) / 2, and half up of (10 + 7) / 2.
        ("0: a\n10: b\n16: c", None, 24),
        ("0: a\n10: b\n17: c", None, 26),
        # As far as key frames are from each other, not from frame 0.
        ("5: a\n10: b", None, 15),
        ("7: a", None, 8),
        ("0: a\n1: b", None, 2),
        ("0: a\n10: b", 11, 11),
        ("0: a\n10: b", 50, 50),
    ],
)
def test_where_a_loop_closes(text: str, num_frames: int | None, expected: int) -> None:
    frames = timeline(text, replace(GUIDED, loop=True, num_frames=num_frames))
    assert len(frames) == expected


def test_a_loop_ends_where_it_begins() -> None:
    text = "0: a --seed 4\n8: b | c --neg dark --seed 5"
    looped = timeline(text, replace(GUIDED, loop=True))
    assert len(looped) == 16
    # As if the first key frame stood again at the number of frames.
    opened = timeline(text + "\n16: a --seed 4", GUIDED)
    assert list(looped) == list(opened)[:16]
    assert replace(opened[16], frame=0, time_s=0.0, from_key=0, to_key=0) == looped[0]
    assert looped[12].rows[0] == negative("dark", "grey", -4.0)


@pytest.mark.parametrize("name", ["sine", "ease", "curve"])
def test_the_way_back_of_a_loop_has_the_weights_of_any_other(name: str) -> None:
    arguments = "t/20" if name == "curve" else ""
    settings = replace(
        GUIDED, loop=True, num_frames=20, interpolation=name, interpolation_args=arguments
    )
    frames = timeline("4: a --hold 0.25\n12: b --ease out", settings)
    assert [frames[i].weight for i in range(13, 20)] == [1 - (1 - i / 8) ** 2 for i in range(1, 8)]
    closed = timeline("4: a --hold 0.25\n12: b", settings)
    if name == "curve":
        assert [closed[i].weight for i in range(13, 20)] == [i / 20 for i in range(13, 20)]
    else:
        weights = [closed[i].weight for i in range(12, 20)]
        assert weights == sorted(weights)
        # One small step is left to the end, where the first key frame's weight is 1.
        assert 0.9 < weights[-1] < 1
    # Before the first key frame it holds, and that is what the end leads to.
    assert {(closed[i].from_key, closed[i].to_key) for i in range(5)} == {(4, 4)}
    assert (closed[19].from_key, closed[19].to_key) == (12, 20)
    assert closed[19].rows[-1].prompt == PromptBlend("b", "a")


def test_planning_holds_no_more_memory_for_more_frames() -> None:
    settings = replace(
        GUIDED,
        guidance="0:(4), 90000:(4+2*sin(t/5))",
        steps="0:(8), max_f:(20)",
        strength="0.6 + 0.4*cos(t)**2",
        noise="1 - t/max_f/4",
        seed="t/7",
        interpolation="sine",
    )
    text = "\n".join(f"{50 * i}: a dog | number {i} --hold 0.1" for i in range(2000))
    key_frames = parse_prompts(text)
    tracemalloc.start()
    try:
        frames = Timeline(key_frames, replace(settings, num_frames=100_000))
        planned_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for plan in frames:
            assert plan.rows
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The keys are some 1.5 kB each; of 100,000 plans each alone would be as much.
    assert planned_bytes < 6e6
    assert peak_bytes - planned_bytes < 1e5


def test_derived_seeds_are_pinned() -> None:
    # For job seed 0, the published first outputs of SplitMix64 from state 0.
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC]
    assert [derive_seed(0, frame) for frame in range(4)] == [word >> 11 for word in published]
    assert derive_seed(1, 0) == 6753131800803418
    assert derive_seed(42, 60) == 3287260496099639
    assert derive_seed(MAX_SEED, MAX_FRAMES - 1) == 6422339075666817


@given(st.integers(0, MAX_SEED), st.integers(0, MAX_FRAMES - 1))
def test_derived_seeds_survive_json_as_doubles(seed: int, frame: int) -> None:
    derived = derive_seed(seed, frame)
    assert 0 <= derived < 2**53
    assert derived == int(float(derived))


def test_neighbouring_jobs_and_key_frames_share_no_seed() -> None:
    seeds = {derive_seed(seed, frame) for seed in range(100) for frame in range(100)}
    assert len(seeds) == 100 * 100


def test_plan_as_json() -> None:
    plan = timeline("0: a --seed 1\n4: b --seed 2", replace(GUIDED, fps=Fraction(8)))[1].to_dict()
    assert json.loads(json.dumps(plan)) == {
        "frame": 1,
        "time_s": 0.125,
        "from": 0,
        "to": 4,
        "weight": 0.25,
        "guidance": 5.0,
        "steps": 12,
        "strength": 1.0,
        "noise": 1.0,
        "seed": [1, 2],
        "seed_weight": 0.25,
        "control_scale": 0.0,
        "follows": None,
        "zoom": 1.0,
        "angle": 0.0,
        "translate_x": 0.0,
        "translate_y": 0.0,
        "rows": [
            {"prompt": ["grey", "grey"], "weight": -4.0},
            {"prompt": ["a", "b"], "weight": 5.0},
        ],
    }


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no key frame"),
        ([5, 3], "key frames 5 and then 3: expected ascending"),
        ([5, 5], "expected ascending ones, each once"),
    ],
)
def test_key_frames_have_to_ascend(frames: list[int], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Timeline([KeyFrame(frame, (Part("a"),)) for frame in frames], GUIDED)


@pytest.mark.parametrize("num_frames", [MAX_FRAMES + 1, 10**30])
def test_too_many_frames_are_refused(num_frames: int) -> None:
    with pytest.raises(SettingsError, match=f"frames {num_frames} is out of range"):
        timeline("0: a", replace(GUIDED, num_frames=num_frames))


def test_a_million_frames_take_no_walk() -> None:
    frames = timeline("0: a\n999999: b | c")
    assert len(frames) == MAX_FRAMES
    assert frames.max_rows == 3
    assert frames[500_000].from_key == 0
    assert set(frames.prompts()) == {"grey", "a", "b", "c", ""}


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("0: a\n9: b --neg x", GUIDED, ("grey", "a", "x", "b")),
        ("0: a\n9: b --neg x", UNGUIDED, ("a", "b")),
        ("0: a\n9: b | c", UNGUIDED, ("a", "b", "", "c")),
        # No frame lies between, so nothing fades.
        ("0: a\n1: b | c", UNGUIDED, ("a", "b", "c")),
        ("0: a | b::0", UNGUIDED, ("a",)),
        ("0: a\n9: b\n12: c", replace(UNGUIDED, num_frames=5), ("a", "b")),
        ("0: a\n9: b\n12: c", replace(UNGUIDED, num_frames=1), ("a",)),
        ("5: a", replace(UNGUIDED, num_frames=1), ("a",)),
        # One encoding for a text, however often it is used.
        ("0: a | a\n2: b\n4: a", UNGUIDED, ("a", "b", "")),
    ],
)
def test_prompts_to_encode(text: str, settings: RenderSettings, expected: tuple[str, ...]) -> None:
    assert sorted(timeline(text, settings).prompts()) == sorted(expected)


def test_planning_does_not_import_numpy() -> None:
    check = "import sys, giffusion.engine.timelines.timeline; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


_TEXTS = st.sampled_from(["a", "b", "c", "d"])
_WEIGHTS = st.floats(0.01, 10) | st.floats(-10, 10)
_PARTS = (
    st.lists(st.builds(Part, _TEXTS, _WEIGHTS), min_size=1, max_size=4)
    .filter(lambda parts: abs(sum(part.weight for part in parts)) > 0.01)
    .map(tuple)
)
_KEY_FRAMES = st.builds(
    KeyFrame,
    st.integers(0, 60),
    _PARTS,
    st.none() | st.sampled_from(["x", "y"]),
    st.none() | st.integers(0, MAX_SEED),
    st.none() | st.sampled_from([0.0, 0.3, 1.0]),
    st.none() | st.sampled_from(EASES),
)
_SEQUENCES = st.lists(
    _KEY_FRAMES, min_size=1, max_size=5, unique_by=lambda key_frame: key_frame.frame
).map(lambda key_frames: sorted(key_frames, key=lambda key_frame: key_frame.frame))
_PLAIN = dict(
    seed=st.integers(0, MAX_SEED),
    guidance=st.sampled_from([0.0, 1.0]) | st.floats(-2, 20),
    num_frames=st.none() | st.integers(1, 80),
)
_INTERPOLATIONS = st.sampled_from(
    [
        ("linear", ""),
        ("sine", ""),
        ("sine", "0.5, 2, 7"),
        ("ease", "out"),
        ("curve", "0:(0), 9:(1), 20:(sin(t)**2)"),
        ("curve", "1"),
    ]
)
_SCHEDULED = dict(
    _PLAIN,
    seed=_PLAIN["seed"] | st.sampled_from(["t/3", "0:(8), max_f/2 + 1:(2**40)", "2**53 - t"]),
    guidance=_PLAIN["guidance"]
    | st.sampled_from(["0:(-1), 30:(9)", "4*sin(t)", "5 - t/9", "s % 7 + t/99"]),
    steps=st.sampled_from([1, 12, "0:(3), max_f + 1:(99)", "t % 9 + 1"]),
    strength=st.sampled_from([None, 0.5, "0:(0), 20:(1)"]),
    noise=st.sampled_from([1.0, "cos(t)**2", "0.3s:(1), 1s:(1.25)"]),
)
_SETTINGS = st.builds(RenderSettings, **_PLAIN)
_ANY_SETTINGS = st.builds(
    lambda interpolation, **values: RenderSettings(
        interpolation=interpolation[0], interpolation_args=interpolation[1], **values
    ),
    _INTERPOLATIONS,
    **_SCHEDULED,
)
"""Without what makes a frame depend on others than the two key frames around it."""


@st.composite
def closed(draw: st.DrawFn) -> RenderSettings:
    """Any settings, and those that concern the sequence as a whole."""
    settings = draw(_ANY_SETTINGS)
    fixed = draw(st.booleans()) and not isinstance(settings.seed, str)
    return replace(settings, loop=draw(st.booleans()), fixed_latent=fixed)


def planned(key_frames: list[KeyFrame], settings: RenderSettings) -> Timeline:
    """The timeline, where there is one; only what its documentation refuses is refused."""
    if isinstance(settings.seed, str) or settings.fixed_latent:
        key_frames = [replace(key_frame, seed=None) for key_frame in key_frames]
    try:
        return Timeline(key_frames, settings)
    except SettingsError as error:
        assume(not any(reason in str(error) for reason in ("pass through sum 0", "loop has no")))
        raise


@given(_SEQUENCES, closed())
def test_weights_are_finite_and_sum_to_one(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    for plan in planned(key_frames, settings):
        weights = [r.weight for r in plan.rows]
        assert weights
        assert all(math.isfinite(weight) and weight != 0 for weight in weights)
        largest = max(1, *map(abs, weights))
        assert math.fsum(weights) == pytest.approx(1, abs=1e-12 * largest)
        assert 0 <= plan.weight <= 1
        assert 0 <= plan.seed_weight <= 1
        assert plan.from_key == plan.to_key or plan.from_key < plan.frame < plan.to_key


@given(_SEQUENCES, closed())
def test_every_value_is_that_of_its_schedule(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    values: dict[str, float | Fraction] = {
        "fps": settings.fps,
        "max_f": len(frames) - 1,
        "s": frames.seed,
    }
    names = ("guidance", "steps", "strength", "noise")
    curves = {name: settings.schedule(name).bind(values) for name in names}
    for plan in frames:
        got = {name: getattr(plan, name) for name in names}
        assert got == {name: curve.at(plan.frame) for name, curve in curves.items()}
        assert isinstance(plan.steps, int)
    if isinstance(settings.seed, str):
        seeds = settings.schedule("seed").bind(values)
        for plan in frames:
            below, above = plan.seeds
            seed = seeds.at(plan.frame)
            assert (below, above) == (math.floor(seed), math.ceil(seed))
            assert below + plan.seed_weight == seed


@given(_SEQUENCES, _ANY_SETTINGS, st.booleans())
def test_a_key_frame_has_the_plan_that_it_has_alone(
    key_frames: list[KeyFrame], settings: RenderSettings, loop: bool
) -> None:
    settings = replace(settings, loop=loop)
    frames = planned(key_frames, settings)
    for key_frame in key_frames:
        if key_frame.frame < len(frames):
            alone = planned([key_frame], replace(settings, num_frames=len(frames)))
            assert frames[key_frame.frame] == alone[key_frame.frame]
            assert all(r.prompt.start == r.prompt.end for r in frames[key_frame.frame].rows)
            assert frames[key_frame.frame].weight == 0


@given(_SEQUENCES, _ANY_SETTINGS)
def test_a_plan_depends_on_the_key_frames_around_it_alone(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    for start, end in pairwise(key_frames):
        pair = planned([start, end], replace(settings, num_frames=len(frames)))
        for frame in range(start.frame, min(end.frame + 1, len(frames))):
            assert frames[frame] == pair[frame]


@given(_SEQUENCES, _ANY_SETTINGS)
def test_a_loop_is_the_sequence_with_its_first_key_frame_at_the_end(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    looped = planned(key_frames, replace(settings, loop=True))
    seed = looped.seed if isinstance(settings.seed, int) else None
    derived = None if seed is None else derive_seed(seed, key_frames[0].frame)
    first = (
        key_frames[0] if key_frames[0].seed is not None else replace(key_frames[0], seed=derived)
    )
    again = replace(first, frame=len(looped))
    opened = planned([*key_frames, again], replace(settings, num_frames=len(looped)))
    assert list(looped) == list(opened)


@given(_SEQUENCES, closed())
def test_max_rows_and_prompts_cover_every_frame(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    used = {text for plan in frames for r in plan.rows for text in (r.prompt.start, r.prompt.end)}
    assert used <= set(frames.prompts())
    assert max(len(plan.rows) for plan in frames) <= frames.max_rows
    assert len(set(frames.prompts())) == len(frames.prompts())


@given(_SEQUENCES, _SETTINGS)
def test_max_rows_and_prompts_are_no_more_than_frames_need(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    key_frames = [replace(key_frame, hold=None, ease=None) for key_frame in key_frames]
    frames = planned(key_frames, settings)
    # Each row is 0 on one frame at most: among more frames than rows, one has them all.
    frames_between = [b.frame - a.frame - 1 for a, b in pairwise(key_frames)]
    if settings.num_frames is None and all(n > frames.max_rows for n in frames_between):
        rows = [plan.rows for plan in frames]
        used = {text for each in rows for r in each for text in (r.prompt.start, r.prompt.end)}
        assert max(map(len, rows)) == frames.max_rows
        assert used == set(frames.prompts())


@given(_SEQUENCES, closed())
def test_walks_have_the_steps_and_strength_of_every_frame(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    walks = list(frames.walks())
    told = {frame: (steps, strength) for frame, steps, strength in walks}
    assert [frame for frame, _, _ in walks] == sorted(told)
    for plan in frames:
        latest = max(frame for frame in told if frame <= plan.frame)
        assert told[latest] == (plan.steps, plan.strength)


def test_keys_know_the_seed_only_where_it_is_certain() -> None:
    hangs = RenderSettings(seed="max_f")
    with pytest.raises(PromptError, match="s needs the number of frames, give it with --frames"):
        Timeline.from_text("0: a\n(s-9): b", hangs)
    known = Timeline.from_text("0: a\n(s-9): b", replace(hangs, num_frames=13))
    assert [key_frame.frame for key_frame in known.key_frames] == [0, 3]
    assert known.seed == 12
    # Where no key asks for it, the schedule may hang on the frames that the keys give.
    assert Timeline.from_text("0: a\n9: b", hangs).seed == 9
    first = Timeline.from_text("0: a\n(s+2): b", RenderSettings(seed="t/2 + 4"))
    assert (len(first), first.seed) == (7, 4)


def for_a_model_that_guides(text: str, settings: RenderSettings = GUIDED) -> Timeline:
    return timeline(text, settings).for_model(model_guides=True)


def test_a_model_that_guides_has_no_negative_rows() -> None:
    frames = for_a_model_that_guides("0: a\n4: b --neg fog")
    assert frames.model_guides
    assert [plan.guidance for plan in frames] == [5.0] * 5
    for plan in frames:
        assert [row.is_negative for row in plan.rows] == [False]
        assert plan.rows[0].weight == 1
    assert frames.prompts() == ("a", "b")
    assert frames.max_rows == 1


def test_a_model_that_guides_has_composed_prompts_whose_weights_sum_to_one() -> None:
    frames = for_a_model_that_guides("0: a::3 | b\n4: a | b::3", replace(GUIDED, guidance=12.0))
    assert approx_rows(frames[0]) == [("a", "a", 0.75), ("b", "b", 0.25)]
    assert approx_rows(frames[4]) == [("a", "a", 0.25), ("b", "b", 0.75)]
    for plan in frames:
        assert sum(row.weight for row in plan.rows) == pytest.approx(1)
    assert frames.prompts() == ("a", "b")


def test_weights_that_sum_to_nothing_are_refused_for_a_model_that_guides() -> None:
    # In between, on frames where no key frame is.
    text = "0: a::3 | b::-1\n8: a::-3 | b"
    plain = timeline(text)
    with pytest.raises(SettingsError) as caught:
        plain.for_model(model_guides=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(SettingsError) as without:
        timeline(text, UNGUIDED)
    assert str(caught.value) == str(without.value)


def test_a_timeline_is_itself_for_a_model_that_does_not_guide() -> None:
    frames = timeline("0: a\n4: b")
    assert frames.for_model(model_guides=False) is frames
    guides = frames.for_model(model_guides=True)
    assert guides.for_model(model_guides=True) is guides
    assert list(guides.for_model(model_guides=False)) == list(frames)


@given(guidance=st.floats(-5, 30) | st.sampled_from(["3*t", "0:(0), 8:(9)"]))
def test_all_but_the_rows_of_a_plan_is_the_same_for_every_model(guidance: float | str) -> None:
    settings = replace(GUIDED, guidance=guidance)
    frames = timeline("0: a | b\n8: c | d::0.5", settings)
    for plan, other in zip(frames, frames.for_model(model_guides=True), strict=True):
        assert replace(other, rows=plan.rows) == plan
        prompts = [row.prompt for row in plan.rows if not row.is_negative]
        assert [row.prompt for row in other.rows] == prompts or plan.guidance == 0


def test_frames_follow_from_each_other_up_to_a_cut() -> None:
    plans = list(timeline("0: a\n4: b --cut\n6: c", replace(GUIDED, zoom="1 + t/100", angle=-2)))
    assert [plan.follows for plan in plans] == [None, 0, 1, 2, None, 4, 5]
    assert [plan.strength for plan in plans] == [1, 0.5, 0.5, 0.5, 1, 0.5, 0.5]
    # What follows from nothing is not moved.
    assert [plan.zoom for plan in plans] == [1, 1.01, 1.02, 1.03, 1, 1.05, 1.06]
    assert [plan.angle for plan in plans] == [0, -2, -2, -2, 0, -2, -2]


def test_before_a_cut_the_key_frame_holds() -> None:
    for settings in (GUIDED, replace(GUIDED, zoom=1)):
        plans = list(timeline("0: a\n4: b --cut\n6: c", settings))
        keys = [(plan.from_key, plan.to_key, plan.weight) for plan in plans]
        assert keys == [(0, 0, 0)] * 4 + [(4, 4, 0), (4, 6, 0.5), (6, 6, 0)]
        assert plans[3].seeds == plans[0].seeds


def test_chains_are_the_frames_between_cuts() -> None:
    moving = replace(GUIDED, color_match=True)
    assert timeline("0: a\n4: b --cut\n6: c", moving).chains == [range(4), range(4, 7)]
    # A cut on the first key frame, or behind the end, cuts nothing.
    ends = timeline("0: a --cut\n9: b --cut", replace(moving, num_frames=5))
    assert ends.chains == [range(5)]
    assert timeline("0: a\n4: b --cut", GUIDED).chains == []


def test_a_first_frame_starts_from_the_init_picture_if_there_is_one() -> None:
    plans = list(timeline("0: a\n2: b", replace(GUIDED, zoom=1, image="in.png", strength=0.3)))
    assert [plan.strength for plan in plans] == [0.3] * 3
    assert [plan.follows for plan in plans] == [None, 0, 1]


def heard(values: tuple[float, ...], text: str, **more: Any) -> list[FramePlan]:
    settings = replace(GUIDED, audio="song.wav", **more)
    return list(Timeline(parse_prompts(text), settings, energy=EnergyCurve(values)))


def test_interpolation_follows_the_sound_and_hits_key_frames() -> None:
    plans = heard((1, 0, 0.5, 0.25, 0.25, 0), "0: a\n4: b\n6: c", interpolation="audio")
    # Behind the sound's end a segment without energy moves evenly.
    assert [plan.weight for plan in plans] == [0, 0, 0.5, 0.75, 0, 0.5, 0]


def test_a_key_frame_that_stays_moves_by_what_is_heard_afterwards() -> None:
    plans = heard((1, 1, 1, 0.5, 0.5), "0: a --hold 0.5\n4: b", interpolation="audio")
    assert [plan.weight for plan in plans] == [0, 0, 0, 0.5, 0]


def test_schedules_know_the_loudness() -> None:
    plans = heard(
        (0, 0.5, 1), "0: a\n3: b", guidance="3 + 4*audio", seed="audio*10", zoom="1+audio"
    )
    assert [plan.guidance for plan in plans] == [3, 5, 7, 3]
    assert [plan.seeds for plan in plans] == [(0, 0), (5, 5), (10, 10), (0, 0)]
    assert [plan.zoom for plan in plans] == [1, 1.5, 2, 1]


def test_a_schedule_of_a_sound_that_is_not_there_is_refused() -> None:
    with pytest.raises(SettingsError, match="'audio' is not known here: give a sound by --audio"):
        timeline("0: a\n3: b", replace(GUIDED, guidance="3 + audio"))
