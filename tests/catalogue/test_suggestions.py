"""Names with one letter too many: the one that was meant is suggested, whatever it is a name of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from fractions import Fraction
from pathlib import Path

import pytest

from giffusion.engine.audio.options import COMPONENTS, REDUCTIONS, AudioOptions
from giffusion.engine.encode import choose_encoder, output_format
from giffusion.engine.encode.encoders import AUTO
from giffusion.engine.encode.formats import FORMATS
from giffusion.engine.errors import GiffusionError
from giffusion.engine.manifest import GRAPH_DTYPES
from giffusion.engine.media.fitting import RESIZES
from giffusion.engine.prompts import OPTIONS, parse_prompts
from giffusion.engine.runtimes import PRECISIONS, open_runtime, runtime_names
from giffusion.engine.runtimes.tensorrt.package import PACKAGES, TensorRtPackage
from giffusion.engine.sampler_names import SAMPLERS, canonical_sampler
from giffusion.engine.samplers.config import _CLASSES
from giffusion.engine.schedule import PREDICTION_TYPES, TIMESTEP_SPACINGS, NoiseSchedule
from giffusion.engine.schedules.arithmetic import FUNCTIONS
from giffusion.engine.schedules.easing import EASES, INTERPOLATION_NAMES, parse_interpolation
from giffusion.engine.schedules.schedule_text import VARIABLES
from giffusion.engine.settings import BLENDS, PADDINGS, RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.export.model import check_dtypes
from giffusion.export.originals.variants import PREDICTIONS, check_prediction
from giffusion.models import bundled_models, find_model
from giffusion.server.cli import _parsers, main

Use = Callable[[str], object]


def _plan(settings: dict[str, object]) -> str:
    parts = {"giffusion": "1", "prompts": "0: a", "numerics": {}, "settings": settings}
    return json.dumps(parts)


def _config(key: str) -> Use:
    return lambda name: NoiseSchedule.from_config({key: name})


def _encoder(path: Path) -> Use:
    return lambda name: choose_encoder(path, name, fps=Fraction(24))


NAMES: dict[str, tuple[Iterable[str], Use]] = {
    "sampler": (SAMPLERS, lambda name: RenderSettings(sampler=name)),
    "class": (_CLASSES, _config("_class_name")),
    "prediction type": (PREDICTION_TYPES, _config("prediction_type")),
    "spacing": (TIMESTEP_SPACINGS, _config("timestep_spacing")),
    "blend of latents": (BLENDS, lambda name: RenderSettings(latents=name)),
    "blend of embeddings": (BLENDS, lambda name: RenderSettings(embeddings=name)),
    "padding": (PADDINGS, lambda name: RenderSettings(padding=name)),
    "resize": (RESIZES, lambda name: RenderSettings(resize=name)),
    "component": (COMPONENTS, lambda name: AudioOptions(component=name)),
    "reduction": (REDUCTIONS, lambda name: AudioOptions(reduction=name)),
    "interpolation": (INTERPOLATION_NAMES, lambda name: RenderSettings(interpolation=name)),
    "ease": (EASES, lambda name: parse_interpolation("ease", name)),
    "ease of a key frame": (EASES, lambda name: parse_prompts(f"0: a --ease {name}")),
    "option of a key frame": (OPTIONS, lambda name: parse_prompts(f"0: a --{name} 1")),
    "key of JSON": (
        ("head", "tail", "max_f", "fps"),
        lambda name: parse_prompts(json.dumps({name: "a"}), num_frames=9),
    ),
    "key of a line": (("head", "tail"), lambda name: parse_prompts(f"{name}: a\n0: b")),
    "function": (FUNCTIONS, lambda name: RenderSettings(guidance=f"1 + {name}(t)")),
    "variable": (
        [name for name in (*VARIABLES, "pi") if len(name) > 1],
        lambda name: RenderSettings(guidance=f"1 + {name}"),
    ),
    "variable of a key": (
        ("max_f", "fps"),
        lambda name: parse_prompts(f'{{"1 + {name}": "a"}}', num_frames=9),
    ),
    "extension": (FORMATS, lambda name: output_format(Path(f"out{name}"))),
    "model": (bundled_models(), find_model),
    "runtime": ((AUTO, *runtime_names()), open_runtime),
    "precision": (PRECISIONS, lambda name: open_runtime("onnxruntime", name)),
    "package": (PACKAGES, TensorRtPackage),
    "type of graphs": (GRAPH_DTYPES, lambda name: check_dtypes(["fp32", name])),
    "prediction type of a file": (PREDICTIONS, check_prediction),
    "setting of a plan": (
        [field.name for field in fields(RenderSettings)],
        lambda name: RenderRecord.from_json(_plan({name: 1})),
    ),
    **{
        f"encoder of {extension}": ((AUTO, *kind.encoders), _encoder(Path(f"out{extension}")))
        for extension, kind in FORMATS.items()
    },
}


def misspelled(name: str) -> Iterator[str]:
    """Yields a name with each of its letters doubled, besides what may begin it."""
    for place, letter in enumerate(name):
        if letter.isalnum():
            yield name[: place + 1] + name[place:]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, (names, _) in NAMES.items() for name in names]
)
def test_the_name_that_was_meant_is_suggested(kind: str, name: str) -> None:
    names, use = NAMES[kind]
    # `dpm` with another d is a sampler too.
    for wrong in set(misspelled(name)).difference(names):
        with pytest.raises(GiffusionError) as caught:
            use(wrong)
        assert f"did you mean '{name}'? known: " in str(caught.value)


def test_a_samplers_other_name_is_suggested() -> None:
    for wrong in misspelled("UniPCMultistepScheduler"):
        with pytest.raises(GiffusionError, match="did you mean 'UniPCMultistepScheduler'"):
            canonical_sampler(wrong)


ACTIONS = {"engines": ("ls", "rm", "verify"), "models": ("ls", "add", "rm", "verify")}
OPTIONS_OF_ACTIONS = [
    ("engines ls", "--json"),
    ("engines rm", "--all"),
    ("engines verify", "--model"),
    ("models ls", "--json"),
    ("models add", "--name"),
]


def options() -> Iterator[tuple[str, str]]:
    """Yields each command, with an action where it has some, and each of its options."""
    for command, parser in _parsers()[1].items():
        if command != "engines":
            for option in re.findall(r"(?m)^  (?:-.*, )?(--[a-z][a-z-]*)", parser.format_help()):
                yield command, option
    yield from OPTIONS_OF_ACTIONS


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("command", "option"), sorted(set(options())))
def test_options_are_suggested(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    required = {
        "render": ["-o", "out.mp4"],
        "audio": ["song.mp3"],
        "video": ["film.mp4"],
        "build": ["mini"],
        "inspect": ["out.mp4"],
        "export": ["sd", "-o", "out"],
        "convert": ["a.ckpt", "-o", "a.safetensors"],
        "models add": ["model"],
    }
    begin = [*command.split(), *required.get(command, [])]
    for wrong in misspelled(option):
        assert f"did you mean '{option}'?" in refusal([*begin, wrong], capsys)


@pytest.mark.parametrize("command", sorted(_parsers()[1]))
def test_commands_are_suggested(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in misspelled(command):
        assert f"did you mean '{command}'?" in refusal([wrong], capsys)


@pytest.mark.parametrize(
    ("command", "action"), [(name, action) for name, all_ in ACTIONS.items() for action in all_]
)
def test_actions_are_suggested(
    command: str, action: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong in misspelled(action):
        assert f"did you mean '{action}'?" in refusal([command, wrong], capsys)


def test_options_of_the_program_are_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in misspelled("--version"):
        assert "did you mean '--version'?" in refusal([wrong], capsys)
