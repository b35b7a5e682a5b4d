"""Renders that start from films, follow sounds and move, as a user makes them: whole files."""

from __future__ import annotations

import json
import shutil
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.encode import read_metadata
from giffusion.engine.errors import InputError
from giffusion.engine.media.sound import sound_blocks, sound_info
from giffusion.engine.media.video import FilmReader
from giffusion.engine.timelines.record import RenderRecord
from tests.engine.media.films import numbered, write_film
from tests.engine.media.sounds import write_sound
from tests.server.conftest import Command

FAST = "--steps 2 --size 64x64 --runtime onnxruntime --batch 8"
PROMPTS = "0: a dog"
Pixels = NDArray[np.uint8]


def write(num_frames: int) -> None:
    frames = (numbered(number, (96, 64)) for number in range(num_frames))
    write_film(Path("in.mp4"), frames, rate=Fraction(12))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("film.txt").write_text("0: a dog\n6: a lion\n")
    write(12)


def pictures(folder: str) -> list[Pixels]:
    return [np.asarray(Image.open(path)) for path in sorted(Path(folder).glob("*.png"))]


def test_a_film_gives_rate_and_number_and_each_frame_its_picture(program: Command) -> None:
    line = f"render --prompts '{PROMPTS}' --video in.mp4 --strength 0.5 {FAST}"
    assert program(f"{line} -o out/%05d.png")[0] == 0
    record = RenderRecord.from_json(read_metadata(Path("out")) or "")
    assert record.settings.fps == 12
    assert record.settings.num_frames == 12
    film = [
        Image.fromarray(frame.to_ndarray(format="rgb24"))
        for frame in av.open("in.mp4").decode(video=0)
    ]
    made = np.array(pictures("out"), float)
    film[7].save("one.png")
    one = f"render --prompts '{PROMPTS}' --image one.png --strength 0.5 {FAST}"
    assert program(f"{one} -o one/%05d.png")[0] == 0
    away = np.abs(made - pictures("one")[0]).mean((1, 2, 3))
    # Pictures are read with other rounding than films.
    assert np.argmin(away) == 7
    assert away[7] < 0.5 < np.delete(away, 7).min()


def test_a_render_from_a_film_is_made_again_until_the_film_changes(program: Command) -> None:
    line = f"render --prompts '{PROMPTS}' --video in.mp4 --video-stride 3 --resize pad {FAST}"
    assert program(f"{line} -o out.gif --fps 20")[0] == 0
    assert program("inspect out.gif --again -o again.gif")[0] == 0
    assert Path("again.gif").read_bytes() == Path("out.gif").read_bytes()
    write(13)
    status, _, said = program("inspect out.gif --again -o again.gif --force")
    assert status == 2
    assert "in.mp4 is not the film that the file was made from" in said


def test_frames_behind_the_end_of_the_film_are_refused_or_start_from_noise(
    program: Command,
) -> None:
    line = f"render --prompts '{PROMPTS}' --video in.mp4 --frames 13 {FAST} -o out.gif"
    status, _, said = program(f"{line} --fps 10")
    assert status == 2
    assert "frame 10 starts from in.mp4, which has 10 frames at this rate" in said
    assert not Path("out.gif").exists()
    assert program(f"{line} --fps 10 --strength '0:(0.5), 9:(0.5), 10:(1)'")[0] == 0


def write_clicks(path: str, times_s: list[float], seconds: float) -> None:
    samples = np.zeros((1, int(seconds * 44100)), np.float32)
    for time_s in times_s:
        samples[0, round(time_s * 44100) :][:400] = 0.9
    write_sound(Path(path), [(0, samples)], 44100)


def heard(path: str) -> NDArray[np.float32]:
    return np.concatenate(list(sound_blocks(Path(path))), axis=1)


def test_a_sound_moves_frames_and_is_heard_from_its_start(program: Command) -> None:
    write_clicks("song.flac", [0.5, 1.0, 1.25], 2.0)
    sound = "--audio song.flac --audio-start 0.5 --interpolation audio --fps 24"
    assert program(f"render film.txt {sound} {FAST} --frames 20 -o out.mp4")[0] == 0
    info = sound_info(Path("out.mp4"))
    assert info.rate == sound_info(Path("song.flac")).rate
    loudness = np.abs(heard("out.mp4")).max(axis=0)
    starts = np.flatnonzero(loudness > 0.3)
    assert starts[0] / info.rate < 0.001
    assert abs(starts[starts > 0.2 * info.rate][0] / info.rate - 0.5) < 0.001
    assert program("inspect out.mp4 --again -o again.mp4")[0] == 0
    assert Path("again.mp4").read_bytes() == Path("out.mp4").read_bytes()


def test_a_format_without_sound_says_so_and_mute_asks_for_none(program: Command) -> None:
    write_clicks("song.wav", [0.1], 1.0)
    status, _, said = program(f"render film.txt --audio song.wav {FAST} --fps 20 -o out.gif")
    assert status == 0
    assert ".gif carries no sound: write .mp4 or .webm to hear song.wav" in said
    assert program(f"render film.txt --audio song.wav --mute {FAST} -o out.mp4")[0] == 0
    with av.open("out.mp4") as file:
        assert not file.streams.audio


def test_the_film_is_heard_where_it_is_asked_for(program: Command) -> None:
    with av.open("loud.mp4", "w") as file, av.open("in.mp4") as film:
        video = file.add_stream_from_template(film.streams.video[0])
        audio = file.add_stream("aac", rate=48000, layout="mono")
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                file.mux(packet)
        samples = np.zeros((1, 48000), np.float32)
        samples[0, 24000:24400] = 0.9
        for at in range(0, 48000, 1000):
            block = av.AudioFrame.from_ndarray(samples[:, at : at + 1000], "fltp", "mono")
            block.rate, block.pts = 48000, at
            file.mux(audio.encode(block))
        file.mux(audio.encode())
    line = f"render --prompts '{PROMPTS}' --video loud.mp4 --keep-audio {FAST}"
    assert program(f"{line} -o out.mp4")[0] == 0
    loudness = np.abs(heard("out.mp4")).max(axis=0)
    assert abs(np.flatnonzero(loudness > 0.3)[0] / 48000 - 0.5) < 0.002
    status, _, said = program(f"{line.replace('loud', 'in')} -o none.mp4")
    assert status == 2
    assert "in.mp4 has no audio" in said


def test_moving_frames_are_made_again_and_cuts_are_rendered_side_by_side(
    program: Command,
) -> None:
    Path("film.txt").write_text("0: a dog\n4: a lion --cut\n8: a fox --cut\n11: a cat\n")
    motion = "--zoom '1 + t/100' --angle 3 --color-match --coherence 20 --padding reflection"
    line = f"render film.txt {motion} --steps 4 --size 64x64 --runtime onnxruntime"
    assert program(f"{line} -o out/%05d.png")[0] == 0
    assert len(pictures("out")) == 12
    assert program("inspect out --again -o again/%05d.png")[0] == 0
    for made, again in zip(pictures("out"), pictures("again"), strict=True):
        np.testing.assert_array_equal(made, again)
    assert program(f"{line} --batch 2 -o alone/%05d.png")[0] == 0
    for made, alone in zip(pictures("out"), pictures("alone"), strict=True):
        np.testing.assert_array_equal(made, alone)


def test_a_frame_can_be_sent_back_as_the_next_input(program: Command) -> None:
    assert program(f"render film.txt {FAST} -o out.mp4")[0] == 0
    shutil.copy("out.mp4", "first.mp4")
    line = f"render --prompts '{PROMPTS}' --video first.mp4 --strength 0.5 {FAST} -o second.mp4"
    assert program(line)[0] == 0
    record = RenderRecord.from_json(read_metadata(Path("second.mp4")) or "")
    assert record.settings.num_frames == 7


def test_a_render_is_logged_to_comet_and_wrong_ones_are_not(program: Command) -> None:
    Image.new("RGB", (64, 64), "red").save("start.png")
    here = Path.cwd()
    line = f"render film.txt {FAST} -o '{here}/out.gif' --fps 20 --comet offline:runs"
    line += f" --image '{here}/start.png' --save-config '{here}/used.toml'"
    assert program(f"{line} --sampler eulr")[0] == 2
    assert list(Path("runs").iterdir()) == []
    status, _, said = program(line)
    assert status == 0
    (archive,) = Path("runs").glob("*.zip")
    assert f"comet: logged to {archive.resolve()}" in said
    with zipfile.ZipFile(archive) as opened:
        messages = opened.read("messages.json").decode().splitlines()
        texts = [opened.read(name) for name in opened.namelist()]
    (settings,) = (text.decode() for text in texts if text.startswith(b"# Settings for"))
    assert 'image = "start.png"' in settings
    assert str(here) not in settings
    assert str(here) in Path("used.toml").read_text()
    uploads = [json.loads(line)["payload"] for line in messages if "visualization" in line]
    # Frames have their number as their step.
    assert sorted(frame["additional_params"]["step"] for frame in uploads) == list(range(7))


def test_a_film_is_closed_when_its_render_fails(
    program: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[FilmReader] = []
    close = FilmReader.close

    def noted(self: FilmReader) -> None:
        closed.append(self)
        close(self)

    def broken(self: FilmReader, frame: int) -> Pixels:
        raise InputError("in.mp4 is damaged at frame 0: repair it")

    monkeypatch.setattr(FilmReader, "close", noted)
    monkeypatch.setattr(FilmReader, "read", broken)
    status, _, said = program(f"render --prompts '{PROMPTS}' --video in.mp4 {FAST} -o out.gif")
    assert (status, "is damaged at frame 0" in said) == (2, True)
    assert len(closed) == 1
    assert not Path("out.gif").exists()
