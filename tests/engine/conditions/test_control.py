"""Maps: a file a frame, read as pictures are, and carried by a frame from slot to slot."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.checks import check_job
from giffusion.engine.conditions.control import map_file, map_reader, maps_digest
from giffusion.engine.conditions.sources import source_digests
from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import Model, load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.record import RenderRecord
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda, SimulatedRuntime

PLAIN = load_model(find_model("mini"))
SIZE = (32, 32)
NUM_FRAMES = 19
PROMPTS = f"0: a dog\n{NUM_FRAMES - 1}: a lion"


def steered_model() -> Model:
    """Returns the bundled model as if it had a ControlNet; the fake runtime reads no graphs."""
    graphs = {**PLAIN.manifest.graphs, "control": "0" * 64}
    return replace(PLAIN, manifest=replace(PLAIN.manifest, control_dim=16, graphs=graphs))


MODEL = steered_model()


class Sink:
    """Keeps a job's frames."""

    pixel_format = PixelFormat.RGB24
    on_device = False
    backlog = 0

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def write(self, index: int, frame: Frame) -> None:
        assert isinstance(frame, np.ndarray)
        self.frames.append(frame.tobytes())


@pytest.fixture
def maps(tmp_path: Path) -> str:
    """The pattern of a map for each frame, all different."""
    for frame in range(NUM_FRAMES):
        Image.new("RGB", SIZE, (frame * 13,) * 3).save(tmp_path / f"{frame:03}.png")
    return str(tmp_path / "%03d.png")


def steered(control: str | None, **changes: object) -> RenderSettings:
    settings = RenderSettings(size=SIZE, steps=3, guidance=1.0, control=control)
    return replace(settings, **changes)  # type: ignore[arg-type]


def rendered(
    settings: RenderSettings,
    runtime: Runtime | None = None,
    *,
    model: Model = MODEL,
    batch: int = 16,
    shrink_tail: bool = False,
) -> list[bytes]:
    sink, timeline = Sink(), Timeline.from_text(PROMPTS, settings)
    with Engine(
        model, runtime or FakeRuntime(), size=SIZE, batch=batch, shrink_tail=shrink_tail
    ) as engine:
        job = engine.submit("job", timeline, settings, sink)
        engine.run()
    if job.error is not None:
        raise job.error
    return sink.frames


def test_each_frame_has_its_own_map_whatever_shares_its_batch(maps: str) -> None:
    frames = rendered(steered(maps))
    assert rendered(steered(maps), batch=1) == frames
    assert len(set(frames)) == NUM_FRAMES
    one = rendered(steered(map_file(maps, 5).as_posix()))
    assert [a == b for a, b in zip(frames, one, strict=True)] == [f == 5 for f in range(NUM_FRAMES)]


@pytest.mark.parametrize("seed", [None, 1, 2, 3])
def test_a_map_moves_with_its_frame_on_a_late_device(maps: str, seed: int | None) -> None:
    runtime = SimulatedRuntime(cuda=SimulatedCuda(seed=seed), batches=(2, 4, 16))
    settings = steered(maps, steps="0:(3), 18:(9)")
    assert rendered(settings, runtime, shrink_tail=True) == rendered(settings)
    assert runtime.num_runs["control"] == NUM_FRAMES
    runtime.close()


def test_frames_without_a_map_are_those_of_the_model_without(maps: str) -> None:
    plain = rendered(steered(None), model=PLAIN)
    assert rendered(steered(None)) == plain
    runtime = FakeRuntime()
    frames = rendered(steered(maps, control_scale="0:(0), 9:(0), 10:(1)"), runtime)
    assert frames[:10] == plain[:10]
    assert not set(frames[10:]) & set(plain)
    assert runtime.num_runs["control"] == NUM_FRAMES - 10


def test_the_scale_of_a_frame_is_its_own(maps: str) -> None:
    rising = rendered(steered(maps, control_scale="0:(0), 18:(2)"))
    assert rising[9] == rendered(steered(maps))[9]
    assert rising[18] == rendered(steered(maps, control_scale=2))[18]


def test_a_map_is_needed_where_it_steers_and_nowhere_else(maps: str) -> None:
    gone = map_file(maps, 7)
    gone.unlink()
    message = (
        f"frame 7 has no map: {gone} is missing; expected a picture by --control for every frame "
        "whose control_scale is not 0"
    )
    for attempt in (
        lambda: map_file(maps, 7),
        lambda: maps_digest(Timeline.from_text(PROMPTS, steered(maps))),
        lambda: rendered(steered(maps)),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert str(caught.value) == message
    without = steered(maps, control_scale="6:(1), 7:(0), 8:(1)")
    assert maps_digest(Timeline.from_text(PROMPTS, without)) is not None
    assert len(rendered(without)) == NUM_FRAMES


def test_maps_are_cut_and_resized_as_init_pictures(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    read = map_reader(str(tmp_path / "wide.png"), (16, 16))
    picture: NDArray[np.uint8] = read(0)
    assert picture.shape == (16, 16, 3)
    assert picture.mean() > 230
    assert read(5) is picture, "one picture is read once"


def test_a_digest_is_of_the_maps_that_steer(maps: str) -> None:
    def digest(settings: RenderSettings) -> str | None:
        return maps_digest(Timeline.from_text(PROMPTS, settings))

    assert digest(steered(None)) is None
    of_files = [
        hashlib.sha256(map_file(maps, frame).read_bytes()).hexdigest()
        for frame in range(NUM_FRAMES)
    ]
    lines = "".join(f"{sha}\n" for sha in of_files)
    assert digest(steered(maps)) == hashlib.sha256(lines.encode()).hexdigest()
    assert digest(steered(str(map_file(maps, 3)))) == of_files[3]
    part = steered(maps, control_scale="16:(1), 17:(0)")
    before = digest(part)
    map_file(maps, 18).write_bytes(b"another")
    assert digest(part) == before
    map_file(maps, 16).write_bytes(b"another")
    assert digest(part) != before


def test_a_record_keeps_the_digest_of_the_maps(maps: str) -> None:
    timeline = Timeline.from_text(PROMPTS, steered(maps, control_scale=0.5))
    record = RenderRecord.of(timeline, {}, source_digests(timeline))
    assert RenderRecord.from_json(record.to_json()) == record
    assert record.digests == {"control": maps_digest(record.timeline("out.gif"))}
    with pytest.raises(InputError, match="its plan is damaged"):
        RenderRecord.from_json(record.to_json().replace(f'"{record.digests["control"]}"', "5"))


def test_maps_go_with_a_controlnet_and_a_scale_with_maps(maps: str) -> None:
    settings = steered(maps)
    timeline = Timeline.from_text(PROMPTS, settings)
    check_job(MODEL, timeline, settings, batch=1)
    with pytest.raises(SettingsError, match="model 'mini' has no ControlNet, which --control"):
        check_job(PLAIN, timeline, settings, batch=1)
    with pytest.raises(SettingsError, match=r"control_scale is '0\.5' and there are no maps"):
        RenderSettings(control_scale="0.5")
    for scale in (-0.1, 2.1, "0:(1), 5:(3)"):
        with pytest.raises(SettingsError, match="control_scale"):
            Timeline.from_text(PROMPTS, steered(maps, control_scale=scale))


def test_a_plan_says_how_far_a_frame_is_steered(maps: str) -> None:
    assert [p.control_scale for p in Timeline.from_text("0: a\n1: b", steered(maps))] == [1, 1]
    (plan,) = Timeline.from_text("0: a", steered(None))
    assert plan.control_scale == 0
    assert plan.to_dict()["control_scale"] == 0
