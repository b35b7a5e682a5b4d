"""Every place that refuses something is reached from the pages, or is listed with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

import pytest

from giffusion.engine.errors import GiffusionError
from giffusion.engine.prompts import parse_prompts
from giffusion.engine.schedules.curves import parse_schedule
from giffusion.engine.schedules.easing import parse_interpolation
from giffusion.engine.schedules.limits import Limits
from tests.catalogue.entries import entries
from tests.catalogue.outcomes import outcome_of
from tests.catalogue.sites import Site, all_sites, passed
from tests.pages import blocks

JOB: dict[str, float | Fraction] = {"s": 7.0, "max_f": 120.0, "fps": Fraction(24)}
"""The job that `schedules.md` speaks of."""
NUM_FRAMES = 121

GPU = "needs an NVIDIA GPU"
DISK = "the disk is full, or fails, while it is written to"
CHANGED = "somebody else changes the file while it is written, or the disk fails"
ELSEWHERE: dict[str, str] = {
    "engine/runtimes/cuda/": f"{GPU}; tested beside its modules with a simulated one",
    "engine/runtimes/tensorrt/": f"{GPU}; tested beside its modules with a simulated one",
    "engine/audio/analysis.py: _check_count": "needs a sound of a quarter of an hour or more",
    "engine/audio/compiling.py: compiling": "there is no folder at all that can be written",
    "engine/audio/plot.py: write_plot": DISK,
    "engine/encode/__init__.py: open_writer": DISK,
    "engine/encode/avif.py: _verify": CHANGED,
    "engine/encode/folder.py: OutputFolder.__init__": DISK,
    "engine/encode/gif.py: _verify": CHANGED,
    "engine/encode/nvenc.py: Sessions.take": f"{GPU} with NVENC, and as many renders as it takes",
    "engine/encode/nvenc.py: explained": f"{GPU}'s absence or failure, which becomes a reason",
    "engine/encode/output.py: OutputFile.__init__": DISK,
    "engine/encode/png.py: PngEncoder.finish": CHANGED,
    "engine/encode/png.py: _verify": CHANGED,
    "engine/encode/video.py: VideoEncoder._starting": f"{GPU} with NVENC that fails to start",
    "engine/encode/video.py: _verify": CHANGED,
    "engine/encode/webp.py: WebpEncoder._append": "needs 4 GiB of frames",
    "engine/encode/webp.py: _verify": CHANGED,
    "engine/encode/writer.py: Writer._save_partial": DISK,
    "engine/encode/writer.py: Writer._fail": DISK,
    "engine/encode/writer.py: Writer.write": DISK,
    "engine/batching/frame_file.py: FrameFile.__init__": DISK,
    "engine/batching/frame_file.py: FrameFile.read": DISK,
    "engine/batching/frame_file.py: FrameFile.write": DISK,
    "engine/media/decoding.py: FilmDecoder.frame": "needs a decoder that fails in silence",
    "engine/media/index.py: _Scan._add": "needs millions of frames, or one without a time",
    "engine/media/index.py: _read": "the disk fails while the film is read through",
    "engine/media/sound_decoding.py: SoundDecoder._seek": "the disk fails while a sound is sought",
    "engine/runtimes/base.py: HostGraph.run": "the runtime itself fails while it computes",
    "server/commands/engines.py: _checked": "told by `engines verify` in a line of its report",
    "server/commands/engines.py: _rendered": f"{GPU} whose engine computes one slot wrongly",
    "server/commands/render.py: _render_tracked": "refuses nothing: it tells Comet of a refusal",
    "server/settings_text.py: save_settings": DISK,
}
"""Sites that the pages do not reach, by folder or by file and function, each with its reason."""


def is_elsewhere(site: Site) -> bool:
    return any(site.key == key or site.file.startswith(key) for key in ELSEWHERE)


def examples() -> Iterator[Callable[[], object]]:
    """Yields what the other pages show to be wrong."""
    for block in blocks("grammar.md", "wrong"):
        yield partial(parse_prompts, block.text, num_frames=101)
    for block in blocks("schedules.md", "error"):
        schedule = block.text.removesuffix("\n").rpartition("\n")[0]
        yield partial(values, schedule, "guidance", Limits(-1000, 1000))
    for block in blocks("schedules.md", "wrong"):
        yield partial(interpolate, *block.text.split("\n")[0].split(" ", 1))


def values(text: str, name: str, limits: Limits) -> list[float]:
    return list(map(parse_schedule(text, name, limits).bind(JOB).at, range(NUM_FRAMES)))


def interpolate(name: str, arguments: str = "") -> object:
    schedule = parse_interpolation(name, arguments).schedule
    return schedule and list(map(schedule.bind(JOB).at, range(NUM_FRAMES)))


def lines_of_examples() -> set[tuple[str, int]]:
    lines = set()
    for example in examples():
        with pytest.raises(GiffusionError) as caught:
            example()
        lines |= passed(caught.value)
    return lines


@pytest.fixture
def reached(capfd: pytest.CaptureFixture[str]) -> set[tuple[str, int]]:
    """All lines of the source that errors of the pages came by."""
    lines = lines_of_examples()
    for entry in entries():
        try:
            lines |= outcome_of(entry, capfd).lines
        except pytest.skip.Exception:
            continue
    return lines


def test_every_site_is_reached_or_is_listed_with_a_reason(reached: set[tuple[str, int]]) -> None:
    sites = all_sites()
    assert len(sites) > 250
    unreached = [site for site in sites if not has_reached(site, reached)]
    assert [str(site) for site in unreached if not is_elsewhere(site)] == []


def test_the_list_names_only_sites_that_are_there(reached: set[tuple[str, int]]) -> None:
    unreached = [site for site in all_sites() if not has_reached(site, reached)]
    keys = {site.key for site in unreached}
    stale = [
        key
        for key in ELSEWHERE
        if key not in keys and not any(site.file.startswith(key) for site in unreached)
    ]
    assert stale == []


def has_reached(site: Site, lines: set[tuple[str, int]]) -> bool:
    return any((site.file, line) in lines for line in range(site.line, site.end + 1))
