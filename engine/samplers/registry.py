"""Which function writes the tables of which sampler; `engine/sampling.py` looks it up.

The keys are the names of `engine/sampler_names.py` without their modifiers.
"""

from __future__ import annotations

from collections.abc import Mapping

from giffusion.engine.samplers.ddim import ddim, ddpm, lcm
from giffusion.engine.samplers.deis import deis
from giffusion.engine.samplers.dpm_solver import dpm_singlestep, dpmpp_2m
from giffusion.engine.samplers.k_diffusion import euler, euler_ancestral, kdpm2_ancestral, lms
from giffusion.engine.samplers.plms import plms
from giffusion.engine.samplers.rows import Sampler
from giffusion.engine.samplers.unipc import unipc

SAMPLERS: Mapping[str, Sampler] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "deis": deis,
    "dpm": dpm_singlestep,
    "dpm++2m": dpmpp_2m,
    "dpm_ads": kdpm2_ancestral,
    "euler": euler,
    "euler_ads": euler_ancestral,
    "klms": lms,
    "lcm": lcm,
    "pndms": plms,
    "unipc": unipc,
}
