"""The user's files that frames are made from, which an output never replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from giffusion.engine.conditions.sources import check_output_is_no_source
from giffusion.engine.errors import OutputError
from giffusion.engine.settings import RenderSettings
from giffusion.engine.timelines.timeline import Timeline


def check(output: str, **settings: str) -> None:
    timeline = Timeline.from_text("0: a dog", RenderSettings(**settings))  # type: ignore[arg-type]
    check_output_is_no_source(timeline, Path(output))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("maps", "other"):
        Path(folder).mkdir()
        Path(folder, "00003.png").write_bytes(b"a picture")
    Path("link").symlink_to("maps")
    Path("in.mp4").write_bytes(b"a film")
    Path("linked.mp4").symlink_to("in.mp4")
    Path("twin.mp4").hardlink_to("in.mp4")
    Path("maps/linked.png").symlink_to("../other/00003.png")


@pytest.mark.parametrize(
    ("output", "settings"),
    [
        ("in.mp4", {"video": "in.mp4"}),
        ("linked.mp4", {"video": "in.mp4"}),
        ("in.mp4", {"video": "linked.mp4"}),
        ("twin.mp4", {"video": "in.mp4"}),
        ("maps/../in.mp4", {"video": "in.mp4"}),
        ("new.mp4", {"video": "./new.mp4"}),
        ("100%done.mp4", {"video": "100%done.mp4"}),
        ("maps/%05d.png", {"image": "maps/00003.png"}),
        ("link/%05d.png", {"image": "maps/00003.png"}),
        ("other/%05d.png", {"image": "maps/linked.png"}),
        ("link/%05d.png", {"control": "maps/%05d.png"}),
        ("maps/00003.webp", {"control": "maps/%05d.webp"}),
    ],
)
def test_an_output_that_is_a_source_is_refused(output: str, settings: dict[str, str]) -> None:
    (source,) = settings.values()
    with pytest.raises(OutputError) as caught:
        check(output, **settings)
    assert str(caught.value) == (
        f"{output} would replace {source}, which frames are made from: give the output another name"
    )


@pytest.mark.parametrize(
    ("output", "settings"),
    [
        ("out.mp4", {"video": "in.mp4"}),
        ("other/%05d.png", {"image": "maps/00003.png"}),
        ("other/%05d.png", {"control": "maps/%05d.png"}),
        ("maps/%05d.webp", {"image": "maps/00003.png"}),
        ("maps/map.webp", {"control": "maps/%05d.webp"}),
        ("00003.webp", {"control": "maps/%05d.webp"}),
        ("a\0.mp4", {"video": "in.mp4"}),
        ("a" * 5000 + ".mp4", {"video": "in.mp4"}),
    ],
)
def test_other_outputs_are_none_of_its_business(output: str, settings: dict[str, str]) -> None:
    check(output, **settings)
