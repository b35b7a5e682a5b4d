"""`giffusion video`: what a film is, and the key frames that a render begins and ends with."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from giffusion.engine.prompts import parse_prompts
from giffusion.server.cli import main
from tests.engine.media.films import numbered_film

Capture = pytest.CaptureFixture[str]


def test_key_frames_are_ready_for_prompts(tmp_path: Path, capfd: Capture) -> None:
    film = numbered_film(tmp_path / "in.mp4", 30, rate=Fraction(30000, 1001))
    assert main(["video", str(film)]) == 0
    printed, said = capfd.readouterr()
    assert printed == "# 30000/1001 frames a second\n0: 0.00s\n29: 0.97s\n"
    assert [key.frame for key in parse_prompts(printed)] == [0, 29]
    assert said == (
        f"giffusion: {film}: 30 frames at 30000/1001 a second, 1.001 s of 64x48, without sound\n"
        "giffusion: rendered: 30 frames at 30000/1001 a second\n"
    )


def test_a_part_and_a_rate_of_the_render(tmp_path: Path, capfd: Capture) -> None:
    film = numbered_film(tmp_path / "in.mp4", 48)
    words = ["--start", "0.5", "--end", "1.5", "--stride", "2", "--fps", "12", "--json"]
    assert main(["video", str(film), *words]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert (facts["num_frames"], facts["fps"]) == (6, "12")
    assert (facts["film"]["num_frames"], facts["film"]["fps"]) == (48, "24")
    assert facts["film"]["duration_s"] == 2


def test_what_is_no_film_is_a_line(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "in.mp4"
    path.write_text("no film")
    assert main(["video", str(path)]) == 2
    assert capfd.readouterr().err.count("\n") == 1
