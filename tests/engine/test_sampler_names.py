"""The samplers' names, and what else they are called."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from giffusion.engine.errors import SettingsError
from giffusion.engine.sampler_names import (
    BASE_SAMPLERS,
    MODIFIERS,
    SAMPLERS,
    canonical_sampler,
    split_sampler,
)
from tests.engine.samplers.reference import CLASSES

PRODUCT = ("klms", "ddim", "pndms", "ddpm", "deis", "dpm", "dpm_ads", "euler", "euler_ads", "unipc")


def test_the_products_names_are_canonical() -> None:
    assert {*PRODUCT, "dpm++2m", "lcm"} == set(BASE_SAMPLERS)


def test_a_modifier_goes_where_diffusers_class_has_the_option() -> None:
    assert len(set(SAMPLERS)) == len(SAMPLERS)
    assert set(MODIFIERS["karras"]) == {
        base for base, cls in CLASSES.items() if "use_karras_sigmas" in cls._get_init_keys(cls)
    }
    for base in MODIFIERS["trailing"]:
        assert "timestep_spacing" in CLASSES[base]._get_init_keys(CLASSES[base])


@pytest.mark.parametrize("name", SAMPLERS)
def test_canonical_names_are_their_own(name: str) -> None:
    assert canonical_sampler(name) == name
    assert canonical_sampler(f" {name.upper()} ") == name
    base, modifier = split_sampler(name)
    assert name == (base if modifier is None else f"{base}-{modifier}")


@pytest.mark.parametrize("base", BASE_SAMPLERS)
def test_diffusers_class_names_are_known(base: str) -> None:
    name = CLASSES[base].__name__
    for spelling in (name, name.lower(), name.upper()):
        assert canonical_sampler(spelling) == base


def test_class_names_carry_modifiers() -> None:
    assert canonical_sampler("LMSDiscreteScheduler-karras") == "klms-karras"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("eulr", "unknown sampler 'eulr': did you mean 'euler'"),
        ("PNDMSheduler", "unknown sampler 'PNDMSheduler': did you mean"),
        ("PNDMSchedulr", "did you mean"),
        ("UniPCMultistepsScheduler", "did you mean 'UniPCMultistepScheduler'"),
        ("HeunDiscreteScheduler", "known: DDIMScheduler"),
        ("ddim-karras", "unknown sampler 'ddim-karras': did you mean 'dpm-karras'"),
        ("euler-", "did you mean 'euler'"),
        ("euler-trailing-karras", "did you mean"),
        ("", "known: ddim"),
    ],
)
def test_other_names_are_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        canonical_sampler(name)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text())
def test_any_text_is_a_sampler_or_refused(name: str) -> None:
    try:
        assert canonical_sampler(name) in SAMPLERS
    except SettingsError as refused:
        assert "\n" not in str(refused)  # noqa: PT017


def test_names_need_no_numpy() -> None:
    code = "import sys, giffusion.engine.sampler_names; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
