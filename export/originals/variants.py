"""Which of the published models of one shape a file is: its prediction type, scheduler and size.

`single_file.py` calls it. Epsilon and v-prediction models have the same tensors, and so have turbo
models and those that they were distilled from. What the caller says comes first, then the file's
metadata (https://github.com/Stability-AI/ModelSpec, and kohya's `ss_`), then marks among its
tensors, then its name; else SD 2 predicts v, as SD 2.1 does, and the others epsilon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from giffusion.engine.errors import SettingsError, nearest
from giffusion.export.originals.published import published

PREDICTIONS = ("epsilon", "v_prediction")
_WRITTEN = {
    "epsilon": "epsilon",
    "eps": "epsilon",
    "v": "v_prediction",
    "v_prediction": "v_prediction",
    "v-prediction": "v_prediction",
}
_SD2_BASE_STEP = 875_000
"""The training steps of SD 2.0 base, by which diffusers tells it."""
_LATENT_SCALE = 8
_LCM_SCHEDULER = {
    "_class_name": "LCMScheduler",
    "clip_sample": False,
    "original_inference_steps": 50,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_scaling": 10.0,
    "timestep_spacing": "leading",
}
_BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")


@dataclass(frozen=True, slots=True)
class Hints:
    """What a file says of itself besides its network.

    Args:
        name: its name without the ending.
        metadata: its header's `__metadata__`.
        tensors: the names of its tensors.
        global_step: the number of training steps that it was saved after, if it says so.
    """

    name: str
    metadata: Mapping[str, Any]
    tensors: frozenset[str]
    global_step: int | None = None

    def said(self, key: str) -> str:
        """Returns a value of the metadata in lower case, or "" where there is none."""
        return str(self.metadata.get(key, "")).strip().lower()

    @property
    def is_turbo(self) -> bool:
        """Whether the model is called a turbo model, distilled for one to four steps."""
        titles = (self.name, self.said("modelspec.title"), self.said("modelspec.architecture"))
        return any("turbo" in title.lower() for title in titles)


def check_prediction(prediction: str | None) -> None:
    """Refuses a prediction type that is none.

    Raises:
        SettingsError: it is neither None nor one of `PREDICTIONS`.
    """
    if prediction is not None and prediction not in PREDICTIONS:
        raise SettingsError(
            f"unknown prediction type '{prediction}': {nearest(prediction, PREDICTIONS)}"
        )


def configurations(
    family: str, hints: Hints, prediction: str | None = None, *, is_lcm: bool = False
) -> dict[str, Any]:
    """Chooses the configurations of a file.

    Args:
        family: `sd1`, `sd2` or `sdxl`.
        hints: what the file says of itself.
        prediction: the prediction type, where it is known better.
        is_lcm: whether the UNet takes the guidance scale.

    Returns:
        As `published.published` does.
    """
    prediction = prediction or _prediction(family, hints)
    is_base = family == "sd2" and prediction == "epsilon"
    configs = published("sd2-base" if is_base else family)
    configs["scheduler"] = _scheduler(family, hints, configs["scheduler"], prediction, is_lcm)
    configs["pipeline"]["scheduler"] = ["diffusers", configs["scheduler"]["_class_name"]]
    if is_lcm and family != "sdxl":
        configs["pipeline"]["_class_name"] = "LatentConsistencyModelPipeline"
    side = _latent_side(hints)
    if side is not None:
        configs["unet"]["sample_size"] = side
    return configs


def _prediction(family: str, hints: Hints) -> str:
    written = _WRITTEN.get(hints.said("modelspec.prediction_type"))
    if written:
        return written
    if "v_pred" in hints.tensors or hints.said("ss_v_parameterization") == "true":
        return "v_prediction"
    return "epsilon" if family != "sd2" or _is_sd2_base(hints) else "v_prediction"


def _is_sd2_base(hints: Hints) -> bool:
    architecture = hints.said("modelspec.architecture")
    if architecture.startswith("stable-diffusion-v2-"):
        return not architecture.endswith("-v")
    if hints.said("ss_v_parameterization") == "false" or hints.global_step == _SD2_BASE_STEP:
        return True
    # The published files are v2-1_512-ema-pruned, 512-base-ema and sd_turbo.
    return hints.is_turbo or re.search(r"(?<!\d)512(?!\d)", hints.name) is not None


def _scheduler(
    family: str, hints: Hints, base: Mapping[str, Any], prediction: str, is_lcm: bool
) -> dict[str, Any]:
    scheduler = dict(base)
    if is_lcm:
        scheduler = {key: base[key] for key in _BETAS} | _LCM_SCHEDULER
    elif hints.is_turbo and family != "sd1":
        scheduler = _turbo(family)
    if prediction != scheduler.get("prediction_type", "epsilon"):
        scheduler["prediction_type"] = prediction
    if "ztsnr" in hints.tensors:
        scheduler["rescale_betas_zero_snr"] = True
    return scheduler


def _turbo(family: str) -> dict[str, Any]:
    """SD-Turbo's and SDXL-Turbo's: Euler and its ancestral kind over the last of equal parts."""
    scheduler: dict[str, Any] = published("sdxl")["scheduler"] | {"timestep_spacing": "trailing"}
    if family == "sdxl":
        scheduler["_class_name"] = "EulerAncestralDiscreteScheduler"
    return scheduler


def _latent_side(hints: Hints) -> int | None:
    """Returns the side of the latents that the file says it was trained at."""
    match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", hints.said("modelspec.resolution"))
    if match is None or match[1] != match[2] or int(match[1]) % _LATENT_SCALE:
        # sd_xl_turbo_1.0 is SDXL at half its size; merges that are called turbo are not.
        return 64 if hints.name.lower().startswith("sd_xl_turbo") else None
    return int(match[1]) // _LATENT_SCALE
