"""The benchmark of sound runs to its end; its song is what it says."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

from benchmarks import audio
from benchmarks.song import write_song
from giffusion.engine.audio.analysis import analyse
from giffusion.engine.audio.options import AudioOptions


def test_every_component_has_its_figures(tmp_path: Path) -> None:
    audio.main(["--quick", "--output", str(tmp_path / "audio.json")])
    result = json.loads((tmp_path / "audio.json").read_text(encoding="utf-8"))
    assert [row["component"] for row in result["contestants"]] == list(audio.COMPONENTS)
    assert all(row["times_real_time"] > 0 for row in result["contestants"])
    assert str(tmp_path) not in json.dumps(result)


def test_the_song_has_its_beats(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wav", 8)
    found = analyse(song, Fraction(24), AudioOptions()).onsets()
    assert [round(24 * time_s) for time_s in found] == list(range(0, 192, 6))
