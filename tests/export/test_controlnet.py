"""ControlNets: exported with a model, and rendered as diffusers' ControlNet pipelines do."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.contract import denoise_spec
from giffusion.engine.errors import ModelError
from giffusion.engine.model import Model, load_model
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.settings import RenderSettings
from giffusion.export.checkpoint.controlnets import check_controlnet
from giffusion.export.control_graphs import ControlGraph
from giffusion.export.exporting import ExportSettings, export_checkpoint
from giffusion.export.graphs import DenoiseGraph, example_inputs
from giffusion.export.verify import Check, verify_model
from tests.export import families
from tests.export.renders import PROMPTS, guided, render
from tests.export.test_families import assert_same, render_by_diffusers

PIPELINES: dict[str, Any] = {
    "sd1": StableDiffusionControlNetPipeline,
    "sdxl": StableDiffusionXLControlNetPipeline,
}
SIDE = 8 * families.LATENT_SIDE
SAMPLERS = {"sd1": "ddim", "sdxl": "euler"}
OpenModel = Callable[[str], Model]
# Of diffusers' Euler schedulers, about NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def make_controlnet(family: str) -> Any:
    """Returns a ControlNet for a family's UNet whose zero convolutions have been trained."""
    unet = families.make(family).unet
    torch.manual_seed(1)
    controlnet: Any = ControlNetModel.from_unet(unet)
    for name, weights in controlnet.named_parameters():
        if name.startswith(("controlnet_down", "controlnet_mid")) or "conv_out" in name:
            torch.nn.init.normal_(weights, std=0.3)
    return controlnet.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the maps of two frames."""
    folder = tmp_path_factory.mktemp("controlnets")
    (folder / "maps").mkdir()
    for frame in range(len(PROMPTS)):
        pixels = np.random.default_rng(frame).integers(0, 256, (8, 8, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        picture.save(folder / "maps" / f"{frame}.png")
    return folder


@pytest.fixture(scope="module")
def exported(home: Path) -> OpenModel:
    """Exports a family's model with its ControlNet, once."""

    @cache
    def opened(family: str) -> Model:
        families.save(family, home / family)
        make_controlnet(family).save_pretrained(home / f"{family}-controlnet")
        settings = ExportSettings(controlnet=home / f"{family}-controlnet", graphs=("fp32",))
        out = home / f"{family}-steered"
        export_checkpoint(home / family, out, settings, progress=lambda line: None)
        return load_model(out)

    return opened


@pytest.fixture(scope="module")
def onnxruntime(open_cpu: Callable[[str, str], Runtime]) -> Runtime:
    return open_cpu("onnxruntime", "fp32")


def steered(home: Path, family: str, **changes: Any) -> RenderSettings:
    control = str(home / "maps" / "%d.png")
    return guided(SAMPLERS[family], **{"control": control, "control_scale": 0.8} | changes)


def render_by_controlnet_pipeline(
    home: Path, family: str, settings: RenderSettings
) -> NDArray[np.float32]:
    parts = families.make(family).components
    pipeline = PIPELINES[family](**parts, controlnet=make_controlnet(family))
    pipeline.set_progress_bar_config(disable=True)

    def with_maps(prompts: list[str], **options: Any) -> Any:
        maps = [Image.open(home / "maps" / f"{frame}.png") for frame in range(len(prompts))]
        scale = float(settings.control_scale or 0)
        return pipeline(prompts, image=maps, controlnet_conditioning_scale=scale, **options)

    return render_by_diffusers(with_maps, settings)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_maps_steer_frames_as_in_diffusers(
    exported: OpenModel, onnxruntime: Runtime, home: Path, family: str
) -> None:
    settings = steered(home, family, negative="the moon")
    frames = render(exported(family), onnxruntime, settings)
    assert_same(frames, render_by_controlnet_pipeline(home, family, settings))
    other = render(
        exported(family), onnxruntime, steered(home, family, negative="the moon", control_scale=0.4)
    )
    assert np.abs(np.stack(frames.pictures).astype(int) - other.pictures).mean() > 0.5


def test_a_scale_of_0_is_the_model_without(
    exported: OpenModel, onnxruntime: Runtime, home: Path
) -> None:
    expected = render_by_diffusers(families.make("sd1"), guided("ddim"))
    unsteered = render(exported("sd1"), onnxruntime, guided("ddim"))
    assert_same(unsteered, expected)
    # Its map is not even looked for.
    half = steered(home, "sd1", control=str(home / "maps" / "1.png"), control_scale="0:(0), 1:(1)")
    frames = render(exported("sd1"), onnxruntime, half)
    np.testing.assert_array_equal(frames.pictures[0], unsteered.pictures[0])
    assert not np.array_equal(frames.pictures[1], unsteered.pictures[1])


def test_frames_with_different_maps_share_a_batch(
    exported: OpenModel, onnxruntime: Runtime, home: Path
) -> None:
    together = render(exported("sd1"), onnxruntime, steered(home, "sd1"), batch=4)
    alone = render(exported("sd1"), onnxruntime, steered(home, "sd1"), batch=2)
    np.testing.assert_array_equal(together.pictures, alone.pictures)
    same = steered(home, "sd1", control=str(home / "maps" / "0.png"))
    frames = render(exported("sd1"), onnxruntime, same)
    np.testing.assert_array_equal(frames.pictures[0], together.pictures[0])
    assert not np.array_equal(frames.pictures[1], together.pictures[1])


def test_torch_renders_it_too(
    exported: OpenModel, open_cpu: Callable[[str, str], Runtime], onnxruntime: Runtime, home: Path
) -> None:
    by_torch = render(exported("sd1"), open_cpu("torch", "fp32"), steered(home, "sd1"))
    by_onnx = render(exported("sd1"), onnxruntime, steered(home, "sd1"))
    assert np.abs(np.stack(by_torch.pictures).astype(int) - by_onnx.pictures).max() <= 1


def test_its_graphs_are_verified_and_belong_to_the_model(exported: OpenModel) -> None:
    model = exported("sd1")
    checked: list[Check] = []
    verify_model(model.folder, checked.append)
    assert {check.graph for check in checked} == set(model.stages)
    assert all(check.ok for check in checked)
    assert model.manifest.control_dim == 32
    assert "controlnet/diffusion_pytorch_model.safetensors" in model.manifest.sources
    assert "controlnet/config.json" in model.manifest.origin
    digests = {stage: model.manifest.graph_digest(stage) for stage in model.stages}
    weights = "controlnet/diffusion_pytorch_model.safetensors"
    model.manifest.sources[weights] = "0" * 64
    changed = {stage for stage in digests if model.manifest.graph_digest(stage) != digests[stage]}
    assert changed == {"denoise", "control"}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_slot_without_a_map_has_the_bits_of_the_unet_alone(family: str) -> None:
    pipeline = families.make(family)
    is_sdxl = family == "sdxl"
    spec = denoise_spec(
        families.NUM_TOKENS,
        80 if is_sdxl else families.PROMPT_DIM,
        32,
        40 if is_sdxl else None,
        control_dim=32,
    )
    inputs = example_inputs(spec, side=families.LATENT_SIDE)
    inputs["control_scale"][1] = 0
    slots = torch.arange(len(inputs["mix"]))
    inputs["mix"] = (inputs["row_slot"] == slots[:, None]).float()
    plain = {name: value for name, value in inputs.items() if not name.startswith("control")}
    with torch.no_grad():
        without = DenoiseGraph(pipeline.unet)(**plain)
        result = DenoiseGraph(pipeline.unet, make_controlnet(family))(**inputs)
    assert torch.equal(result[1], without[1])
    assert not torch.equal(result[0], without[0])


def test_a_map_is_embedded_as_diffusers_does() -> None:
    controlnet = make_controlnet("sd1")
    rgb = torch.randint(0, 256, (2, 32, 48, 3), dtype=torch.uint8)
    expected = controlnet.controlnet_cond_embedding(rgb.permute(0, 3, 1, 2) / 255)
    assert expected.shape == (2, 32, 4, 6)
    torch.testing.assert_close(ControlGraph(controlnet)(rgb), expected)


def refused(home: Path, controlnet: Path, tmp_path: Path) -> str:
    if not (home / "sd1").exists():
        families.save("sd1", home / "sd1")
    with pytest.raises(ModelError) as caught:
        export_checkpoint(
            home / "sd1",
            tmp_path / "out",
            ExportSettings(controlnet=controlnet, graphs=("fp32",)),
            progress=lambda line: None,
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def test_what_is_no_controlnet_of_the_model_is_refused(home: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused(home, tmp_path / "none", tmp_path)
    folder = tmp_path / "controlnet"
    make_controlnet("sd1").save_pretrained(folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    message = refused(home, weights, tmp_path)
    assert "is a file" in message
    assert "original layout" in message
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"cross_attention_dim": 64}))
    assert "incomplete" in refused(home, folder, tmp_path) or "has the shape" in refused(
        home, folder, tmp_path
    )
    (folder / "config.json").write_text(
        json.dumps(config | {"_class_name": "UNet2DConditionModel"})
    )
    assert "expected ControlNetModel" in refused(home, folder, tmp_path)
    (folder / "config.json").write_text("[]")
    assert "not a JSON object" in refused(home, folder, tmp_path)
    (folder / "config.json").unlink()
    assert "config.json is missing" in refused(home, folder, tmp_path)
    make_controlnet("sdxl").save_pretrained(tmp_path / "sdxl")
    message = refused(home, tmp_path / "sdxl", tmp_path)
    assert "cross_attention_dim=80: expected 48" in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"global_pool_conditions": True}, "global_pool_conditions=True: expected False"),
        ({"controlnet_conditioning_channel_order": "bgr"}, "='bgr': expected 'rgb'"),
        ({"conditioning_channels": 1}, "conditioning_channels=1: expected 3"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep': expected none"),
        ({"conditioning_embedding_out_channels": [16, 32]}, "expected 4 widths"),
        ({"conditioning_embedding_out_channels": 3}, "expected 4 widths"),
        ({"block_out_channels": [32, 32]}, "block_out_channels=[32, 32]: expected [32, 64]"),
        ({"layers_per_block": 1}, "layers_per_block=1: expected 2"),
        ({"freq_shift": [1]}, "freq_shift=[1]: expected 0"),
    ],
)
def test_settings_that_are_not_rendered_are_refused(changes: dict[str, Any], words: str) -> None:
    unet = dict(families.unet().config)
    controlnet = dict(make_controlnet("sd1").config)
    check_controlnet(controlnet, unet, "here")
    with pytest.raises(ModelError) as caught:
        check_controlnet(controlnet | changes, unet, "here")
    assert words in str(caught.value)
