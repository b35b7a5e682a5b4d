"""What tells models of one shape apart, in the order in which it is believed."""

from __future__ import annotations

import pytest

from giffusion.engine.errors import SettingsError
from giffusion.engine.schedule import NoiseSchedule
from giffusion.export.originals.published import FAMILIES, published
from giffusion.export.originals.variants import Hints, check_prediction, configurations

V, EPSILON = ("v_prediction", 96), ("epsilon", 64)


def hints(name: str = "model", *tensors: str, **metadata: str) -> Hints:
    said = {key.replace("__", "."): value for key, value in metadata.items()}
    return Hints(name, said, frozenset(tensors))


@pytest.mark.parametrize(
    ("known", "prediction", "expected"),
    [
        (hints(), None, V),
        (hints(), "epsilon", EPSILON),
        (hints(), "v_prediction", V),
        (hints("v2-1_768-ema-pruned"), None, V),
        (hints("v2-1_512-ema-pruned"), None, EPSILON),
        (hints("512-base-ema"), None, EPSILON),
        (hints("model-15123"), None, V),
        (hints("sd_turbo"), None, EPSILON),
        (hints("sd_turbo"), "v_prediction", V),
        (hints("SD Turbo"), None, EPSILON),
        (hints(modelspec__prediction_type="epsilon"), None, EPSILON),
        (hints(modelspec__prediction_type="epsilon"), "v_prediction", V),
        (hints("512", modelspec__prediction_type="v"), None, V),
        (hints(modelspec__architecture="stable-diffusion-v2-512"), None, EPSILON),
        (hints("512", modelspec__architecture="stable-diffusion-v2-768-v"), None, V),
        (hints("512", ss_v_parameterization="True"), None, V),
        (hints(ss_v_parameterization="False"), None, EPSILON),
        (hints("512", "v_pred"), None, V),
        (Hints("model", {}, frozenset(), 875_000), None, EPSILON),
        (Hints("model", {}, frozenset(), 220_000), None, V),
        (hints(modelspec__resolution="512x512"), None, ("v_prediction", 64)),
        (hints(modelspec__resolution="768x512"), None, V),
        (hints(modelspec__resolution="nonsense"), None, V),
        (Hints("model", {"modelspec.resolution": 7}, frozenset()), None, V),
    ],
)
def test_what_sd2_predicts(known: Hints, prediction: str | None, expected: tuple[str, int]) -> None:
    configs = configurations("sd2", known, prediction)
    found = configs["scheduler"]["prediction_type"], configs["unet"]["sample_size"]
    assert found == expected


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_others_predict_epsilon_where_nothing_says_otherwise(family: str) -> None:
    for known in (hints(), hints("model 768"), hints("512")):
        scheduler = configurations(family, known)["scheduler"]
        assert scheduler.get("prediction_type", "epsilon") == "epsilon"
    for known in (hints("m", "v_pred"), hints(modelspec__prediction_type="v")):
        assert configurations(family, known)["scheduler"]["prediction_type"] == "v_prediction"


@pytest.mark.parametrize(
    ("family", "known", "scheduler", "spacing", "side"),
    [
        ("sd2", hints("sd_turbo"), "EulerDiscreteScheduler", "trailing", 64),
        ("sdxl", hints("sd_xl_turbo_1.0_fp16"), "EulerAncestralDiscreteScheduler", "trailing", 64),
        ("sdxl", hints("SomeTurboMix"), "EulerAncestralDiscreteScheduler", "trailing", 128),
        (
            "sdxl",
            hints("mix", modelspec__title="X Turbo", modelspec__resolution="512x512"),
            "EulerAncestralDiscreteScheduler",
            "trailing",
            64,
        ),
        ("sdxl", hints("sd_xl_base_1.0"), "EulerDiscreteScheduler", "leading", 128),
        ("sd1", hints("turbo"), "PNDMScheduler", None, 64),
    ],
)
def test_turbo_models_are_told_by_what_they_are_called(
    family: str, known: Hints, scheduler: str, spacing: str | None, side: int
) -> None:
    configs = configurations(family, known)
    assert configs["scheduler"]["_class_name"] == scheduler
    assert configs["pipeline"]["scheduler"] == ["diffusers", scheduler]
    assert configs["scheduler"].get("timestep_spacing") == spacing
    assert configs["unet"]["sample_size"] == side


@pytest.mark.parametrize(
    ("family", "pipeline"),
    [("sd1", "LatentConsistencyModelPipeline"), ("sdxl", "StableDiffusionXLPipeline")],
)
def test_lcm(family: str, pipeline: str) -> None:
    configs = configurations(family, hints(), is_lcm=True)
    assert configs["pipeline"]["_class_name"] == pipeline
    assert configs["scheduler"]["_class_name"] == "LCMScheduler"
    NoiseSchedule.from_config(configs["scheduler"])


def test_an_unknown_prediction_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean 'v_prediction'"):
        check_prediction("v-prediction")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_takes_the_published_schedules(family: str) -> None:
    NoiseSchedule.from_config(published(family)["scheduler"])


def test_choosing_one_file_does_not_change_the_next() -> None:
    turbo = configurations("sdxl", hints("sd_xl_turbo"))
    assert turbo != configurations("sdxl", hints()) == configurations("sdxl", hints())
