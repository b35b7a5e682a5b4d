"""The samplers' names: which there are, and what else each is called.

The settings and the CLI read them, so nothing here imports NumPy; `sampling.py` turns a canonical
name into a table. A name is a base and at most one modifier: `euler`, `euler-karras`.
"""

from __future__ import annotations

from reprlib import repr as quote

from giffusion.engine.errors import SettingsError, nearest

KARRAS = "karras"
TRAILING = "trailing"

_CLASSES = {
    "klms": "LMSDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "pndms": "PNDMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm": "DPMSolverSinglestepScheduler",
    "dpm_ads": "KDPM2AncestralDiscreteScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ads": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "lcm": "LCMScheduler",
}

BASE_SAMPLERS = tuple(_CLASSES)
"""Samplers without a modifier, each one class of diffusers."""

MODIFIERS: dict[str, tuple[str, ...]] = {
    # Where diffusers' class has `use_karras_sigmas`.
    KARRAS: ("klms", "euler", "dpm_ads", "dpm++2m", "dpm", "deis", "unipc"),
    # Where few steps, or a schedule that ends in pure noise, ask for the last timestep.
    TRAILING: ("ddim", "euler", "euler_ads", "dpm++2m", "unipc"),
}
"""Which samplers each modifier goes with."""

SAMPLERS: tuple[str, ...] = BASE_SAMPLERS + tuple(
    f"{base}-{modifier}" for modifier, bases in MODIFIERS.items() for base in bases
)
"""All canonical names."""

# One letter too many is still meant for a base; the classes' names are longer.
_LONGEST_BASE = max(map(len, BASE_SAMPLERS)) + 1
_BASES = {name.lower(): base for base, name in _CLASSES.items()} | {
    base: base for base in BASE_SAMPLERS
}


def canonical_sampler(name: str) -> str:
    """Returns the canonical name of a sampler.

    Args:
        name: a canonical name or the name of diffusers' class, in any case; either may carry a
            modifier.

    Returns:
        One of `SAMPLERS`.

    Raises:
        SettingsError: there is no such sampler, or it does not go with the modifier.
    """
    given, dash, modifier = name.strip().lower().partition("-")
    canonical = _BASES.get(given, given) + dash + modifier
    if canonical in SAMPLERS:
        return canonical
    meant_class = given not in _BASES and len(given) > _LONGEST_BASE
    known = _CLASSES.values() if meant_class else SAMPLERS
    raise SettingsError(f"unknown sampler {quote(name)}: {nearest(name, known)}")


def split_sampler(canonical: str) -> tuple[str, str | None]:
    """Returns the base and the modifier, or None where it has none, of one of `SAMPLERS`."""
    base, _, modifier = canonical.partition("-")
    return base, modifier or None
