"""Whole renders on a device that executes late: the same frames, and what happens without memory.

The device is simulated, its networks are the fake runtime's, so every frame can be compared with
the fake runtime's bit for bit: a missing wait, a buffer used again too early or a frame moved to
the wrong place shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from giffusion.engine.contract import GraphSpec
from giffusion.engine.encode import read_metadata
from giffusion.engine.errors import DeviceError, DeviceMemoryError
from giffusion.engine.frames import Frame, PixelFormat
from giffusion.engine.model import load_model
from giffusion.engine.pipeline import Engine
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.rendering import render
from giffusion.engine.runtimes.base import Runtime
from giffusion.engine.runtimes.fake import FakeRuntime
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline
from giffusion.engine.verification import compare_slots
from giffusion.models import find_model
from tests.engine.media.films import numbered_film
from tests.engine.runtimes.cuda.simulated_cuda import SimulatedCuda, SimulatedRuntime, failing

MODEL = load_model(find_model("mini"))
SIZE = (32, 32)
TEXTS = ("0: a dog\n9: a lion", "0: a | b::2 | c\n6: d", "0: snow\n4: rain", "0: sea")


@dataclass
class Sink:
    """Keeps a job's frames."""

    pixel_format: PixelFormat = PixelFormat.RGB24
    on_device: bool = False
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    backlog: int = 0

    def write(self, index: int, frame: Frame) -> None:
        assert index == len(self.frames)
        if self.on_device:
            assert not isinstance(frame, np.ndarray)
            self.frames.append(np.from_dlpack(frame).astype(np.uint8))
        else:
            assert isinstance(frame, np.ndarray)
            self.frames.append(frame)


@dataclass(frozen=True)
class Work:
    """One job of a mix."""

    text: str
    steps: int
    sampler: str
    guidance: float
    pixel_format: PixelFormat
    on_device: bool
    cancelled: bool

    @property
    def settings(self) -> RenderSettings:
        return RenderSettings(
            size=SIZE, steps=self.steps, sampler=self.sampler, guidance=self.guidance
        )


WORKS = st.builds(
    Work,
    st.sampled_from(TEXTS),
    st.integers(1, 5),
    st.sampled_from(["dpm++2m", "euler_ads"]),
    st.sampled_from([1.0, 5.0]),
    st.sampled_from(PixelFormat),
    st.booleans(),
    st.booleans(),
)


def render_mix(
    runtime: Runtime, works: list[Work], batch: int, *, shrink_tail: bool = False
) -> list[Sink]:
    """Renders all jobs in one queue; a cancelled one ends after the first tick."""
    with Engine(MODEL, runtime, size=SIZE, batch=batch, shrink_tail=shrink_tail) as engine:
        sinks = []
        for number, work in enumerate(works):
            sinks.append(Sink(work.pixel_format, work.on_device and runtime.on_device))
            timeline = Timeline(parse_prompts(work.text), work.settings)
            engine.submit(f"job {number}", timeline, work.settings, sinks[-1])
        engine.tick()
        for number, work in enumerate(works):
            if work.cancelled:
                engine.cancel(f"job {number}")
        engine.run()
    return sinks


def as_bytes(sinks: list[Sink], works: list[Work]) -> list[list[bytes]]:
    """The frames of the jobs that were not cancelled; how far those came is the device's affair."""
    pairs = zip(sinks, works, strict=True)
    return [[f.tobytes() for f in sink.frames] for sink, work in pairs if not work.cancelled]


@given(
    works=st.lists(WORKS, min_size=1, max_size=4),
    batch=st.sampled_from([4, 8, 16]),
    seed=st.none() | st.integers(0, 1000),
    cuda_graphs=st.booleans(),
    shrink_tail=st.booleans(),
)
@settings(max_examples=60)
def test_a_late_device_renders_what_the_host_does(
    works: list[Work], batch: int, seed: int | None, cuda_graphs: bool, shrink_tail: bool
) -> None:
    expected = as_bytes(render_mix(FakeRuntime(), works, batch), works)
    runtime = SimulatedRuntime(
        cuda=SimulatedCuda(seed=seed), cuda_graphs=cuda_graphs, batches=(4, 8, 16)
    )
    sinks = render_mix(runtime, works, batch, shrink_tail=shrink_tail)
    assert as_bytes(sinks, works) == expected
    del sinks
    runtime.close()


def test_the_tail_runs_in_smaller_batches_and_a_new_job_in_the_whole_one() -> None:
    runtime = SimulatedRuntime(batches=(2, 4, 16))
    settings_ = RenderSettings(size=SIZE, steps=3, guidance=1.0)
    timeline = Timeline(parse_prompts("0: a dog\n18: a lion"), settings_)
    sizes: list[int] = []
    with Engine(MODEL, runtime, size=SIZE, batch=16, shrink_tail=True) as engine:
        for name in ("first", "second"):
            job = engine.submit(name, timeline, settings_, Sink())
            while engine.tick():
                rows = engine._lanes.num_rows
                sizes += [rows] if sizes[-1:] != [rows] else []
            assert job.num_emitted == 19
        assert engine.numerics["shrink_tail"] is True
    # 19 frames: 16 in a full batch, and three for which one of four is enough.
    assert sizes == [16, 4, 16, 4]
    runtime.close()


def test_only_one_tick_is_waited_for_at_a_time() -> None:
    """The host is a tick ahead: it waits for a frame when the next tick is queued already."""
    runtime = SimulatedRuntime(batches=(2,))
    settings_ = RenderSettings(size=SIZE, steps=1, guidance=1.0)
    timeline = Timeline(parse_prompts("0: a dog\n7: a lion"), settings_)
    sink = Sink(PixelFormat.NV12)
    with Engine(MODEL, runtime, size=SIZE, batch=2) as engine:
        engine.submit("job", timeline, settings_, sink)
        for _ in range(3):
            engine.tick()
        before = len(runtime.cuda.calls)
        engine.tick()
        calls = runtime.cuda.calls[before:]
        engine.run()
    waits = [number for number, call in enumerate(calls) if call == "wait"]
    launches = [number for number, call in enumerate(calls) if call == "launch"]
    assert waits
    assert launches[0] < max(waits) < launches[1]
    assert len(sink.frames) == 8
    runtime.close()


def test_memory_that_does_not_suffice_frees_all_of_it() -> None:
    complete = SimulatedRuntime()
    with Engine(MODEL, complete, size=SIZE, batch=8):
        pass
    complete.close()
    for number in range(complete.cuda.num_allocations):
        runtime = SimulatedRuntime(cuda=SimulatedCuda(fail_allocation=number))
        with pytest.raises(DeviceMemoryError, match="memory is used up"):
            Engine(MODEL, runtime, size=SIZE, batch=8)
        assert not {"device", "pinned", "graphs"} & runtime.cuda.live.keys()
        runtime.close()


def memory_for(batch: int) -> int:
    """Bytes of device memory that a render at a batch needs."""
    runtime = SimulatedRuntime()
    with Engine(MODEL, runtime, size=SIZE, batch=batch):
        free, total = runtime.cuda.memory_bytes()
    runtime.close()
    # A few decoded frames besides.
    return total - free + 8 * SIZE[0] * SIZE[1] * 3


def test_a_render_that_does_not_fit_starts_again_smaller_and_says_so(tmp_path: Path) -> None:
    settings_ = RenderSettings(size=SIZE, steps=2)
    notes: list[str] = []
    runtime = SimulatedRuntime(cuda=SimulatedCuda(memory=memory_for(8)))
    path = tmp_path / "small.gif"
    result = render(
        "0: a dog\n20: a lion",
        path,
        model=MODEL,
        settings=settings_,
        runtime=runtime,
        batch=32,
        on_note=notes.append,
    )
    assert result.numerics["batch"] == 8
    assert [note.rsplit(";", 1)[1] for note in notes if "starting again" in note] == [
        f" starting again at batch {batch}, whose numerics are its own" for batch in (16, 8)
    ]
    assert '"batch": 8' in (read_metadata(path) or "")
    runtime.close()
    # The same file as a render that was asked for the smaller batch at once.
    again = SimulatedRuntime()
    other = tmp_path / "asked.gif"
    render("0: a dog\n20: a lion", other, model=MODEL, settings=settings_, runtime=again, batch=8)
    assert other.read_bytes() == path.read_bytes()
    again.close()


def test_a_render_that_fits_nowhere_ends_with_the_memorys_error(tmp_path: Path) -> None:
    runtime = SimulatedRuntime(cuda=SimulatedCuda(memory=1000), batches=(2, 8))
    with pytest.raises(DeviceMemoryError, match=r"MiB asked for.*lower --batch or --size$"):
        render(
            "0: a dog",
            tmp_path / "none.gif",
            model=MODEL,
            settings=RenderSettings(size=SIZE, steps=1),
            runtime=runtime,
            batch=8,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("operation", ["upload", "enqueue", "copy", "download"])
def test_a_device_that_fails_ends_every_job_with_cudas_words(operation: str) -> None:
    runtime = SimulatedRuntime()
    settings_ = replace(RenderSettings(), size=SIZE, steps=2)
    timeline = Timeline(parse_prompts("0: a dog\n9: a lion"), settings_)
    with Engine(MODEL, runtime, size=SIZE, batch=8) as engine:
        engine.submit("job", timeline, settings_, Sink())
        engine.submit("other", timeline, settings_, Sink())
        error = failing(runtime.cuda, operation, "an illegal memory access was encountered")
        with pytest.raises(error, match=r"illegal memory access.*this process must end") as raised:
            engine.run()
        assert isinstance(raised.value, DeviceError)
        assert "\n" not in str(raised.value)
        runtime.cuda.failures.clear()


def test_every_slot_of_a_sound_device_renders_the_same_frame() -> None:
    runtime = SimulatedRuntime()
    assert compare_slots(MODEL, runtime, size=SIZE, batch=8) == []
    runtime.close()


def test_a_slot_that_renders_another_frame_is_named() -> None:
    class Uneven(FakeRuntime):
        """Adds a little in the third slot."""

        def load(self, path, spec, axes, feedback=None):  # type: ignore[no-untyped-def]
            graph = super().load(path, spec, axes, feedback)
            if spec.name == "denoise":
                execute = graph._execute

                def uneven(inputs, outputs):  # type: ignore[no-untyped-def]
                    execute(inputs, outputs)
                    outputs["next_state"][2] += 1

                graph._execute = uneven  # type: ignore[method-assign]
            return graph

    assert compare_slots(MODEL, Uneven(), size=SIZE, batch=4) == [2]


@pytest.mark.parametrize("frames", [None, range(7, 19)])
def test_frames_that_start_from_a_film_are_encoded_together(
    tmp_path: Path, frames: range | None
) -> None:
    """In runs of four where the device decodes so; the same frames, and a segment's as well."""
    film = numbered_film(tmp_path / "in.mp4", 21)
    asked = RenderSettings(size=SIZE, steps=3, video=str(film), num_frames=21, strength="0.4+t/99")
    made = []
    for runtime in (FakeRuntime(), SimulatedRuntime()):
        sink = Sink()
        with Engine(MODEL, runtime, size=SIZE, batch=8) as engine:
            timeline = Timeline.from_text("0: a dog", asked)
            engine.submit("job", timeline, asked, sink, frames=frames)
            engine.run()
            made.append((sink.frames, runtime.num_runs["encode"]))
    (expected, one_by_one), (found, together) = made
    np.testing.assert_array_equal(found, expected)
    assert one_by_one == len(expected)
    assert together == (6 if frames is None else 4)


@pytest.mark.parametrize(("runtime", "num_graphs"), [(FakeRuntime, 1), (SimulatedRuntime, 2)])
def test_a_picture_and_a_film_share_a_graph_where_they_run_alike(
    tmp_path: Path, runtime: Callable[[], Any], num_graphs: int
) -> None:
    film = numbered_film(tmp_path / "in.mp4", 3)
    Image.new("RGB", SIZE, "red").save(tmp_path / "in.png")
    opened = runtime()
    load, loaded = opened.load, list[str]()

    def noted(path: Path, spec: GraphSpec, axes: Mapping[str, int], **more: Any) -> Any:
        loaded.append(spec.name)
        return load(path, spec, axes, **more)

    opened.load = noted
    with Engine(MODEL, opened, size=SIZE, batch=4) as engine:
        start = RenderSettings(size=SIZE, steps=2, num_frames=3, strength=0.5)
        sources = (replace(start, image=str(tmp_path / "in.png")), replace(start, video=str(film)))
        for asked in sources:
            sink = Sink()
            engine.submit("job", Timeline.from_text("0: a dog", asked), asked, sink)
            engine.run()
            assert len(sink.frames) == 3
    assert loaded.count("encode") == num_graphs
