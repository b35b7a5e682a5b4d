"""Renders logged to Comet: into archives that are opened here, and to a Comet that is not there."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import threading
import zipfile
from collections import defaultdict
from dataclasses import dataclass, field, replace
from fractions import Fraction
from importlib.machinery import ModuleSpec
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from giffusion.engine.encode import choose_encoder, open_writer
from giffusion.engine.errors import OutputError, RuntimeUnavailableError, SettingsError
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import load_model
from giffusion.engine.rendering import RenderResult, render
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model
from giffusion.server.comet import Tracker, open_tracker
from giffusion.server.comet_facts import shared_values, without_folders
from giffusion.server.comet_frames import preview_step, read_frames
from giffusion.server.comet_options import add_comet_options
from giffusion.server.comet_target import CometTarget, parse_target
from giffusion.server.settings_text import settings_text

PROMPTS = "0: a corgi\n4: a lion | a storm::0.5 --neg fog\n"


@dataclass
class Lines:
    """What a tracker says."""

    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def open(self, target: str) -> Tracker:
        def warn(text: str) -> None:
            self.warnings.append(text)
            self.threads.add(threading.get_ident())

        return open_tracker(target, on_warning=warn, on_note=self.notes.append)


@dataclass
class Archive:
    """What stands in an archive."""

    parameters: dict[str, Any]
    metrics: dict[str, Any]
    frames: dict[int, Image.Image]
    assets: dict[str, bytes]
    text: str

    @classmethod
    def read(cls, folder: Path) -> Archive:
        (path,) = folder.glob("*.zip")
        found: dict[str, dict[Any, Any]] = defaultdict(dict)
        with zipfile.ZipFile(path) as file:
            text = file.read("messages.json").decode() + file.read("experiment.json").decode()
            for line in file.read("messages.json").decode().splitlines():
                message = json.loads(line)
                payload = message["payload"]
                if message["type"] == "parameter_msg":
                    parameter = payload["param"]
                    if parameter["source"] == "manual":
                        found["parameters"][parameter["paramName"]] = parameter["paramValue"]
                elif message["type"] == "metric_msg":
                    metric = payload["metric"]
                    found["metrics"][metric["metricName"]] = metric["metricValue"]
                elif payload.get("upload_type") == "visualization":
                    picture = Image.open(io.BytesIO(file.read(payload["file_path"])))
                    found["frames"][payload["additional_params"]["step"]] = picture
                elif message["type"] == "file_upload":
                    name = payload["additional_params"]["fileName"]
                    found["assets"][name] = file.read(payload["file_path"])
        names = ("parameters", "metrics", "frames", "assets")
        return cls(**{name: found[name] for name in names}, text=text)


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture(autouse=True)
def _no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the user's own settings of Comet away."""
    for name in ("COMET_API_KEY", "COMET_CONFIG", "COMET_PROJECT_NAME", "COMET_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def planned(**settings: Any) -> Timeline:
    values: dict[str, Any] = {"steps": 1, "fps": Fraction(8), "size": (128, 128), **settings}
    return Timeline.from_text(PROMPTS, RenderSettings(**values))


def rendered(output: Path, timeline: Timeline) -> RenderResult:
    return render(
        timeline, output, model=load_model(find_model("mini")), runtime=FakeRuntime(), batch=8
    )


def test_a_render_is_logged_whole(tmp_path: Path, lines: Lines) -> None:
    Image.new("RGB", (128, 128), "red").save("start.png")
    image = str(tmp_path / "start.png")
    timeline = planned(image=image, steps=2, sampler="euler", seed=7, fixed_latent=True)
    tracker = lines.open("offline:archive")
    output = tmp_path / "walk.mp4"
    tracker.begin(
        timeline,
        model="/home/me/mini",
        output=output,
        media=[Path("start.png")],
        settings_file="steps = 1\n",
    )
    result = rendered(output, timeline)
    tracker.finish(result)
    tracker.close()
    assert lines.warnings == []
    archive = Archive.read(tmp_path / "archive")
    (path,) = (tmp_path / "archive").iterdir()
    assert lines.notes == [f"comet: logged to {path}"]
    known = {
        "steps": 2,
        "guidance": 3.0,
        "sampler": "euler",
        "seed": 7,
        "fps": "8",
        "audio_component": "both",
        "image": "start.png",
        "output_format": "MP4",
        "model": "mini",
        "num_frames": 5,
        "num_key_frames": 2,
        "prompts": PROMPTS,
        "numerics_runtime": "fake",
        "numerics_encoder": "libx264",
    }
    assert {name: archive.parameters[name] for name in known} == known
    assert str(archive.parameters["fixed_latent"]).lower() == "true"
    assert archive.metrics["elapsed_s"] == pytest.approx(result.elapsed_s)
    assert sorted(archive.frames) == [0, 1, 2, 3, 4]
    for frame, logged in zip(read_frames(output), archive.frames.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(logged.convert("RGB")), np.asarray(frame))
    assert set(archive.assets) == {
        *("prompts.txt", "giffusion.json", "giffusion.toml", "walk.mp4"),
        *("preview.gif", "input/start.png"),
    }
    assert archive.assets["walk.mp4"] == output.read_bytes()
    assert archive.assets["prompts.txt"].decode() == PROMPTS
    preview = Image.open(io.BytesIO(archive.assets["preview.gif"]))
    assert preview.size == (128, 128)
    record = RenderRecord.from_json(archive.assets["giffusion.json"].decode())
    assert record.settings == replace(timeline.settings, image="start.png")
    # Nothing of the machine is in it.
    texts = [archive.text, archive.assets["giffusion.json"].decode()]
    for word in ("/home/me", "hostname", str(tmp_path), "installed_packages", "git"):
        assert not any(word in text for text in texts)


def test_an_interrupted_render_logs_what_there_is(tmp_path: Path, lines: Lines) -> None:
    timeline = planned()
    written("kept.gif", 3)
    tracker = lines.open("offline:archive")
    tracker.begin(timeline, model="mini", output=tmp_path / "walk.gif")
    error = KeyboardInterrupt()
    error.add_note("the frames that were finished are in kept.gif")
    tracker.fail(error)
    tracker.close()
    assert lines.warnings == []
    archive = Archive.read(tmp_path / "archive")
    assert archive.parameters["error"] == "interrupted"
    assert sorted(archive.frames) == [0, 1, 2]
    assert "kept.gif" in archive.assets


def test_a_killed_render_leaves_an_archive(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from giffusion.server.comet import open_tracker\n"
        "from giffusion.engine.timelines.timeline import Timeline\n"
        "from giffusion.engine.settings import RenderSettings\n"
        "tracker = open_tracker('offline:archive')\n"
        "plan = Timeline.from_text('0: a corgi', RenderSettings())\n"
        "tracker.begin(plan, model='mini', output=Path('a.gif'))\n"
        "while tracker._answers.empty(): time.sleep(0.05)\n"
        "print(tracker._worker.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=".")
    assert done.returncode == -9
    wait_for_end(int(done.stdout))
    assert Archive.read(tmp_path / "archive").parameters["model"] == "mini"


def wait_for_end(pid: int) -> None:
    """Waits for a process that is not ours to wait for."""
    status = Path(f"/proc/{pid}/stat")
    for _ in range(1200):
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"process {pid} does not end")


@pytest.mark.parametrize("has_key", [False, True], ids=["no key", "no network"])
def test_a_comet_that_is_not_there_is_one_warning(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch, has_key: bool
) -> None:
    if has_key:
        monkeypatch.setenv("COMET_API_KEY", "none")
        monkeypatch.setenv("COMET_URL_OVERRIDE", "http://127.0.0.1:9/clientlib/")
        for name in ("HTTP_SESSION", "GET_OR_ADD_EXPERIMENT"):
            monkeypatch.setenv(f"COMET_{name}_RETRY_TOTAL", "0")
            monkeypatch.setenv(f"COMET_{name}_RETRY_BACKOFF_FACTOR", "0")
    tracker = lines.open("me/films")
    tracker.begin(planned(), model="mini", output=tmp_path / "walk.gif")
    tracker.fail(ValueError("out of steam"))
    tracker.close()
    tracker.close()
    (warning,) = lines.warnings
    assert warning.startswith("comet: not all of the render is logged: ")
    assert "\n" not in warning
    assert ("onnection" if has_key else "COMET_API_KEY") in warning
    assert lines.threads == {threading.get_ident()}
    assert lines.notes == []


def test_what_is_missing_is_a_warning_and_the_rest_is_logged(tmp_path: Path, lines: Lines) -> None:
    tracker = lines.open("offline:archive")
    tracker.begin(planned(), model="mini", output=tmp_path / "walk.gif")
    stats: Any = None
    tracker.finish(RenderResult(tmp_path / "gone.gif", 5, (8, 8), 1.0, {"batch": 8}, stats))
    tracker.close()
    (warning,) = lines.warnings
    assert "gone.gif" in warning
    assert Archive.read(tmp_path / "archive").parameters["numerics_batch"] == 8


def test_one_asset_that_fails_costs_no_other(tmp_path: Path, lines: Lines) -> None:
    timeline = planned()
    Path("folder").mkdir()  # what comet_ml raises for, and not only says an error of
    tracker = lines.open("offline:archive")
    tracker.begin(
        timeline,
        model="mini",
        output=tmp_path / "walk.gif",
        media=[Path("folder"), written("film.gif", 1)],
    )
    tracker.finish(rendered(tmp_path / "walk.gif", timeline))
    tracker.close()
    assert len(lines.warnings) == 1
    archive = Archive.read(tmp_path / "archive")
    assert {"input/film.gif", "walk.gif", "preview.gif"} <= archive.assets.keys()
    preview = Image.open(io.BytesIO(archive.assets["preview.gif"]))
    # As fast as the film: five frames at eight a second.
    assert preview.info["duration"] == pytest.approx(125, abs=10)


def test_a_file_whose_frames_cannot_be_read_is_logged_whole(tmp_path: Path, lines: Lines) -> None:
    whole = written("walk.gif", 5).read_bytes()
    cut = tmp_path / "cut.gif"
    cut.write_bytes(whole[: len(whole) // 2] + b"\0" * 8)
    tracker = lines.open("offline:archive")
    tracker.begin(planned(), model="mini", output=cut)
    stats: Any = None
    tracker.finish(RenderResult(cut, 5, (64, 32), 1.0, {}, stats))
    tracker.close()
    assert len(lines.warnings) == 1
    archive = Archive.read(tmp_path / "archive")
    assert archive.assets["cut.gif"] == cut.read_bytes()
    assert len(archive.frames) < 5
    assert ("preview.gif" in archive.assets) == (len(archive.frames) > 0)


def test_an_interrupted_render_waits_for_no_sign_of_progress(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = 'import time\nwhile True: print(\'{"stage": "frame"}\', flush=True); time.sleep(0.02)'
    popen = subprocess.Popen

    def talking(*_: object, **options: Any) -> subprocess.Popen[str]:
        return popen([sys.executable, "-c", talk], **options)

    monkeypatch.setattr(subprocess, "Popen", talking)
    monkeypatch.setattr("giffusion.server.comet.INTERRUPTED_S", 0.5)
    tracker = lines.open("offline:archive")
    tracker.begin(planned(), model="mini", output=tmp_path / "walk.gif")
    tracker.fail(KeyboardInterrupt())
    began = monotonic()
    tracker.close()
    assert 0.4 < monotonic() - began < 5
    assert lines.warnings == ["comet: not all of the render is logged: gave up after 0 s"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/me/a.png cannot be read", "a.png cannot be read"),
        ("/home/my name/a.png cannot be read", "a.png cannot be read"),
        ("frame 3 has no map: /home/my name/maps/00003.png is missing", "00003.png is missing"),
        ("clips/b.mp4 is damaged", "b.mp4 is damaged"),
        ("write in ~/films, '/tmp/a/b.mp4' (../c.mp4)", "write in films, 'b.mp4' (c.mp4)"),
        ("fps 30000/1001 and 1/3, and/or H/8", "fps 30000/1001 and 1/3, and/or H/8"),
        ("aclips/b.mp4", "aclips/b.mp4"),
    ],
)
def test_a_message_is_logged_without_folders(text: str, shown: str) -> None:
    paths = ["/home/my name/a.png", "/home/my name/maps/%05d.png", "clips/b.mp4", "mini"]
    assert without_folders(text, paths).endswith(shown)
    assert "my name" not in without_folders(text, paths)


def test_shared_settings_have_names_alone(tmp_path: Path) -> None:
    options = {
        "file": Path("/home/me/film.txt"),
        "image": "/home/me/a.png",
        "control": "/home/me/maps/%05d.png",
        "output": tmp_path / "a.gif",
        "model": "/home/me/sd15",
        "comet": "offline:/home/me/runs",
        "seed": "7",
        "negative": "a/b",
        "audio": None,
    }
    text = settings_text(shared_values(options), Path("giffusion.toml"))
    assert "/home/me" not in text
    assert str(tmp_path) not in text
    for line in (
        *('file = "film.txt"', 'image = "a.png"', 'control = "%05d.png"', 'output = "a.gif"'),
        *('target = "offline:runs"', 'negative = "a/b"', "seed = 7"),
    ):
        assert line in text
    assert shared_values({"comet": "me/films", "model": "mini"}) == {
        "comet": "me/films",
        "model": "mini",
    }


def test_a_tracker_that_never_began_is_silent(lines: Lines) -> None:
    tracker = lines.open("offline:archive")
    tracker.fail(ValueError("the prompts are wrong"))
    tracker.close()
    assert (lines.warnings, lines.notes, list(Path("archive").iterdir())) == ([], [], [])


def test_comet_stays_out_of_the_process(lines: Lines) -> None:
    script = (
        "import sys\n"
        "from giffusion.server.comet import open_tracker\n"
        "open_tracker('offline:archive').close()\n"
        "print([name for name in sys.modules if name.startswith(('comet_ml', 'av.', 'PIL'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def written(name: str, num_frames: int) -> Path:
    """Writes frames that grow lighter."""
    path = Path(name)
    size, fps = (64, 32), Fraction(8)
    choice, _ = choose_encoder(path, "auto", on_device=False, size=size, fps=fps)
    with open_writer(
        path, size=size, fps=fps, num_frames=num_frames, metadata="", encoder=choice.name
    ) as writer:
        for index in range(num_frames):
            shape = writer.pixel_format.shape(size)
            level = 30 + 20 * index
            frame = np.full(shape, level, np.uint8)
            if writer.pixel_format is not PixelFormat.RGB24:
                frame[size[1] :] = 128
            writer.write(index, frame)
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.webp", "a.avif", "frames/%d.png"])
def test_every_format_is_read_back(name: str) -> None:
    path = written(name, 11)
    frames = list(read_frames(path))
    assert [frame.size for frame in frames] == [(64, 32)] * 11
    levels = [float(np.asarray(frame).mean()) for frame in frames]
    assert levels == sorted(levels)
    assert np.diff(levels).min() > 10
    if "/" in name:
        assert [frame.tobytes() for frame in read_frames(path.parent)] == [
            frame.tobytes() for frame in frames
        ]


def test_a_preview_stays_small() -> None:
    assert [preview_step(number) for number in (1, 48, 49, 1000)] == [1, 1, 2, 21]


def test_targets() -> None:
    assert parse_target("films") == CometTarget(project="films")
    assert parse_target("me/films") == CometTarget(project="films", workspace="me")
    folder = Path("a/b").absolute()
    assert parse_target("offline:a/b") == CometTarget(folder=str(folder))
    assert folder.is_dir()


@pytest.mark.parametrize("target", ["", "/", "a/", "/a", "a/b/c", " a", "a\nb", "x" * 101])
def test_what_is_no_target(target: str) -> None:
    with pytest.raises(SettingsError, match="is no project: expected") as caught:
        open_tracker(target)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_be() -> None:
    Path("file").write_text("")
    with pytest.raises(SettingsError, match="names no folder"):
        open_tracker("offline:")
    for folder, reason in (("file", "File exists"), ("file/x", "Not a directory")):
        with pytest.raises(OutputError, match=f"{folder} cannot be made: {reason}"):
            open_tracker(f"offline:{folder}")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class Absent:
        def find_spec(
            self, name: str, path: object, target: ModuleType | None
        ) -> ModuleSpec | None:
            if name == "comet_ml":
                raise ModuleNotFoundError("No module named 'comet_ml'", name=name)
            return None

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'giffusion\[comet\]'"):
        open_tracker("films")


def test_the_option() -> None:
    parser = argparse.ArgumentParser()
    add_comet_options(parser)
    assert parser.parse_args([]).comet is None
    assert parser.parse_args(["--comet", "offline:a"]).comet == "offline:a"
