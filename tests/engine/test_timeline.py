"""Plans of frames: which key frames, weights, seeds and rows each one is rendered from."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.prompts import KeyFrame, Part, parse_prompts
from giffusion.engine.settings import MAX_FRAMES, MAX_SEED, RenderSettings
from giffusion.engine.timeline import ConditionRow, FramePlan, PromptBlend, Timeline, derive_seed

GUIDED = RenderSettings(guidance=5.0, negative="grey")
UNGUIDED = RenderSettings(guidance=0.0, negative="grey")


def timeline(text: str, settings: RenderSettings = GUIDED) -> Timeline:
    return Timeline(parse_prompts(text), settings)


def row(start: str, end: str, weight: float) -> ConditionRow:
    return ConditionRow(PromptBlend(start, end), weight)


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
    assert (plan.guidance, plan.steps, plan.strength) == (5.0, 7, 1.0)


def test_rows_with_guidance() -> None:
    assert timeline("0: a")[0].rows == (row("grey", "grey", -4.0), row("a", "a", 5.0))
    halfway = timeline("0: a\n4: b --neg dark")[2]
    assert halfway.rows == (row("grey", "dark", -4.0), row("a", "b", 5.0))


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
    assert plan.rows == (row("grey", "grey", -1.0), row("a", "a", 3.0), row("b", "b", -1.0))


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
    assert timeline("0: a | b::0")[0].rows == (row("grey", "grey", -1.5), row("a", "a", 2.5))
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
        "seed": [1, 2],
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
    check = "import sys, giffusion.engine.timeline; sys.exit('numpy' in sys.modules)"
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
)
_SEQUENCES = st.lists(
    _KEY_FRAMES, min_size=1, max_size=5, unique_by=lambda key_frame: key_frame.frame
).map(lambda key_frames: sorted(key_frames, key=lambda key_frame: key_frame.frame))
_SETTINGS = st.builds(
    RenderSettings,
    seed=st.integers(0, MAX_SEED),
    guidance=st.sampled_from([0.0, 1.0]) | st.floats(-2, 20),
    num_frames=st.none() | st.integers(1, 80),
)


def planned(key_frames: list[KeyFrame], settings: RenderSettings) -> Timeline:
    """The timeline, where there is one: without guidance, sums may pass through zero."""
    try:
        return Timeline(key_frames, settings)
    except SettingsError:
        assume(False)
        raise


@given(_SEQUENCES, _SETTINGS)
def test_weights_are_finite_and_sum_to_one(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    for plan in planned(key_frames, settings):
        weights = [r.weight for r in plan.rows]
        assert weights
        assert all(math.isfinite(weight) and weight != 0 for weight in weights)
        largest = max(1, *map(abs, weights))
        assert math.fsum(weights) == pytest.approx(1, abs=1e-12 * largest)
        assert 0 <= plan.weight < 1


@given(_SEQUENCES, _SETTINGS)
def test_a_key_frame_has_the_plan_that_it_has_alone(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    for key_frame in key_frames:
        alone = Timeline([key_frame], replace(settings, num_frames=None))
        if key_frame.frame < len(frames):
            assert frames[key_frame.frame] == alone[key_frame.frame]
            assert all(r.prompt.start == r.prompt.end for r in frames[key_frame.frame].rows)
            assert len(set(frames[key_frame.frame].seeds)) == 1


@given(_SEQUENCES, _SETTINGS)
def test_a_plan_depends_on_the_key_frames_around_it_alone(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    for start, end in pairwise(key_frames):
        pair = Timeline([start, end], replace(settings, num_frames=len(frames)))
        for frame in range(start.frame, min(end.frame + 1, len(frames))):
            assert frames[frame] == pair[frame]


@given(_SEQUENCES, _SETTINGS)
def test_max_rows_and_prompts_cover_every_frame(
    key_frames: list[KeyFrame], settings: RenderSettings
) -> None:
    frames = planned(key_frames, settings)
    used = {text for plan in frames for r in plan.rows for text in (r.prompt.start, r.prompt.end)}
    most = max(len(plan.rows) for plan in frames)
    assert used <= set(frames.prompts())
    assert most <= frames.max_rows
    # Each row is 0 on one frame at most: among more frames than rows, one has them all.
    frames_between = [b.frame - a.frame - 1 for a, b in pairwise(key_frames)]
    if settings.num_frames is None and all(n > frames.max_rows for n in frames_between):
        assert most == frames.max_rows
        assert used == set(frames.prompts())
