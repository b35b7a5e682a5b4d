"""Frames that follow from each other: the same as by hand, one at a time, in any company."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.batching.following import Follower
from giffusion.engine.batching.frame_file import FrameFile
from giffusion.engine.batching.jobs import PAUSING_BACKLOG
from giffusion.engine.batching.scheduler import Scheduler
from giffusion.engine.conditions.noise import coherence_noise
from giffusion.engine.errors import InputError, SettingsError
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import Model
from giffusion.engine.motion.color_match import ColorMatch
from giffusion.engine.motion.warp import Motion, warp
from giffusion.engine.pipeline import Engine
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.plans import FramePlan
from giffusion.engine.timelines.timeline import Timeline
from tests.engine.frames import Frames

SIZE = (64, 32)
MOVING = RenderSettings(size=SIZE, steps=3, zoom=1.1, angle="4*t", translate_x=-3, strength=0.5)
TEXT = "0: a dog\n4: a lion"
Pixels = NDArray[np.uint8]


@pytest.fixture
def engine(mini: Model) -> Iterator[Engine]:
    with Engine(mini, FakeRuntime(), size=SIZE, batch=8) as engine:
        yield engine


def render(
    engine: Engine, text: str, settings: RenderSettings, frames: range | None = None
) -> list[Pixels]:
    sink = Frames()
    job = engine.submit("job", Timeline.from_text(text, settings), settings, sink, frames=frames)
    engine.run()
    assert job.error is None
    return sink.pictures


@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
@pytest.mark.parametrize("matched", [False, True])
def test_a_frame_is_what_its_moved_predecessor_makes_as_an_init_picture(
    engine: Engine, tmp_path: Path, padding: str, matched: bool
) -> None:
    settings = replace(MOVING, padding=padding, color_match=matched)
    chained = render(engine, TEXT, settings)
    alone = RenderSettings(size=SIZE, steps=3)
    by_hand = render(engine, TEXT, alone, range(1))
    for frame in range(1, 5):
        moved = warp(by_hand[-1], Motion(1.1, 4.0 * frame, -3.0), padding)
        if matched:
            moved = ColorMatch(by_hand[0]).match(moved)
        Image.fromarray(moved).save(tmp_path / "moved.png")
        painted = replace(alone, image=str(tmp_path / "moved.png"), strength=0.5)
        by_hand += render(engine, TEXT, painted, range(frame, frame + 1))
    np.testing.assert_array_equal(chained, by_hand)


def test_what_follows_differs_from_what_does_not(engine: Engine) -> None:
    free = render(engine, TEXT, RenderSettings(size=SIZE, steps=3))
    chained = render(engine, TEXT, MOVING)
    np.testing.assert_array_equal(chained[0], free[0])
    assert all(not np.array_equal(a, b) for a, b in zip(chained[1:], free[1:], strict=True))


CUTS = "0: a dog\n3: a lion --cut\n5: a fox\n8: a sea --cut\n9: a lake"


@pytest.mark.parametrize("more", [{}, {"color_match": True, "coherence": 40.0}])
def test_chains_are_rendered_side_by_side_and_do_not_know_of_each_other(
    mini: Model, engine: Engine, more: dict[str, float]
) -> None:
    settings = replace(MOVING, **more)  # type: ignore[arg-type]
    timeline = Timeline.from_text(CUTS, settings)
    assert timeline.chains == [range(3), range(3, 8), range(8, 10)]
    whole = render(engine, CUTS, settings)
    ticks = engine.stats.num_ticks
    parts = [picture for run in timeline.chains for picture in render(engine, CUTS, settings, run)]
    np.testing.assert_array_equal(whole, parts)
    # Side by side they take about as long as the longest, not as all of them.
    assert ticks < 0.75 * (engine.stats.num_ticks - ticks)


def test_jobs_share_the_batch_and_keep_their_frames(engine: Engine) -> None:
    alone = [render(engine, TEXT, replace(MOVING, seed=seed)) for seed in range(4)]
    before = engine.stats.num_ticks
    sinks = [Frames() for _ in alone]
    for seed, sink in enumerate(sinks):
        settings = replace(MOVING, seed=seed)
        engine.submit(f"job {seed}", Timeline.from_text(TEXT, settings), settings, sink)
    engine.run()
    np.testing.assert_array_equal([sink.pictures for sink in sinks], alone)
    assert engine.stats.num_ticks - before < 0.75 * before


def test_a_chain_may_stop_early_but_not_begin_late(engine: Engine) -> None:
    whole = render(engine, CUTS, MOVING)
    np.testing.assert_array_equal(render(engine, CUTS, MOVING, range(3, 6)), whole[3:6])
    with pytest.raises(ValueError, match=r"range\(4, 6\) begins inside of a chain"):
        render(engine, CUTS, MOVING, range(4, 6))


@pytest.fixture
def set_aside(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of frames that were written to a file to wait."""
    written: list[int] = []
    write = FrameFile.write

    def noted(self: FrameFile, place: int, frame: Pixels, index: int) -> None:
        written.append(index)
        write(self, place, frame, index)

    monkeypatch.setattr(FrameFile, "write", noted)
    return written


def test_frames_wait_on_disk_for_an_earlier_chain_and_leave_no_file(
    engine: Engine, tmp_path: Path, set_aside: list[int]
) -> None:
    sink = Frames()
    # The later chain is far ahead when the earlier one's only frame, of many steps, is finished.
    settings = replace(MOVING, steps="0:(60), 1:(2)")
    text = "0: a dog\n1: a lion --cut\n9: a fox"
    timeline = Timeline.from_text(text, settings)
    job = engine.submit("job", timeline, settings, sink, scratch=tmp_path)
    while not job.num_emitted:
        engine.tick()
        assert list(tmp_path.iterdir()) == []
    assert set_aside == list(range(1, 10))
    engine.run()
    np.testing.assert_array_equal(sink.pictures, render(engine, text, settings))


def test_one_chain_alone_needs_no_file(engine: Engine, set_aside: list[int]) -> None:
    render(engine, TEXT, MOVING)
    assert set_aside == []


def test_what_waited_is_handed_on_as_the_sink_takes_it(engine: Engine) -> None:
    class Slow(Frames):
        @property
        def backlog(self) -> int:  # type: ignore[override]
            return len(self.pictures) - self.encoded

        encoded = 0

    sink = Slow()
    text = "0: a dog\n1: a lion --cut\n39: a fox"
    settings = replace(MOVING, steps="0:(120), 1:(2)")
    job = engine.submit("job", Timeline.from_text(text, settings), settings, sink)
    most = 0
    while not job.done:
        before = len(sink.pictures)
        engine.tick()
        most = max(most, len(sink.pictures) - before)
        sink.encoded = min(sink.encoded + 2, len(sink.pictures))
    assert len(sink.pictures) == 40
    assert most <= PAUSING_BACKLOG + 1


def test_a_long_first_chain_does_not_wait_for_those_behind_it(mini: Model) -> None:
    cuts = "".join(f"{frame}: a cat --cut\n" for frame in range(40, 80))
    settings = replace(MOVING, num_frames=80)
    with Engine(mini, FakeRuntime(), size=SIZE, batch=2) as engine:
        # A lane of two rows has room for 8 frames in flight; 40 chains of one frame come after.
        assert len(render(engine, f"0: a dog\n{cuts}", settings)) == 80


@pytest.mark.parametrize(
    "text", ["0: a\n1: b --cut\n6: c", "0: a --cut\n1: b --cut\n2: c --cut\n4: d"]
)
def test_a_strength_of_following_frames_is_checked_before_they_are_queued(
    engine: Engine, text: str
) -> None:
    wrong = replace(MOVING, strength=0.05, steps=4)
    with pytest.raises(SettingsError, match="of 4 steps leaves no step to walk"):
        engine.submit("wrong", Timeline.from_text(text, wrong), wrong, Frames())
    assert len(render(engine, TEXT, MOVING)) == 5


def test_a_job_that_cannot_be_queued_leaves_nothing(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Scheduler, *arguments: object, **options: object) -> None:
        raise ValueError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Scheduler, "submit", broken)
        with pytest.raises(ValueError, match="no room"):
            render(engine, TEXT, MOVING)
    assert len(render(engine, TEXT, MOVING)) == 5


def test_a_sink_in_device_memory_takes_one_chain_alone(engine: Engine) -> None:
    class OnDevice(Frames):
        on_device = True

    timeline = Timeline.from_text(CUTS, MOVING)
    with pytest.raises(ValueError, match="the sink takes device memory"):
        engine.submit("job", timeline, MOVING, OnDevice())


def test_a_sink_of_another_format_gets_it_and_the_chain_its_picture(engine: Engine) -> None:
    class Nv12(Frames):
        pixel_format = PixelFormat.NV12

    sink = Nv12()
    engine.submit("job", Timeline.from_text(TEXT, MOVING), MOVING, sink)
    engine.run()
    luma = [picture[: SIZE[1]].astype(float) for picture in sink.pictures]
    rgb = np.array(render(engine, TEXT, MOVING), float)
    expected = 16 + rgb @ (219 / 255 * np.array([0.2126, 0.7152, 0.0722]))
    np.testing.assert_allclose(luma, expected, atol=1)


def test_a_chain_that_is_cancelled_lets_others_go_on(engine: Engine) -> None:
    whole = render(engine, TEXT, MOVING)
    sinks = [Frames(), Frames()]
    for name, sink in zip("ab", sinks, strict=True):
        engine.submit(name, Timeline.from_text(TEXT, MOVING), MOVING, sink)
    while len(sinks[0].pictures) < 2:
        engine.tick()
    engine.cancel("a")
    engine.run()
    np.testing.assert_array_equal(sinks[1].pictures, whole)
    assert len(sinks[0].pictures) < 5


def test_an_error_on_the_way_to_the_next_frame_ends_that_job_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow = Follower.follow

    def broken(self: Follower, plan: FramePlan, picture: Pixels) -> NDArray[np.float32]:
        if self._seed == 7:
            raise InputError("the picture is gone")
        return follow(self, plan, picture)

    monkeypatch.setattr(Follower, "follow", broken)
    bad, good = replace(MOVING, seed=7), MOVING
    sinks = [Frames(), Frames()]
    jobs = [
        engine.submit(str(i), Timeline.from_text(TEXT, settings), settings, sinks[i])
        for i, settings in enumerate((bad, good))
    ]
    engine.run()
    assert [str(job.error) for job in jobs] == ["the picture is gone", "None"]
    assert [len(sink.pictures) for sink in sinks] == [1, 5]


def test_coherence_is_its_formula_on_what_frames_start_from() -> None:
    settings = replace(MOVING, zoom=1.0, angle=None, translate_x=None, coherence=16.0)
    settings = replace(settings, coherence_alpha=0.5, coherence_noise=0.1)
    latents = [np.full((4, 4, 8), value, np.float32) for value in (1.0, 3.0)]
    follower = Follower(settings, lambda picture: latents[picture[0, 0, 0]], seed=5)
    plans = list(Timeline.from_text(TEXT, settings))
    pictures = [np.full((32, 64, 3), value, np.uint8) for value in range(2)]
    noise = [coherence_noise(5, frame, (4, 4, 8)) for frame in (1, 2)]
    first = 1 + 0.1 * noise[0]
    reference = 1 + 0.5 * (first - 1)
    second = 3 - 2 * 16 / 128 * (3 - reference) + 0.1 * noise[1]
    starts = [follower.follow(plans[i + 1], pictures[i]) for i in range(2)]
    np.testing.assert_allclose(starts, [first, second], rtol=1e-6)


def test_coherence_that_overshoots_is_refused(engine: Engine) -> None:
    with pytest.raises(SettingsError, match="coherence is 65: expected 0 to 64"):
        render(engine, TEXT, replace(MOVING, coherence=65.0))
