"""Megabytes where a word was expected: the message shows a piece of them, and stays a line."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from giffusion.engine.audio.options import AudioOptions
from giffusion.engine.errors import GiffusionError
from giffusion.engine.inspiration.topics import parse_topics
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.samplers.config import Config
from giffusion.engine.schedule import NoiseSchedule
from giffusion.engine.schedules.curves import parse_schedule
from giffusion.engine.schedules.easing import parse_interpolation
from giffusion.engine.schedules.expressions import parse_expression
from giffusion.engine.settings import RenderSettings
from giffusion.engine.values import parse_band, parse_fps, parse_seconds, parse_size
from giffusion.server.cli import MAX_MESSAGE, main
from giffusion.server.comet_target import parse_target
from tests.catalogue.slim import slim_checkpoint

MAX_LENGTH = 400
LONG = "eulr" * 2_500_000
MANY = "1, " * 3_000_000


def config(**values: object) -> Callable[[], object]:
    known: Config = values
    return lambda: NoiseSchedule.from_config(known)


CAUSES: dict[str, Callable[[], object]] = {
    "sampler": lambda: RenderSettings(sampler=LONG),
    "latents": lambda: RenderSettings(latents=LONG),
    "interpolation": lambda: RenderSettings(interpolation=LONG),
    "arguments of linear": lambda: RenderSettings(interpolation_args=LONG),
    "ease": lambda: parse_interpolation("ease", LONG),
    "frequency": lambda: parse_interpolation("sine", LONG),
    "frequencies": lambda: parse_interpolation("sine", MANY),
    "schedule": lambda: RenderSettings(guidance=LONG),
    "name in a schedule": lambda: parse_schedule("a" * 400_000, "guidance"),
    "number in a schedule": lambda: parse_schedule("0:(" + "9" * 9000 + ")", "guidance"),
    "value of a schedule": lambda: parse_schedule("1/0" + "*2" * 4000, "guidance"),
    "number": lambda: RenderSettings(guidance=10**4000),
    "whole number": lambda: RenderSettings(num_frames=10**4000),
    "seed": lambda: RenderSettings(seed=10**4000),
    "steps": lambda: RenderSettings(steps=10**4000),
    "rate": lambda: RenderSettings(fps=Fraction(10**4000)),
    "rate that is a word": lambda: parse_fps(LONG),
    "rate in digits": lambda: parse_fps("9" * 10_000_000),
    "size": lambda: parse_size(LONG),
    "side": lambda: RenderSettings(size=(10**4000, 64)),
    "padding": lambda: RenderSettings(padding=LONG),
    "resize": lambda: RenderSettings(resize=LONG),
    "zoom": lambda: RenderSettings(zoom=LONG),
    "component": lambda: AudioOptions(component=LONG),
    "margin": lambda: AudioOptions(margin=1e300),
    "start of a film": lambda: parse_seconds(LONG),
    "start in digits": lambda: parse_seconds("9" * 10_000_000),
    "band": lambda: parse_band(LONG),
    "topic": lambda: parse_topics(LONG),
    "topics": lambda: parse_topics(",".join(map(str, range(100_000)))),
    "place of Comet": lambda: parse_target(LONG),
    "negative": lambda: RenderSettings(negative="\udcff" + LONG),
    "head": lambda: RenderSettings(head="(" + LONG),
    "expression": lambda: parse_expression(LONG, ["t"]),
    "name in an expression": lambda: parse_expression(LONG[:9000], ["t"]),
    "class": config(_class_name=LONG),
    "betas": config(trained_betas=LONG),
    "many betas": config(trained_betas=[LONG] * 1000),
    "order": config(solver_order=LONG),
    "flag": config(thresholding=LONG),
    "fraction": config(beta_end=LONG),
    "text": lambda: parse_prompts(LONG),
    "word before a key": lambda: parse_prompts(LONG + ": a"),
    "key": lambda: parse_prompts("9" * 10_000_000 + ": a"),
    "key of JSON": lambda: parse_prompts('{"' + LONG + '": "a"}'),
    "prompt": lambda: parse_prompts("0: " + LONG),
    "prompts": lambda: parse_prompts("0: " + "a | " * 2_500_000),
    "weight": lambda: parse_prompts("0: a::" + LONG[:9000]),
    "option": lambda: parse_prompts("0: a --" + LONG + " 1"),
    "ease of a key frame": lambda: parse_prompts("0: a --ease " + LONG[:9000]),
    "seed of a key frame": lambda: parse_prompts("0: a --seed " + "9" * 9000),
    "hold": lambda: parse_prompts("0: a --hold " + LONG[:9000]),
    "weight of a word": lambda: parse_prompts("0: (a:" + "9" * 9000 + ")"),
    "JSON": lambda: parse_prompts("{" + LONG),
}


@pytest.mark.parametrize("name", CAUSES)
def test_a_message_stays_short(name: str) -> None:
    with pytest.raises(GiffusionError) as caught:
        CAUSES[name]()
    message = str(caught.value)
    assert len(message.partition("known: ")[0]) <= MAX_LENGTH
    assert message.isprintable()


LINES = [
    [LONG],
    ["--" + LONG],
    ["plan", LONG],
    ["plan", "film.txt", LONG],
    ["plan", "film.txt", "--" + LONG],
    ["plan", "film.txt", "--frames", LONG],
    ["plan", "film.txt", "--size", LONG],
    ["plan", "two\nlines.txt"],
    *(
        ["plan", "film.txt", f"--{option}", LONG]
        for option in ("video", "video-start", "audio-band", "config", "padding", "zoom")
    ),
    ["plan", "film.txt", "--interpolation", "audio", "--audio", LONG],
    ["audio", LONG],
    ["audio", "two\nlines.wav"],
    ["audio", "song.wav", "--detect", LONG],
    ["audio", "song.wav", "--plot", LONG],
    ["video", LONG],
    ["video", "two\nlines.mp4"],
    ["inspire", LONG],
    ["inspire", "--model", LONG],
    ["inspire", "--generator", LONG],
    ["render", "film.txt", "-o", LONG],
    ["render", "film.txt", "-o", LONG + ".mp4"],
    ["render", "film.txt", "-o", "two\nlines.mvo"],
    *(
        ["render", "film.txt", "-o", "out.mp4", f"--{option}", LONG]
        for option in ("encoder", "model", "runtime", "precision", "batch", "quality", "comet")
    ),
    ["render", "film.txt", "-o", "out.mp4", "--save-config", LONG],
    ["render", "film.txt", "-o", "out.mp4", "--comet", f"offline:{LONG}"],
    ["inspect", LONG],
    ["build", LONG],
    ["build", "mini", "--device", LONG],
    ["build", "mini", "--batch", LONG],
    ["export", LONG, "-o", "out"],
    ["export", "film.txt", "-o", LONG],
    *(
        ["export", "sd", "-o", "out", f"--{option}", LONG]
        for option in ("lora", "embedding", "decoder", "dtype", "prediction", "graphs")
    ),
    ["convert", LONG, "-o", "a.safetensors"],
    ["convert", "film.txt", "-o", LONG],
    ["models", LONG],
    ["models", "add", LONG],
    ["models", "rm", LONG],
    ["engines", LONG],
    ["engines", "rm", LONG],
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line)[:60])
def test_the_command_line_stays_short(
    line: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIFFUSION_CACHE", str(tmp_path))
    Path("film.txt").write_text("0: a corgi", "utf-8")
    if "sd" in line:
        slim_checkpoint(Path("sd"))
    try:
        code = main(line)
    except SystemExit as stop:  # argparse's own way out
        code = int(str(stop.code))
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith("giffusion: ")
    assert error.count("\n") == 1
    assert len(error) <= MAX_MESSAGE + 100
