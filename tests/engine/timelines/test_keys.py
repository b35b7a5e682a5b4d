"""Key frames filled in with a job's defaults, and what lies between two of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.prompts import KeyFrame, Part, parse_prompts
from giffusion.engine.schedules.easing import linear
from giffusion.engine.settings import MAX_FRAMES, RenderSettings
from giffusion.engine.timelines.keys import (
    Key,
    check_sums,
    condition_rows,
    derive_seed,
    part_blends,
    resolve_keys,
)
from giffusion.engine.timelines.plans import ConditionRow, PromptBlend

SETTINGS = RenderSettings(negative="grey")


def keys_of(text: str, settings: RenderSettings = SETTINGS) -> list[Key]:
    return resolve_keys(parse_prompts(text), settings, 5, linear)[0]


def pair(text: str) -> tuple[Key, Key]:
    start, end = keys_of(text)
    return start, end


def test_what_a_key_frame_leaves_out_is_the_jobs() -> None:
    first, second = keys_of("2: a\n4: b | c::3 --neg dark --seed 9 --hold 0.5 --ease in")
    assert (first.frame, first.seed, first.negative) == (2, derive_seed(5, 2), "grey")
    assert (first.parts, first.mean, first.hold) == ((Part("a", 1.0),), 1.0, 0.0)
    assert first.weight is linear
    assert (second.frame, second.seed, second.negative) == (4, 9, "dark")
    # Weights are divided by the number of parts.
    assert second.parts == (Part("b", 0.5), Part("c", 1.5))
    assert (second.mean, second.hold) == (2.0, 0.5)
    assert second.weight is not None
    assert [second.weight(x) for x in (0, 0.5, 0.75, 1)] == [0, 0, 0.25, 1]


def test_an_empty_negative_is_not_the_jobs() -> None:
    (key,), _ = resolve_keys([KeyFrame(0, (Part("a"),), "")], SETTINGS, 0, linear)
    assert key.negative == ""


def test_a_curve_over_the_frames_leaves_key_frames_their_own_ease() -> None:
    keys, _ = resolve_keys(parse_prompts("0: a\n4: b --ease out\n8: c --hold 1"), SETTINGS, 0, None)
    assert [key.weight is None for key in keys] == [True, False, True]
    assert [key.hold for key in keys] == [0, 0, 1]


@pytest.mark.parametrize(
    ("values", "frames", "num_frames"),
    [
        ({}, [3, 9], 10),
        ({"num_frames": 5}, [3, 9], 5),
        ({"num_frames": 50}, [3, 9], 50),
        ({"loop": True}, [3, 9, 15], 15),
        ({"loop": True, "num_frames": 10}, [3, 9, 10], 10),
        ({"loop": True, "num_frames": MAX_FRAMES}, [3, 9, MAX_FRAMES], MAX_FRAMES),
    ],
)
def test_the_number_of_frames(
    values: dict[str, object], frames: list[int], num_frames: int
) -> None:
    settings = replace(SETTINGS, **values)  # type: ignore[arg-type]
    keys, number = resolve_keys(parse_prompts("3: a\n9: b --seed 8"), settings, 5, linear)
    assert [key.frame for key in keys] == frames
    assert number == num_frames
    if settings.loop:
        assert (keys[2].seed, keys[2].parts) == (keys[0].seed, keys[0].parts)


def test_a_loop_closes_as_late_as_frames_go_and_no_later() -> None:
    settings = replace(SETTINGS, loop=True)
    half = MAX_FRAMES // 2
    assert len(keys_of(f"0: a\n{half}: b", settings)) == 3
    with pytest.raises(SettingsError, match="loop closes after 1000002 frames: expected at most"):
        keys_of(f"0: a\n{half + 1}: b", settings)


def test_fixed_latent_gives_all_keys_the_first_ones_seed() -> None:
    settings = replace(SETTINGS, fixed_latent=True, loop=True)
    keys = keys_of("1: a --seed 3\n5: b", settings)
    assert [key.seed for key in keys] == [3, 3, 3]


def test_seeds_beside_what_decides_every_frames_noise() -> None:
    fixed = replace(SETTINGS, fixed_latent=True)
    with pytest.raises(SettingsError, match="key frame 5 has --seed 0 beside --fixed-latent"):
        keys_of("1: a --seed 3\n5: b --seed 0", fixed)
    with pytest.raises(SettingsError, match="key frame 1 has --seed 3 beside a schedule of seeds"):
        keys_of("1: a --seed 3\n5: b", replace(SETTINGS, seed="t"))


def test_rows_between_two_keys() -> None:
    start, end = pair("0: a | b::3 --neg x\n8: c::2")
    assert list(part_blends(start, end)) == [
        (PromptBlend("a", "c"), 0.5, 2.0),
        (PromptBlend("b", ""), 1.5, 0.0),
    ]
    guided = condition_rows(start, end, 0.25, 4.0)
    # The mean weight is 2 all the way: 1 - 4 · 2 is left for the negative.
    assert guided == [
        ConditionRow(PromptBlend("x", "grey"), -7.0, is_negative=True),
        ConditionRow(PromptBlend("a", "c"), 4 * 0.875),
        ConditionRow(PromptBlend("b", ""), 4 * 1.125),
    ]
    unguided = condition_rows(start, end, 0.25, 1.0)
    assert [row.weight for row in unguided] == [0.4375, 0.5625]


_WEIGHTS = st.lists(st.floats(-10, 10), min_size=1, max_size=4).filter(
    lambda weights: abs(sum(weights)) > 0.1
)


@given(_WEIGHTS, _WEIGHTS, st.floats(0, 1), st.floats(-2, 30))
def test_weights_sum_to_one(
    first: list[float], second: list[float], weight: float, guidance: float
) -> None:
    frames = [
        KeyFrame(frame, tuple(Part(f"p{i}", w) for i, w in enumerate(weights)))
        for frame, weights in [(0, first), (9, second)]
    ]
    (start, end), _ = resolve_keys(frames, SETTINGS, 0, linear)
    if guidance <= 1:
        try:
            check_sums(start, end)
        except SettingsError:
            assert sum(first) * sum(second) <= 0
            return
        assert sum(first) * sum(second) > 0
    rows = condition_rows(start, end, weight, guidance)
    assert len(rows) == max(len(first), len(second)) + (guidance > 1)
    largest = max(1, *(abs(row.weight) for row in rows))
    assert math.fsum(row.weight for row in rows) == pytest.approx(1, abs=1e-12 * largest)


@pytest.mark.parametrize(
    ("text", "is_usable"),
    [
        ("0: a\n5: b", True),
        ("0: a::-1\n5: b::-2", True),
        ("0: a\n5: b::-1", False),
        ("0: a::-3\n5: b | c::5", False),
    ],
)
def test_sums_that_pass_through_zero(text: str, is_usable: bool) -> None:
    start, end = pair(text)
    check_sums(start, start)
    if is_usable:
        check_sums(start, end)
    else:
        with pytest.raises(SettingsError, match="from key frame 0 to key frame 5 pass through sum"):
            check_sums(start, end)
