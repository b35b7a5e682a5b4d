"""The engine on the fake runtime: frames in order and complete, and each a function of its plan.

The runtime's networks are cheap formulas; everything else is what renders with a model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from giffusion.engine.batching.jobs import PAUSING_BACKLOG, Job
from giffusion.engine.contract import STATE_ROWS, TABLE_COLUMNS, GraphSpec
from giffusion.engine.errors import DiskFullError, InputError, RenderError, SettingsError
from giffusion.engine.frames import Frame as AnyFrame
from giffusion.engine.frames import PixelFormat
from giffusion.engine.model import load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.runtimes.base import HostGraph, Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.sampler_names import BASE_SAMPLERS, MODIFIERS, split_sampler
from giffusion.engine.settings import MAX_BATCH, RenderSettings
from giffusion.engine.timelines.plans import FramePlan
from giffusion.engine.timelines.timeline import Timeline
from giffusion.models import find_model

MODEL = load_model(find_model("mini"))
SIZE = (32, 64)
Frame = NDArray[np.uint8]


class Sink:
    """Keeps what it is given; may fail at a frame, and may lag."""

    pixel_format = PixelFormat.RGB24
    on_device = False

    def __init__(
        self,
        frames: Iterable[Frame] = (),
        *,
        fail_at: int | None = None,
        error: Exception | None = None,
        backlog: int = 0,
    ) -> None:
        self.frames = list(frames)
        self.fail_at = fail_at
        self.error = error or RenderError("the sink is broken")
        self.backlog = backlog

    def write(self, index: int, frame: AnyFrame) -> None:
        assert index == len(self.frames), "out of order"
        if index == self.fail_at:
            raise self.error
        assert isinstance(frame, np.ndarray)
        assert frame.shape == self.pixel_format.shape(SIZE)
        assert frame.dtype == np.uint8
        self.frames.append(frame)

    def same_as(self, other: Sink) -> bool:
        return [f.tobytes() for f in self.frames] == [f.tobytes() for f in other.frames]


class WatchedRuntime(FakeRuntime):
    """The fake runtime, with the graphs that it loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: dict[str, HostGraph] = {}

    def load(
        self,
        path: Path,
        spec: GraphSpec,
        axes: Mapping[str, int],
        feedback: Mapping[str, str] | None = None,
    ) -> HostGraph:
        graph = super().load(path, spec, axes, feedback)
        self.graphs[spec.name] = graph
        return graph


@dataclass(frozen=True)
class Work:
    """A job's text and settings."""

    text: str
    settings: RenderSettings

    @property
    def timeline(self) -> Timeline:
        return Timeline(parse_prompts(self.text), self.settings)

    def submit(self, engine: Engine, name: str, sink: Sink, frames: range | None = None) -> Job:
        return engine.submit(name, self.timeline, self.settings, sink, frames=frames)


def work(text: str, **values: object) -> Work:
    return Work(text, replace(RenderSettings(size=SIZE, steps=3), **values))  # type: ignore[arg-type]


PICTURE = str(Path(__file__).parents[2] / "docs" / "weights.png")

WORKS = {
    "plain": work("0: a dog\n9: a lion", negative="grey"),
    "one row": work("0: a cat\n6: a fox\n11: a cat", guidance=1.0, steps=5, seed=4),
    "composed": work("0: a | b::2\n5: c | d::-0.5 | e\n8: f", sampler="ddim", steps=7),
    "ancestral": work("0: snow --seed 3\n7: rain --neg fog", sampler="euler_ads", steps=4),
    "ancestral too": work("0: snow --seed 3\n7: rain", sampler="euler_ads", steps=4, seed=1),
    "euler": work("0: hills\n4: sea", sampler="euler", steps=1, latents="lerp"),
    "long": work("0: a river", num_frames=30, embeddings="lerp", steps=2),
    "scheduled": work(
        "0: a | b\n12: c",
        guidance="0:(3), 8:(0.5), 12:(4+sin(t))",
        steps="0:(2), 6:(6), 12:(1 + t % 5)",
        noise="1 - t/max_f/5",
        seed="0:(3), 4:(5), 12:(7.5)",
        sampler="euler_ads",
    ),
    "eased": work(
        "0: fog --hold 0.3 --ease in-out\n6: sun\n10: rain --seed 9", interpolation="sine"
    ),
    "looped": work("2: a tree\n6: a house | smoke::0.5", loop=True, sampler="pndms", steps=4),
    "painted": work(
        "0: ink\n9: oil", image=PICTURE, strength="0:(0.3), 9:(1)", steps="4 + t % 3", seed=2
    ),
    "painted too": work(
        "0: ink\n3: oil", image=PICTURE, sampler="dpm_ads", fixed_latent=True, steps=7
    ),
    "bent": work(
        "0: x\n5: y", sampler="unipc", interpolation="curve", interpolation_args="sin(t/5)**2"
    ),
    "swayed": work("0: sand\n3: dune", sampler="ddim-trailing", eta=0.5, seed=6),
    "moving": work("0: leaf\n5: tree", zoom="1 + t/50", angle=3, strength="0:(0.3), 5:(1)"),
    "moving on": work(
        "0: leaf\n3: tree --cut\n6: wood\n8: sea --cut\n11: sky",
        translate_x=2,
        padding="zeros",
        color_match=True,
        coherence=20,
        image=PICTURE,
        seed="t",
    ),
    "matched": work("0: leaf\n4: tree | moss --cut", color_match=True, sampler="euler_ads"),
    **{
        f"with {name}": work("0: moss\n3: stone", sampler=name, steps=3, seed=8)
        for name in ("klms", "ddpm", "deis", "dpm", "lcm", "euler-karras")
    },
}
ROWS = {name: job.timeline.max_rows for name, job in WORKS.items()}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_engine() as engine:
        yield engine


def open_engine(batch: int = 8, runtime: Runtime | None = None) -> Engine:
    return Engine(MODEL, runtime or FakeRuntime(), size=SIZE, batch=batch)


def render(job: Work, *, batch: int = 8, frames: range | None = None) -> Sink:
    sink = Sink()
    with open_engine(batch) as engine:
        handle = job.submit(engine, "alone", sink, frames)
        engine.run()
    assert handle.done
    assert handle.error is None
    assert handle.num_emitted == len(sink.frames)
    return sink


@pytest.fixture(scope="module")
def alone() -> dict[str, Sink]:
    """Every job's frames, rendered by itself."""
    return {name: render(job) for name, job in WORKS.items()}


@pytest.mark.parametrize("name", WORKS)
def test_a_job_alone_is_complete_and_its_frames_differ(name: str, alone: dict[str, Sink]) -> None:
    frames = alone[name].frames
    assert len(frames) == len(WORKS[name].timeline)
    if name not in ("long", "looped", "eased"):  # which hold a key frame
        assert all(not np.array_equal(a, b) for a, b in pairwise(frames))


def test_the_jobs_here_cover_rows_samplers_and_seeds(alone: dict[str, Sink]) -> None:
    assert {1, 2, 4} <= {*ROWS.values()}
    samplers = {split_sampler(job.settings.sampler) for job in WORKS.values()}
    assert {base for base, _ in samplers} == {*BASE_SAMPLERS}
    assert {modifier for _, modifier in samplers} == {None, *MODIFIERS}
    first = {sink.frames[0].tobytes() for sink in alone.values()}
    assert len(first) == len(WORKS)


@settings(max_examples=25)
@given(
    names=st.permutations(sorted(WORKS)),
    batch=st.integers(max(ROWS.values()), 32),
    gaps=st.lists(st.integers(0, 6), min_size=len(WORKS), max_size=len(WORKS)),
)
def test_frames_do_not_depend_on_neighbours_order_or_batch(
    names: list[str], batch: int, gaps: list[int], alone: dict[str, Sink]
) -> None:
    sinks = {name: Sink() for name in names}
    with open_engine(batch) as engine:
        for name, gap in zip(names, gaps, strict=True):
            WORKS[name].submit(engine, name, sinks[name])
            for _ in range(gap):
                engine.tick()
        engine.run()
    for name, sink in sinks.items():
        assert sink.same_as(alone[name]), name


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("batch", [1, 2, 3, 5, 16, 32])
def test_frames_do_not_depend_on_the_batch(name: str, batch: int, alone: dict[str, Sink]) -> None:
    if batch < ROWS[name]:
        with pytest.raises(SettingsError, match=f"expected --batch {ROWS[name]} or more"):
            render(WORKS[name], batch=batch)
    else:
        assert render(WORKS[name], batch=batch).same_as(alone[name])


@given(data=st.data(), name=st.sampled_from(sorted(WORKS)))
@settings(max_examples=25)
def test_a_segment_is_that_part_of_the_whole(
    data: st.DataObject, name: str, alone: dict[str, Sink]
) -> None:
    whole = alone[name].frames
    starts = [chain.start for chain in WORKS[name].timeline.chains]
    start = data.draw(st.sampled_from(starts) if starts else st.integers(0, len(whole) - 1))
    stop = data.draw(st.integers(start + 1, len(whole)))
    assert render(WORKS[name], frames=range(start, stop)).same_as(Sink(whole[start:stop]))


@pytest.mark.parametrize(
    ("name", "frame", "text"),
    [
        ("plain", 0, "0: a dog"),
        ("one row", 11, "11: a cat"),
        ("ancestral", 7, "7: rain --neg fog"),
        ("eased", 6, "6: sun"),
        ("looped", 2, "2: a tree"),
        ("bent", 5, "5: y"),
    ],
)
def test_a_key_frame_alone_is_that_of_the_sequence(
    name: str, frame: int, text: str, alone: dict[str, Sink]
) -> None:
    single = Work(text, WORKS[name].settings)
    frames = render(single, frames=range(frame, frame + 1)).frames
    np.testing.assert_array_equal(frames, alone[name].frames[frame : frame + 1])


def test_a_loop_leads_back_to_its_first_frame(alone: dict[str, Sink]) -> None:
    frames = alone["looped"].frames
    looped = WORKS["looped"]
    open_end = Work(f"{looped.text}\n10: a tree", replace(looped.settings, loop=False))
    timeline = open_end.timeline
    seed = timeline[2].seeds[0]
    again = Work(f"{open_end.text} --seed {seed}", open_end.settings)
    whole = render(again).frames
    assert Sink(whole[:10]).same_as(alone["looped"])
    np.testing.assert_array_equal(whole[10], frames[0])


def test_a_picture_is_encoded_once_a_job_and_where_it_is_needed() -> None:
    runtime = FakeRuntime()
    with open_engine(8, runtime) as engine:
        for name in ("plain", "painted", "painted too"):
            WORKS[name].submit(engine, name, Sink())
        engine.run()
        assert runtime.num_runs["encode"] == 2
        work("0: a\n5: b", image=PICTURE, strength=1).submit(engine, "noise", Sink())
        engine.run()
        assert runtime.num_runs["encode"] == 2


def test_a_frame_of_strength_one_knows_no_picture(alone: dict[str, Sink]) -> None:
    painted = WORKS["painted"]
    noise = Work(painted.text, replace(painted.settings, image=None, strength=1.0))
    frames = render(noise).frames
    np.testing.assert_array_equal(frames[9], alone["painted"].frames[9])
    assert all(not np.array_equal(frames[i], alone["painted"].frames[i]) for i in range(9))


def test_a_picture_that_cannot_be_read_is_told_at_once(engine: Engine, tmp_path: Path) -> None:
    missing = tmp_path / "none.png"
    with pytest.raises(InputError, match=r"none\.png cannot be read: No such file or directory"):
        work("0: a", image=str(missing)).submit(engine, "job", Sink())
    assert not engine.tick()


def test_an_engine_takes_jobs_one_after_the_other(engine: Engine, alone: dict[str, Sink]) -> None:
    for name in ("plain", "composed", "plain"):
        sink = Sink()
        job = WORKS[name].submit(engine, "job", sink)
        engine.run()
        assert job.done
        assert sink.same_as(alone[name])
    assert not engine.tick()


@pytest.mark.parametrize("after", [0, 1, 4, 9])
def test_a_cancelled_job_stops_and_others_do_not_notice(
    after: int, engine: Engine, alone: dict[str, Sink]
) -> None:
    sinks = {name: Sink() for name in ("long", "plain", "ancestral")}
    jobs = {name: WORKS[name].submit(engine, name, sink) for name, sink in sinks.items()}
    for _ in range(after):
        engine.tick()
    engine.cancel("long")
    written = len(sinks["long"].frames)
    assert jobs["long"].done
    assert jobs["long"].error is None
    engine.run()
    assert len(sinks["long"].frames) == written < 30
    assert sinks["plain"].same_as(alone["plain"])
    assert sinks["ancestral"].same_as(alone["ancestral"])
    again = Sink()
    WORKS["long"].submit(engine, "long", again)
    engine.run()
    assert again.same_as(alone["long"])


def test_the_slots_of_a_cancelled_job_are_free_at_once() -> None:
    with open_engine(4) as engine:
        long = work("0: a", num_frames=50, steps=900)
        long.submit(engine, "long", Sink())
        engine.tick()
        sink = Sink()
        WORKS["euler"].submit(engine, "short", sink)
        engine.tick()
        assert not sink.frames
        engine.cancel("long")
        # Two frames of one step a tick: 4 rows, 2 for each.
        for _ in range(3):
            engine.tick()
        assert len(sink.frames) == 5


@pytest.mark.parametrize("error", [RenderError("broken pipe"), DiskFullError("no space left")])
@pytest.mark.parametrize("fail_at", [0, 3])
def test_a_failing_sink_fails_its_job_alone(
    error: RenderError, fail_at: int, engine: Engine, alone: dict[str, Sink]
) -> None:
    sinks = {name: Sink() for name in ("plain", "composed", "ancestral")}
    broken = Sink(fail_at=fail_at, error=error)
    failed = WORKS["long"].submit(engine, "broken", broken)
    jobs = [WORKS[name].submit(engine, name, sink) for name, sink in sinks.items()]
    engine.run()
    assert failed.done
    assert failed.error is error
    assert failed.num_emitted == len(broken.frames) == fail_at
    for job, (name, sink) in zip(jobs, sinks.items(), strict=True):
        assert job.done
        assert job.error is None
        assert sink.same_as(alone[name])


def test_an_error_of_another_kind_is_not_swallowed(engine: Engine) -> None:
    WORKS["plain"].submit(engine, "job", Sink(fail_at=0, error=ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        engine.run()


@pytest.mark.parametrize("end", ["rendered", "failed", "cancelled"])
def test_slots_that_no_frame_is_in_compute_nothing(end: str) -> None:
    """They have the identity table and no weights, whichever way their frames left."""
    runtime = WatchedRuntime()
    with open_engine(8, runtime) as engine:
        sink = Sink(fail_at=0 if end == "failed" else None)
        WORKS["long"].submit(engine, "job", sink)
        # One tick more than a frame takes: the second frames are under way.
        for _ in range(WORKS["long"].timeline[0].steps + 1):
            engine.tick()
        if end == "rendered":
            engine.run()
        engine.cancel("job")
        assert not engine.tick()
        WORKS["one row"].submit(engine, "one frame", Sink(), range(1))
        engine.tick()
        graph = runtime.graphs["denoise"]
        identity = np.eye(STATE_ROWS, TABLE_COLUMNS)
        tables, mix = graph.read("table"), graph.read("mix")
        assert [i for i, table in enumerate(tables) if not np.array_equal(table, identity)] == [0]
        assert np.argwhere(mix).tolist() == [[0, 0]]


def test_a_lagging_sink_pauses_its_job_alone(engine: Engine, alone: dict[str, Sink]) -> None:
    lagging, quick = Sink(backlog=PAUSING_BACKLOG), Sink()
    WORKS["long"].submit(engine, "lagging", lagging)
    WORKS["plain"].submit(engine, "quick", quick)
    for _ in range(100):
        assert engine.tick()
    assert not lagging.frames
    assert quick.same_as(alone["plain"])
    lagging.backlog = PAUSING_BACKLOG - 1
    engine.run()
    assert lagging.same_as(alone["long"])


def test_a_sink_that_begins_to_lag_gets_no_more_than_is_under_way(
    engine: Engine, alone: dict[str, Sink]
) -> None:
    sink = Sink()
    WORKS["long"].submit(engine, "job", sink)
    while len(sink.frames) < 8:
        engine.tick()
    sink.backlog = PAUSING_BACKLOG
    for _ in range(50):
        engine.tick()
    assert 8 <= len(sink.frames) <= 8 + engine.batch
    sink.backlog = 0
    engine.run()
    assert sink.same_as(alone["long"])


def test_close_cancels_every_job() -> None:
    sinks = [Sink(), Sink()]
    with open_engine() as engine:
        jobs = [WORKS["long"].submit(engine, f"job{i}", sink) for i, sink in enumerate(sinks)]
        engine.tick()
    assert [job.done for job in jobs] == [True, True]
    assert [job.error for job in jobs] == [None, None]
    for job in jobs:
        with pytest.raises(IndexError):
            job.chains[0].take()
    assert not engine.tick()
    engine.close()


@pytest.mark.parametrize("batch", [-1, 0, MAX_BATCH + 1])
def test_a_batch_out_of_range(batch: int) -> None:
    with pytest.raises(SettingsError) as caught:
        open_engine(batch)
    assert str(caught.value) == f"batch {batch} is out of range: expected 1 to {MAX_BATCH}"


def test_a_size_that_the_model_does_not_have() -> None:
    with pytest.raises(SettingsError, match="size 100x64 does not suit model 'mini'"):
        Engine(MODEL, FakeRuntime(), size=(100, 64))


@pytest.mark.parametrize("size", [None, (64, 64), (64, 32)])
def test_a_job_of_another_size(size: tuple[int, int] | None, engine: Engine) -> None:
    with pytest.raises(SettingsError, match=r"is not this engine's, 32x64"):
        work("0: a", size=size).submit(engine, "job", Sink())
    assert not engine.tick()


def test_a_frame_with_more_conditions_than_rows() -> None:
    with open_engine(3) as engine, pytest.raises(SettingsError) as caught:
        WORKS["composed"].submit(engine, "job", Sink())
    assert str(caught.value) == (
        "batch 3 has fewer rows than a frame needs, 4, one for each prompt and the negative: "
        "expected --batch 4 or more"
    )


def test_steps_that_the_sampler_cannot_take(engine: Engine) -> None:
    with pytest.raises(SettingsError, match="1000 steps do not fit"):
        work("0: a", steps=1000, sampler="dpm").submit(engine, "job", Sink())
    assert not engine.tick()


def test_a_name_that_is_queued_already(engine: Engine) -> None:
    WORKS["plain"].submit(engine, "job", Sink())
    with pytest.raises(ValueError, match="'job' is queued already"):
        WORKS["plain"].submit(engine, "job", Sink())


def test_the_stats_add_up() -> None:
    runtime = FakeRuntime()
    names = ["plain", "composed", "one row", "long"]
    with open_engine(8, runtime) as engine:
        for name in random.Random(1).sample(names, len(names)):
            WORKS[name].submit(engine, name, Sink())
        engine.run()
        stats = engine.stats
    timelines = [WORKS[name].timeline for name in names]
    plans = [plan for timeline in timelines for plan in timeline]
    assert stats.num_frames == runtime.num_runs["decode"] == len(plans)
    assert stats.num_ticks == runtime.num_runs["denoise"]
    assert stats.rows_busy == sum(len(plan.rows) * plan.steps for plan in plans)
    assert 0 < stats.num_full_ticks < stats.num_ticks
    assert 0.9 < stats.rows_busy_full / stats.num_full_ticks / engine.batch <= 1
    assert stats.rows_busy - stats.rows_busy_full <= 8 * (stats.num_ticks - stats.num_full_ticks)
    assert runtime.num_runs["text"] == len({p for t in timelines for p in t.prompts()})
    assert stats.denoise_s > 0
    assert stats.decode_s > 0


def test_the_numerics_say_what_bits_depend_on() -> None:
    with open_engine(4) as engine:
        assert engine.numerics == {
            "model": "mini",
            "fingerprint": MODEL.fingerprint,
            "runtime": "fake",
            "runtime_version": "1",
            "precision": "fp32",
            "batch": 4,
        }


class WatchedTimeline(Timeline):
    """A timeline that knows the last frame it was asked for."""

    furthest = 0

    def __getitem__(self, frame: int) -> FramePlan:
        self.furthest = max(self.furthest, frame)
        return super().__getitem__(frame)


def test_frames_are_planned_a_batch_ahead_and_no_further(engine: Engine) -> None:
    job = work("0: a\n999999: b")
    timeline = WatchedTimeline(parse_prompts(job.text), job.settings)
    sink = Sink()
    engine.submit("job", timeline, job.settings, sink)
    while len(sink.frames) < 40:
        engine.tick()
    # Those in the batch, at most 8, and 8 whose conditions are ready when they are admitted.
    assert timeline.furthest <= 40 + 8 + 8


@pytest.mark.parametrize("frames", [range(0), range(3, 3), range(99), range(-1, 2), range(0, 4, 2)])
def test_a_segment_outside_of_the_timeline_is_refused(frames: range) -> None:
    with Engine(MODEL, FakeRuntime(), size=SIZE) as engine:
        with pytest.raises(ValueError, match="is no segment of 10 frames"):
            WORKS["plain"].submit(engine, "a", Sink(), frames)
        assert not engine.tick()


@pytest.mark.parametrize("num_lanes", [2, 3])
def test_lanes_change_nothing_about_the_frames(num_lanes: int, alone: dict[str, Sink]) -> None:
    runtime = FakeRuntime()
    runtime.num_lanes = num_lanes
    sinks = {name: Sink() for name in WORKS}
    with open_engine(8, runtime) as engine:
        assert engine.num_rows == 8 * num_lanes
        jobs = [job.submit(engine, name, sinks[name]) for name, job in WORKS.items()]
        engine.tick()
        engine.cancel("euler")
        engine.run()
        assert engine.stats.rows_busy <= engine.stats.num_ticks * engine.num_rows
        assert engine.stats.rows_busy_full > 0.7 * engine.stats.num_full_ticks * engine.num_rows
    assert all(job.done and job.error is None for job in jobs)
    for name in WORKS.keys() - {"euler"}:
        assert sinks[name].same_as(alone[name]), name


def test_a_lane_that_fails_ends_the_run_and_not_the_process() -> None:
    class Broken(RuntimeError):
        """A device that is lost."""

    def lost(*_: object) -> None:
        raise Broken

    runtime = WatchedRuntime()
    runtime.num_lanes = 2
    with open_engine(4, runtime) as engine:
        WORKS["plain"].submit(engine, "job", Sink())
        engine.tick()
        setattr(runtime.graphs["denoise"], "run", lost)  # noqa: B010 - a protocol's method
        with pytest.raises(Broken):
            engine.run()
