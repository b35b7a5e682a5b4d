"""Render settings: the defaults, and one line of value and expectation for each refusal."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction
from reprlib import repr as quote
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.sampler_names import SAMPLERS
from giffusion.engine.settings import (
    BLENDS,
    MAX_FRAMES,
    MAX_SEED,
    MAX_STEPS,
    SCHEDULES,
    RenderSettings,
)
from giffusion.engine.values import MAX_FPS, MAX_SIDE, parse_fps, parse_size


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    """Returns the message that a call is refused with, which is one line."""
    with pytest.raises(SettingsError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable(), repr(message)
    return message


def test_defaults_suit_a_model_of_any_size() -> None:
    settings = RenderSettings()
    assert settings.fps == 24
    assert settings.size is None
    assert settings.num_frames is None
    for field in dataclasses.fields(RenderSettings):
        assert RenderSettings.default(field.name) == getattr(settings, field.name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fps": Fraction(0)}, "fps 0 is out of range: expected at least 1/1000"),
        ({"fps": Fraction(2001, 2)}, "fps 2001/2 is out of range: expected at most 1000"),
        ({"seed": -1}, "seed -1 is out of range: expected at least 0"),
        ({"seed": 2**63}, f"seed {2**63} is out of range: expected at most {2**63 - 1}"),
        ({"seed": 1.5}, "seed 1.5 is not a whole number: expected an int"),
        ({"seed": "-1"}, "seed -1 is out of range: expected at least 0"),
        (
            {"seed": "0:(1), 9:"},
            "seed schedule, character 10: the text ends here: expected a number, a name or '('",
        ),
        ({"steps": 0}, "steps is 0: expected 1 to 1000"),
        ({"steps": 1001}, "steps is 1001: expected 1 to 1000"),
        ({"steps": "0.49"}, "steps is 0.49: expected 1 to 1000"),
        ({"steps": 8.0}, "steps 8.0 is not a whole number: expected an int"),
        ({"fps": 23.976}, "fps 23.976 is not exact: expected a Fraction or an int"),
        (
            {"sampler": "eulr"},
            f"unknown sampler 'eulr': did you mean 'euler'? known: {', '.join(sorted(SAMPLERS))}",
        ),
        ({"guidance": -1001.0}, "guidance is -1001: expected -1000 to 1000"),
        (
            {"guidance": "4 + t/maxf"},
            "guidance schedule, character 7: unknown name 'maxf': did you mean 'max_f'? known: "
            "abs, audio, ceil, cos, "
            "exp, floor, fps, log, max, max_f, min, pi, s, sin, sqrt, t, tan",
        ),
        ({"strength": 1.5}, "strength is 1.5: expected 0 to 1"),
        ({"strength": "-0.1"}, "strength is -0.1: expected 0 to 1"),
        ({"noise": 2.5}, "noise is 2.5: expected 0 to 2"),
        ({"eta": -0.5, "sampler": "ddim"}, "eta -0.5 is out of range: expected at least 0"),
        ({"eta": math.nan}, "eta nan is out of range: expected at least 0"),
        ({"eta": 0.5}, "sampler dpm++2m takes no eta: expected --sampler ddim"),
        (
            {"interpolation": "cosine"},
            "unknown interpolation 'cosine': did you mean 'sine'? "
            "known: audio, curve, ease, linear, sine",
        ),
        ({"seed": "9" * 20}, f"seed {'9' * 20} is out of range: expected at most {2**63 - 1}"),
        (
            {"interpolation": "curve", "interpolation_args": "2"},
            "interpolation curve is 2: expected 0 to 1",
        ),
        (
            {"head": "a (dog"},
            "head, character 3: '(' is never closed: close it, or write '\\(' for text",
        ),
        ({"tail": "a\udcff"}, r"tail 'a\udcff' is not UTF-8: expected plain text"),
        (
            {"loop": True, "pingpong": True},
            "loop and pingpong both close the sequence: give one of them",
        ),
        (
            {"fixed_latent": True, "seed": "t"},
            "fixed_latent is one noise for all frames and a schedule of seeds is many: give one",
        ),
        ({"negative": "a\udcff"}, r"negative 'a\udcff' is not UTF-8: expected plain text"),
        ({"size": (0, 64)}, "size 0 is out of range: expected at least 1"),
        ({"size": (64, 8193)}, "size 8193 is out of range: expected at most 8192"),
        ({"num_frames": 0}, "frames 0 is out of range: expected at least 1"),
        ({"num_frames": 1_000_001}, "frames 1000001 is out of range: expected at most 1000000"),
        ({"latents": "cubic"}, "unknown latents 'cubic': known: lerp, slerp"),
        (
            {"embeddings": "slrp"},
            "unknown embeddings 'slrp': did you mean 'slerp'? known: lerp, slerp",
        ),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    assert refusal(RenderSettings, **values) == message


@pytest.mark.parametrize(
    "values",
    [
        {"fps": Fraction(1, 1000)},
        {"fps": Fraction(MAX_FPS)},
        {"seed": MAX_SEED},
        {"steps": 1},
        {"steps": MAX_STEPS},
        {"strength": 0.0},
        {"strength": 1.0},
        {"noise": 0.0},
        {"noise": 2.0},
        {"eta": 1.0, "sampler": "ddim"},
        {"seed": "0:(0), 9:(2**53)"},
        {"fixed_latent": True, "loop": True},
        {"interpolation": "sine", "interpolation_args": "0.5, 2"},
        {"guidance": -1000.0},
        {"guidance": 0.0},
        {"guidance": 1000.0},
        {"negative": "日本語 \ue000 🐕"},
        {"size": (1, MAX_SIDE)},
        {"num_frames": 1},
        {"num_frames": MAX_FRAMES},
        *({"sampler": name} for name in SAMPLERS),
        *({"latents": name, "embeddings": name} for name in BLENDS),
    ],
)
def test_limits_are_inside(values: dict[str, Any]) -> None:
    settings = RenderSettings(**values)
    assert {name: getattr(settings, name) for name in values} == values


def test_a_number_that_is_none_is_refused_in_one_line() -> None:
    for name in ("guidance", "strength", "noise"):
        for number in (math.inf, -math.inf, math.nan, 10**400):
            assert name in refusal(RenderSettings, **{name: number})


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_that_is_a_number_is_that_number(name: str) -> None:
    given_as_text = RenderSettings(control="a.png", **{name: " 1 "})  # type: ignore[arg-type]
    given = RenderSettings(control="a.png", **{name: 1})  # type: ignore[arg-type]
    assert given_as_text == given
    curve = given_as_text.schedule(name).bind({})
    assert curve.constant == 1


def test_a_seed_by_itself_keeps_all_its_digits() -> None:
    # More than a float can hold, which schedules are made of.
    assert RenderSettings(seed=str(MAX_SEED)).seed == MAX_SEED
    assert RenderSettings(seed=2**53 + 1).seed == 2**53 + 1
    expected = "seed is 9007199254740994: expected 0 to 9007199254740992"
    assert refusal(RenderSettings, seed="2**53 + 2") == expected


@pytest.mark.parametrize("name", SCHEDULES)
@given(text=st.text(max_size=12) | st.text("0123456789:(),+-*/.ts max_f\n", max_size=12))
def test_any_schedule_is_read_or_refused_in_one_line(name: str, text: str) -> None:
    try:
        settings = RenderSettings(**{name: text})  # type: ignore[arg-type]
    except SettingsError as error:
        assert str(error).isprintable(), repr(str(error))  # noqa: PT017
    else:
        settings.schedule(name)


@pytest.mark.parametrize(
    ("values", "strength"),
    [
        ({}, 1.0),
        ({"image": "dog.png"}, 0.5),
        ({"image": "dog.png", "strength": 0.8}, 0.8),
        ({"strength": 0.3}, 0.3),
    ],
)
def test_the_strength_that_is_not_given(values: dict[str, Any], strength: float) -> None:
    assert RenderSettings(**values).schedule("strength").constant == strength


def test_names_of_samplers_become_canonical() -> None:
    assert RenderSettings(sampler="EulerDiscreteScheduler").sampler == "euler"
    for name, canonical in [("DDIMScheduler", "ddim"), (" DDIM-trailing ", "ddim-trailing")]:
        assert RenderSettings(sampler=name, eta=0.5).sampler == canonical


@given(name=st.sampled_from(["sampler", "latents", "embeddings"]), value=st.text())
def test_unknown_names_are_repeated_in_one_line(name: str, value: str) -> None:
    assume(value not in (*SAMPLERS, *BLENDS))
    # As much of it as fits into a line.
    assert quote(value) in refusal(RenderSettings, **{name: value})


@pytest.mark.parametrize(
    ("text", "fps"),
    [
        ("24", Fraction(24)),
        (" 23.976 ", Fraction(23976, 1000)),
        ("24000/1001", Fraction(24000, 1001)),
        (".5", Fraction(1, 2)),
        ("12.", Fraction(12)),
        ("+30", Fraction(30)),
        ("0.001", Fraction(1, 1000)),
        ("1000", Fraction(1000)),
    ],
)
def test_frame_rates(text: str, fps: Fraction) -> None:
    assert parse_fps(text) == fps


@given(
    st.fractions(Fraction(1, 1000), 1000, max_denominator=10**6)
    | st.builds("{}.{:018}".format, st.integers(1, 999), st.integers(0, 10**18 - 1)).map(parse_fps)
    | st.floats(0.001, 1000).map(Fraction)
)
def test_frame_rates_are_read_as_they_are_written(fps: Fraction) -> None:
    assert parse_fps(str(fps)) == fps


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "24fps",
        "1/0",
        "30/00",
        "1e3",
        "1e999999999",
        "nan",
        "inf",
        "1 / 2",
        "1/2/3",
        "٣",
    ],
)
def test_what_is_no_frame_rate(text: str) -> None:
    expected = "expected a number or a fraction such as 30000/1001"
    assert refusal(parse_fps, text) == f"fps {text!r} is not a frame rate: {expected}"


@pytest.mark.parametrize("text", ["0", "-24", "0.0009", "-0/5"])
def test_frame_rates_too_low(text: str) -> None:
    assert refusal(parse_fps, text).endswith("is out of range: expected at least 1/1000")


def test_frame_rates_too_high() -> None:
    assert refusal(parse_fps, "1000.1") == "fps 10001/10 is out of range: expected at most 1000"


@pytest.mark.parametrize("text", ["128x64", " 128 x 64 ", "128X64", "128×64"])
def test_sizes(text: str) -> None:
    assert parse_size(text) == (128, 64)


@pytest.mark.parametrize("text", ["", "128", "128x", "x64", "128x64x3", "-1x64", "1.5x2", "a\nxb"])
def test_what_is_no_size(text: str) -> None:
    expected = "expected WIDTHxHEIGHT, such as 128x128"
    assert refusal(parse_size, text) == f"size {text!r} is not a size: {expected}"


@pytest.mark.parametrize("text", ["0x64", "64x0", "64x8193", "999999x1"])
def test_sizes_out_of_range(text: str) -> None:
    assert "is out of range: expected at" in refusal(parse_size, text)


@given(st.text(max_size=12))
def test_any_text_is_a_value_or_refused_in_one_line(text: str) -> None:
    for parse in (parse_fps, parse_size):
        try:
            parse(text)
        except SettingsError as error:
            assert str(error).isprintable()  # noqa: PT017


def test_reading_the_defaults_does_not_load_numpy() -> None:
    """`giffusion --help` does."""
    code = "import sys, giffusion.engine.settings; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": None}, "steps is None: expected a whole number or a schedule"),
        ({"guidance": None}, "guidance is None: expected a number or a schedule"),
        ({"guidance": True}, "guidance is True: expected a number or a schedule"),
        ({"num_frames": "5"}, "num_frames is '5': expected a whole number or null"),
        ({"eta": "0"}, "eta is '0': expected a number"),
        ({"negative": None}, "negative is None: expected a text"),
        ({"sampler": None}, "sampler is None: expected a text"),
        ({"loop": 1}, "loop is 1: expected true or false"),
        ({"size": (1.5, 2)}, "size is (1.5, 2): expected two whole numbers"),
        ({"size": (1, 2, 3)}, "size is (1, 2, 3): expected two whole numbers"),
        ({"size": [64, 64]}, "size is [64, 64]: expected two whole numbers or null"),
    ],
)
def test_values_of_another_type_are_refused(values: dict[str, Any], message: str) -> None:
    assert refusal(RenderSettings, **values) == message
